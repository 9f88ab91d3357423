"""A key frame on disk: what it holds, how it is built from tables, stored and read."""
