"""bev-models."""
