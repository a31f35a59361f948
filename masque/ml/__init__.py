"""Machine learning written on secrets: layers, losses, optimisers, preprocessing, metrics."""
