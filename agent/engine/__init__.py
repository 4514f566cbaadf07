"""The only package that speaks to Docker: digests, pulls, and the replacement of a container with its roll-back."""
