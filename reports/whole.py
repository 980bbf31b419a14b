"""A file that is there whole or not at all: nobody reads half of one, and a full disk leaves nothing behind."""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> Path:
    """Put `text` in place of what is there, if anything; returns `path`. Raises OSError, which names it."""
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        with unfinished.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return path
