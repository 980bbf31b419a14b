"""The options of a run of the properties, each in one row: the command line, pytest, Python and the engine read them from here.

Imports the standard library alone, for the pytest plugin is loaded in every pytest run.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, NamedTuple


def _items(value: str | Iterable[str]) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    return tuple(dict.fromkeys(item.strip() for item in items if item.strip()))


def _whole(value: Any, least: int) -> int | None:
    return number if (number := int(str(value))) >= least else None


def _seconds(value: Any) -> float | None:
    return number if (number := float(value)) > 0 else None


KINDS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "text": ("a text", str),
    "list": ("a list", _items),
    "flag": ("true or false", bool),
    "count": ("a whole number of at least 1", partial(_whole, least=1)),
    "seed": ("a whole number of at least 0", partial(_whole, least=0)),
    "seconds": ("a number of seconds above 0", _seconds),
}
"""What an option of each kind is, and how it is read: None for what is out of range."""


class RunOption(NamedTuple):
    """One option: `--name`, the field of `engine.Request` that holds it, and what may be said."""

    name: str
    field: str
    text: str
    metavar: str | None = None
    kind: Literal["text", "list", "choice", "flag", "count", "seed", "seconds"] = "text"
    choices: tuple[str, ...] = ()
    default: Any = None
    pytests_own: bool = False

    def read(self, value: Any) -> Any:
        """`value`, of a command line, a file or a call, as what it is. Raises ValueError, in one line."""
        expected, read = (f"one of {', '.join(self.choices)}", None) if self.kind == "choice" else KINDS[self.kind]
        try:
            found = read(value) if read else value
        except (TypeError, ValueError):
            found = None
        if found is None or (self.kind == "choice" and found not in self.choices):
            raise ValueError(f"--{self.name}: expected {expected}, got {value}")
        return found

    def said(self, value: Any) -> list[str]:
        """The arguments of a command line that say `value`; none for what says nothing."""
        if value is None or value is False or value in ("", ()):
            return []
        if value is True:
            return [f"--{self.name}"]
        return [f"--{self.name}={','.join(value) if isinstance(value, tuple) else value}"]


RUN_OPTIONS = (
    RunOption("as", "step", "The step a callable is to be used as (`veriformer list steps`).", "STEP"),
    RunOption(
        "arrays",
        "arrays",
        "What TARGET takes and returns. Default: what it says, else torch.",
        kind="choice",
        choices=("torch", "numpy"),
    ),
    RunOption("dtype", "dtypes", "Comma-separated. Default: all that TARGET supports.", "LIST", "list"),
    RunOption("device", "device", "cpu, cuda or cuda:N.", "DEVICE", default="cpu"),
    RunOption("claims", "claims", "Comma-separated claim ids. Default: all.", "LIST", "list"),
    RunOption(
        "backward", "backward", "Gradients too: by autograd, of what TARGET offers forward alone.", kind="flag", default=False
    ),
    RunOption(
        "conventions",
        "conventions",
        "What TARGET does where there is a choice: NAME=CHOICE,… (`veriformer list conventions`).",
        "LIST",
    ),
    RunOption("contract", "contract", "How TARGET computes: mode=fused,split_k=2, or bfloat16.split_k=2 for one dtype.", "LIST"),
    RunOption("domain", "domain", "Which arguments TARGET takes: d_k=16|32|64,d_v=d_k,n=multiple of 128,m=n,mask=none.", "LIST"),
    RunOption(
        "like",
        "like",
        "Whose conventions TARGET follows: torch, onnx, jax, flash-attn, … (`veriformer list libraries`).",
        "LIBRARY",
    ),
    RunOption("examples", "examples", "Examples a property. Default: what the profile says.", "N", "count"),
    RunOption("seed", "seed", "Draws the examples: one seed, one run.", "N", "seed", default=0),
    RunOption("maxfail", "maxfail", "Run nothing more once so many checks are broken.", "N", "count", pytests_own=True),
    RunOption("max-time", "max_time", "Seconds a call may take.", "SECONDS", "seconds", default=10.0),
)
DECLARED = ("conventions", "contract", "like", "domain")
"""Those that declare something of an implementation."""

BY_FIELD = {option.field: option for option in RUN_OPTIONS}
