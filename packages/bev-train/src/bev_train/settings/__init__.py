"""What a run is configured by: configs found, the configs they are based on, and keys."""
