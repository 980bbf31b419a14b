"""What must hold: the article's claims as properties, run on every implementation that offers the step.

Reading order: `claims` (what is claimed), `steps` (what an implementation may offer), `budgets` (how far rounding may take an
correct one), `conventions` (what is a choice and not a fault), then one `test_<step>.py` per step.
"""
