"""Results and what they score: nuScenes results files, the official evaluation, the fast one, depth."""
