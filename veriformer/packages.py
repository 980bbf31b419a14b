"""Our folders have plain names, and a user's project may have folders of the same names: ours must be the ones we import."""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("reference", "optimized", "properties", "bench", "reports", "veriformer")
GUARD = (sys.executable, "-I", "-S", str(ROOT / "properties" / "run" / "subprocesses.py"))
"""What stands above a process that is to end with this one; by its path, since it is in one of our packages."""


THEIRS = "VERIFORMER_THEIR_PYTHONPATH"  # in the environment: what PYTHONPATH is for the user's own code


def prefer_ours() -> None:
    """Let a folder that has packages of our names be searched last, here and in processes of ours that this one starts.

    `python -m` puts the current directory first, and whoever sets PYTHONPATH the folders named there.
    """
    here = {"", str(Path.cwd())} - {str(ROOT)}
    last = [place for place in sys.path if place in here or _has_our_names(Path(place))]
    sys.path[:] = [place for place in sys.path if place not in last] + last
    folders = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    if any(_has_our_names(Path(folder)) for folder in folders) and THEIRS not in os.environ:
        os.environ[THEIRS] = os.environ["PYTHONPATH"]
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *folders])


def _has_our_names(folder: Path) -> bool:
    names = [name for package in PACKAGES for name in (package, f"{package}.py")]
    return folder.resolve() != ROOT and any((folder / name).exists() for name in names)


def their_environment() -> dict[str, str]:
    """The environment of a process that runs the user's own code: their folders are searched as they would be without us."""
    environment = dict(os.environ)
    if THEIRS in environment:
        environment["PYTHONPATH"] = environment.pop(THEIRS)
    return environment


def mistaken() -> str | None:
    """In one line, the package that would be imported from elsewhere, with both places; None when all is well."""
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != ROOT / package:
            return f"{package}: expected {ROOT / package}, but Python finds {found or 'nothing'} first; is PYTHONPATH set?"
    return None
