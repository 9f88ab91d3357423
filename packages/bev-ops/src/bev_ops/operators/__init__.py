"""The ops as operators of torch: what the dispatcher knows of them, and what it runs where."""
