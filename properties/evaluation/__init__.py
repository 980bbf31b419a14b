"""How good the suite is: re-created faults, mutants, calibration, strange answers, localisation."""
