"""The options of a run of the properties, each in one row: the command line, pytest, Python and the engine read them from here.

Imports the standard library alone, for the pytest plugin is loaded in every pytest run.
"""

from typing import Any, Literal, NamedTuple


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
