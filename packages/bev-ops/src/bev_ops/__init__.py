"""bev-ops."""
