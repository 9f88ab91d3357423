"""nuScenes tables: rows, columns, versions, splits and classes."""
