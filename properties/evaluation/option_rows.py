"""Each form of attention beyond the article: its laws, the faults that they catch, and correct variants that they let pass.

`python -m properties.evaluation.option_rows` prints the table in Markdown: laws from the properties as they stand, what was caught
from the committed score, and how many rows the covering array has.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from properties.claims import Property
from properties.evaluation.detection.catalogue import FAULTS
from properties.evaluation.detection.fault import Fault
from properties.inputs.attention_options import covering
from properties.steps import OPTIONS
from properties.verdict.listing import properties

SCORE = Path(__file__).parents[1] / "data" / "score.json"
HEAD = ("form", "laws", "faults", "caught")


@dataclass(frozen=True)
class Row:
    """One form: the step or option that a law of it asks for, and which faults of the catalogue are its own."""

    name: str
    needs: str
    has: Callable[[Fault], bool]


def _of_option(name: str) -> Row:
    fault_class = f"option-{name.replace('_', '-')}"
    return Row(name, f"attention.{name}", lambda fault: fault.fault_class == fault_class)


def _of_base(name: str, needs: str, base: str) -> Row:
    return Row(name, needs, lambda fault: fault.base == base)


def _is_ring(fault: Fault) -> bool:
    return fault.base == "cached_attention" and fault.fault_class == "ring-cache-wrap"


ROWS = (
    *(_of_option(name) for name in OPTIONS["attention"]),
    _of_base("packed sequences", "packed_attention", "cu_seqlens_attention"),
    _of_base("returned log-sum-exp", "log_sum_exp", "log_sum_exp"),
    Row("static cache", "cached_attention", lambda fault: fault.base == "cached_attention" and not _is_ring(fault)),
    Row("ring", "cached_attention.ring", _is_ring),
    _of_base("paged cache", "paged_attention", "paged_attention"),
    _of_base("cache of its own", "attention_cache", "attention_cache"),
    _of_base("cache of a model, rows of different length", "kv_cache", "uneven_cache"),
)


def table(score: dict[str, Any]) -> list[tuple[str, ...]]:
    """A line for each row: how many properties ask for it, how many faults are its own, and how many of these were caught."""
    status = {entry["id"]: entry["status"] for entry in score["entries"]}
    lines = []
    for row in ROWS:
        laws = sum(row.needs in _needs(test) for test in properties())
        own = [fault.id for fault in FAULTS if row.has(fault)]
        caught = sum(status[each] == "caught" for each in own)
        lines.append((row.name, str(laws), str(len(own)), str(caught)))
    return lines


def _needs(test: Any) -> tuple[str, ...]:
    prop: Property = test.property_of_claim
    return prop.needs


def main() -> None:
    """Print the table, what was flagged of what is correct, and the number of rows of the covering array."""
    print("\n".join(printed(json.loads(SCORE.read_text(encoding="utf-8")))))


def printed(score: dict[str, Any]) -> list[str]:
    """The lines."""
    rows = [f"| {' | '.join(line)} |" for line in (HEAD, ("---",) * len(HEAD), *table(score))]
    flagged = sum(len(each) for each in score["correct"]["flagged"].values())
    return [
        *rows,
        "",
        f"flagged of {score['correct']['checks']} checks of {score['correct']['variants']} correct implementations: {flagged}",
        f"rows of the covering array of all options, a mask and n = m, n < m, n > m: {len(covering())}",
    ]


if __name__ == "__main__":
    main()
