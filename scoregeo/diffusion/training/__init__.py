"""How a network is trained: data, losses, steps, averages, checkpoints."""
