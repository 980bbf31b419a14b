"""What it costs: workloads, the paired timer, peers on the same weights, and the machine's own limit measured beside them."""
