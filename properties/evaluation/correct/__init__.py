"""The bases: every step in plain PyTorch, as a user might write it. Each file, with what it imports here, stands alone."""
