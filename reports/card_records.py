"""The record of `veriformer card`: what a black box was found to do, typed as the lines of a run are.

Imports what `reports.records` imports, so that every other package may import it.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from reports.records import Dtype, Text

SCHEMA = 1
Problem = Literal["", "mismatch", "other", "refused", "error", "crash", "timeout"]


class CardConvention(Struct, frozen=True, forbid_unknown_fields=True):
    """One convention: what was found, how, what is declared, and what PyTorch's attention does."""

    name: Text
    what: str
    choice: Annotated[str, Meta(description="the choice that a probe shows; empty for none")]
    meaning: Annotated[str, Meta(description="the choice in words, or what was answered instead")]
    how: Annotated[str, Meta(description="the probe: which question its answer is exact to")]
    declared: Annotated[str, Meta(description="what the implementation says of itself, or the signature of the step")] = ""
    torch: Annotated[str, Meta(description="what torch.sdpa is seen to do; empty where it has no such step or option")] = ""
    differs: Annotated[bool, Meta(description="whether PyTorch does otherwise")] = False
    problem: Annotated[Problem, Meta(description="mismatch: another choice than declared; other: an answer that fits none")] = ""
    dtypes: list[Dtype] = []

    @property
    def mismatch(self) -> bool:
        """Whether a declaration is contradicted."""
        return self.problem == "mismatch"


class CardNumber(Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the numerical fingerprint, at a dtype."""

    name: Text
    what: str
    value: str
    how: str
    dtype: Dtype
    problem: Problem = ""


class CardInvariance(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether a change of the call moves no bit of an answer, at a dtype."""

    name: Text
    what: str
    holds: Annotated[bool | None, Meta(description="null where it could not be asked; `said` tells why")]
    size: Annotated[int | None, Meta(description="the first size at which a bit is another")] = None
    expected: Annotated[bool, Meta(description="false where no implementation is expected to hold")] = True
    said: str = ""
    dtype: Dtype = "float32"


class CardTaken(Struct, frozen=True, forbid_unknown_fields=True):
    """Sizes, mask shapes or memory layouts: which are taken, which refused, which answered with other bits."""

    name: Text
    taken: list[str]
    refused: list[str]
    other: list[str] = []


class ContractCard(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that is found out about an implementation in a few seconds."""

    schema: Literal[1] = SCHEMA
    kind: Literal["card"] = "card"
    implementation: Text
    device: Text
    dtypes: list[Dtype]
    steps: list[str]
    options: Annotated[list[str], Meta(description="keyword arguments of attention that it takes")]
    ignored: Annotated[list[str], Meta(description="options that it takes and that change nothing")] = []
    conventions: list[CardConvention]
    sizes: list[CardTaken]
    numerics: list[CardNumber]
    invariance: list[CardInvariance]
    domain: Annotated[str, Meta(description="what it says it accepts; empty for nothing")] = ""
    contract: Annotated[str, Meta(description="what it declares of its arithmetic; empty for nothing")] = ""
    declaration: Annotated[dict[str, Any], Meta(description="conventions and contract as a class may declare them")] = {}
    mismatches: Annotated[list[str], Meta(description="declarations that a probe contradicts, in a line each")] = []
    seconds: float = 0.0


def schema() -> dict[str, Any]:
    """The JSON Schema of the record."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(ContractCard)}
