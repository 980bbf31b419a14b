"""Mutants: right implementations with one operator, number, call or statement changed."""
