"""nuScenes-format data for camera-only 3D detection: infos, samples, results, pictures, a rendered world."""

__version__ = "0.1.0"
