"""The rounding simulator: the oracle's own source, run on arrays that know how far a correct computation strays from them.

Reading order: `formats` (the dtypes and their grids), `shadow` (the array the oracle is handed: an exact matrix with a shadow),
`trials` (the shadow is many runs that round as a contract says), `worst_case` (the shadow is a proven bound).
"""
