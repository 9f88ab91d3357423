"""What cameras and lidar see of the rendered world."""
