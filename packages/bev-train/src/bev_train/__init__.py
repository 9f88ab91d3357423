"""Training and evaluation of the detectors of bev-models, on Lightning: `bev-train --help`."""

__version__ = "0.1.0"
