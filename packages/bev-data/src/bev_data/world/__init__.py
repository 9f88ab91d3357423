"""A nuScenes-format world, rendered: exact geometry, every detection class, no download.

`write_world` writes the database; `build_scene`, `render` and `scan` give single pictures with exact depth
and identity of every pixel, and lidar sweeps.
"""

from bev_data.world.sensors.views import Scan, View, camera_pose, render, scan
from bev_data.world.street.scene import Scene, build_scene
from bev_data.world.world import write_world

__all__ = ["Scan", "Scene", "View", "build_scene", "camera_pose", "render", "scan", "write_world"]
