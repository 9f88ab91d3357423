"""The rendered world as a nuScenes database."""
