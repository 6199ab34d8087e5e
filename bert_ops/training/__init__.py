"""The one training loop: optimiser, schedule, clipping, checkpoints, resume."""
