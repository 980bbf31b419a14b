"""What it costs: a file for each step, peers on the same weights, and the paired timer."""
