"""Placeholder, replaced soon."""


def main() -> None:
    """Start."""
