"""What a user touches: the SDK and the `masque` command."""
