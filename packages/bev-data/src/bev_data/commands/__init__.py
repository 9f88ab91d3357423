"""Commands of `bev-data`, each with its options and its output."""
