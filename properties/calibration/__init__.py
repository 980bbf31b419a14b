"""Calibration: how often a budget accuses an honest implementation, and how small a fault it sees.

Reading order: `honest` (one readable low-precision implementation whose every arithmetic choice is a parameter), `variants` (the
bank of honest variants), `faults` (the named faults, on inputs that show them, and graded ones), `rivals` (the usual rules),
`cases` (what the variants are run on), `runner` (chunks of work, in parallel, resumable) and `table` (what came out).
"""
