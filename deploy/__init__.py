"""Deployment: the image, all services on one host in containers."""
