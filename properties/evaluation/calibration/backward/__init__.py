"""Calibration of gradients: how often a budget flags a correct backward, and how small a fault of one it sees.

Reading order: `low_precision` (one readable backward of each step whose every arithmetic choice is a parameter), `variants` (the
correct ones), `cases` (what they are run on), `rules` (what else gradients are judged by), `faults` (graded ones) and `work` (what
one chunk of it finds). Chunks, counts and tables are those of `properties.evaluation.calibration`.
"""
