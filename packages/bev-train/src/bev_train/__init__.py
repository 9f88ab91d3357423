"""bev-train."""
