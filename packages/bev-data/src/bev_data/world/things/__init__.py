"""What the things of the rendered world look like."""
