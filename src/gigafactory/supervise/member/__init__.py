"""What a worker does in a world: load, step, keep copies, compare."""
