"""What measurements say: intervals, verdicts, growth, the roofline, and the tables on a terminal."""
