"""One module a command; each exposes a click command called `command`, and is imported when it is asked for."""
