"""What happens in the rendered world, where and when."""
