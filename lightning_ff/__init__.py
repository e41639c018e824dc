"""Train networks block by block in PyTorch Lightning: Forward-Forward and its local-learning kin."""
