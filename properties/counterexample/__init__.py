"""Counterexamples: found, minimised, grouped by failure, written as scripts that stand alone."""
