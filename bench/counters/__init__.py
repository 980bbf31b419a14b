"""Counts in place of times: instructions, torch operators and allocated bytes of one call."""
