"""Conventions of an implementation: declared by a user or a library's name, or found by probes; and how they are shown."""
