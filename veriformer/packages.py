"""Our folders have plain names, and a user's project may have folders of the same names: ours must be the ones we import."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("reference", "optimized", "properties", "bench", "reports", "veriformer")
GUARD = (sys.executable, "-I", "-S", str(ROOT / "properties" / "run" / "subprocesses.py"))
"""What stands above a process that is to end with this one; by its path, since it is in one of our packages."""


def prefer_ours() -> None:
    """Let the current directory be searched last: `python -m` puts it first."""
    here = {"", str(Path.cwd())} - {str(ROOT)}
    sys.path[:] = [place for place in sys.path if place not in here] + [place for place in sys.path if place in here]


def mistaken() -> str | None:
    """In one line, the package that would be imported from elsewhere, with both places; None when all is well."""
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != ROOT / package:
            return f"{package}: expected {ROOT / package}, but Python finds {found or 'nothing'} first; is PYTHONPATH set?"
    return None
