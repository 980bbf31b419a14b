"""Inputs that show faults: Hypothesis strategies for every step, and options combined pairwise."""
