"""A benchmark run: fresh processes, the paired timer, and the lines on disk."""
