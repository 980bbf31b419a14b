"""How far the timer can be trusted on this machine: its test of itself, and the doctor."""
