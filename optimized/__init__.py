"""The fast one: the same steps, names and arguments as `reference`, in PyTorch, batched, in any dtype on any device."""
