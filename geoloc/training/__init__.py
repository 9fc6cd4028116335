"""How networks are trained: the loop, schedules, checkpoints, data."""
