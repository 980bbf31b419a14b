"""What was found: a pure function from run folders to tables, one HTML page, Markdown and CSV. Reads files, never our code."""
