"""A sample of the catalogue of faults, found as a user's own file would be: through `veriformer verify`, in processes of their own.

The detection score looks for a fault in our own process, property after property, until one breaks. Here the same claim is verified
on a file that holds the fault, with the same seed and number of examples: the same property must break, and none on its base.
"""

import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from properties.evaluation.detection.catalogue import CATALOGUE, entry
from properties.evaluation.detection.cheats import BY_CHANCE, CHEATS
from properties.evaluation.detection.fault import Fault
from properties.implementations.conventions import OURS
from veriformer import engine
from veriformer.results import Results

Line = dict[str, Any]


def sample(searches: Iterable[Line], seed: int) -> dict[str, dict[str, str]]:
    """Of every class of faults the first entry that was caught with this seed, and every cheat but those that show by chance.

    Claim → ids, each with the property that did.
    """
    caught = {line["id"]: line for line in searches if line["kind"] == "search" and line["seed"] == seed and line["caught"]}
    first = {fault.fault_class: fault.id for fault in reversed(CATALOGUE) if fault.id in caught}
    chosen: dict[str, dict[str, str]] = defaultdict(dict)
    cheats = {fault.id for fault in CHEATS if fault.id in caught} - BY_CHANCE
    for identifier in sorted({*first.values(), *cheats}):
        chosen[caught[identifier]["claim"]][identifier] = caught[identifier]["property"]
    return dict(sorted(chosen.items()))


def verified(claim: str, identifiers: dict[str, str], seed: int, examples: int | None) -> Line:
    """Verify one claim on these faults and their bases: which are caught by the same property, which bases are flagged."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        targets = {(each, wrong): _written(entry(each), folder, wrong=wrong) for each in identifiers for wrong in (True, False)}
        request = engine.Request(targets=tuple(targets.values()), run=folder / "run", claims=(claim,), examples=examples, seed=seed)
        ended = engine.run(request, folder=folder)
        results = Results.of(folder / "run")
    broken = {(each.implementation, each.name) for each in results.broken}
    flagged = {implementation for implementation, _ in broken}
    return {
        "kind": "isolated",
        "id": claim,
        "seed": seed,
        "planned": len(results.planned),
        "missing": len(results.missing),
        "ended_early": ended.code not in (0, 1),
        "faults": list(identifiers),
        "caught": [each for each, law in identifiers.items() if (targets[each, True], law) in broken],
        "flagged": [each for each in identifiers if targets[each, False] in flagged],
    }


def _written(fault: Fault, folder: Path, *, wrong: bool) -> str:
    """A file with the fault, or the right statement in its place; the target in it offers the fault's steps and no others."""
    file = folder / f"{fault.id}{'' if wrong else '.right'}.py"
    offered = fault.implementation(wrong=wrong)
    steps = "".join(f"    {step} = staticmethod({step})\n" for step in sorted(offered.steps))
    said = f"    options = {sorted(offered.options)!r}\n    dtypes = {(fault.dtype,)!r}\n    conventions = {asdict(OURS)!r}\n"
    file.write_text(f"{fault.source(wrong=wrong)}\n\nclass Target:\n{said}{steps}", encoding="utf-8")
    return f"{file.name}:Target"
