"""Our folders have plain names, and a user's project may have folders of the same names: ours must be the ones we import."""

import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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
    os.environ |= our_environment()


def _has_our_names(folder: Path) -> bool:
    names = [name for package in PACKAGES for name in (package, f"{package}.py")]
    return folder.resolve() != ROOT and any((folder / name).exists() for name in names)


def our_environment() -> dict[str, str]:
    """The environment of a process that runs our code: it finds our packages first."""
    environment = dict(os.environ)
    folders = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    if any(_has_our_names(Path(folder)) for folder in folders) and THEIRS not in environment:
        environment[THEIRS] = environment["PYTHONPATH"]
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *folders])
    return environment


def their_environment() -> dict[str, str]:
    """The environment of a process that runs the user's own code: their folders are searched as they would be without us."""
    environment = dict(os.environ)
    if THEIRS in environment:
        environment["PYTHONPATH"] = environment.pop(THEIRS)
    return environment


def mistaken(of: Iterable[str] = PACKAGES) -> str | None:
    """In one line, the package of these that would be imported from elsewhere, with both places; None when all is well."""
    for package in of:
        spec = importlib.util.find_spec(package)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != ROOT / package:
            return f"{package}: expected {ROOT / package}, but Python finds {found or 'nothing'} first; is PYTHONPATH set?"
    return None


def standing_alone(name: str) -> Any:
    """A module of ours that imports none of our packages, by its file: in a user's process its package's name may be theirs."""
    path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
    by_name = sys.modules.get(name)
    if by_name is not None and by_name.__file__ == str(path):
        return by_name
    private = f"veriformer:{name}"
    if private not in sys.modules:
        spec = importlib.util.spec_from_file_location(private, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[private] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[private])
    return sys.modules[private]
