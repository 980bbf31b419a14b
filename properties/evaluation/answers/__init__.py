"""The catalogue of answers: what an implementation may give back besides a right array, and what must be said of it."""
