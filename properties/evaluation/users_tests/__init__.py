"""A user's own tests, scored: what they notice of the faults of the catalogue, put in the place of the kernel that they test."""
