"""A broken property of a run becomes a script in the run's folder."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from properties.implementations.subject import Subject
    from properties.judgement import Judgement

SECONDS = 3.0  # for making the numbers of one counterexample small
FOLDER = "counterexamples"


def script(run: Path, subject: "Subject", claim: str, law: str, judgement: "Judgement") -> Path | None:
    """Write the smallest counterexample that stands for itself; None where no single answer shows the fault."""
    from properties.counterexample_files import write
    from properties.counterexamples import smallest
    from properties.implementations.registry import BUILT_IN

    found = smallest(subject, claim, law, judgement.calls, seconds=SECONDS)
    if found is None:
        return None
    target = getattr(subject.adapter, "target", None)  # of a candidate in a process of its own
    return write(run / FOLDER, found, candidate=BUILT_IN.get(subject.name, target))
