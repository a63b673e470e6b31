"""The training loop: batches, steps, checkpoints."""
