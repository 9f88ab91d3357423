"""bev-data."""
