"""Real bugs re-created, and cheats: what a suite like this one must catch, each a right step with one wrong statement.

`evaluation/correct/` is a small Transformer in plain PyTorch, written for this purpose; `fault.py` says how a statement of it is
replaced; `catalogue.py` lists all entries. Nothing that draws inputs or judges answers may import this package.
"""
