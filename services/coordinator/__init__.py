"""The coordinator: sequences training rounds and keeps jobs; never receives a share."""
