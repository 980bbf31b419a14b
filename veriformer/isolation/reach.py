"""Keep the oracle out of an implementation's reach: one that answers with the oracle's own numbers cannot be told from a right one.

Stands alone (standard library only), as everything in the implementation's process does.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("reference", "properties")


class OracleImportBlocker(MetaPathFinder):
    """Refuses our packages that hold or call the oracle; a user's own package of such a name is none of them."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Raises ImportError for a module of ours; leaves every other one to those who come after."""
        if fullname.partition(".")[0] not in PACKAGES:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
        if any(place is not None and Path(place).resolve().is_relative_to(ROOT / fullname.partition(".")[0]) for place in places):
            raise ImportError(
                f"{fullname} is the oracle's: an implementation that may read it proves nothing; keep it in a file without"
            )
        return None


def close() -> None:
    """From now on this process cannot import the oracle."""
    sys.meta_path.insert(0, OracleImportBlocker())
