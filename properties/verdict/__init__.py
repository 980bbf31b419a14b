"""Verdicts: one property run on one implementation, how hard Hypothesis looks, and which properties there are."""
