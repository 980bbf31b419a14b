"""The vocabulary of a verdict: how each outcome is drawn, said and ranked. Never by colour alone: each has its glyph and token."""

from dataclasses import dataclass
from typing import Literal

Tone = Literal["bad", "warn", "good", "none"]


@dataclass(frozen=True)
class Outcome:
    """One way a planned check may stand in the report."""

    name: str
    glyph: str
    word: str
    tone: Tone
    meaning: str


OUTCOMES = (  # worst first, in the order of `records.Verdict`
    Outcome("CRASH", "†", "crashed", "bad", "the implementation's process died"),
    Outcome("TIMEOUT", "∞", "timed out", "bad", "the implementation did not answer in the time allowed"),
    Outcome("ERROR", "!", "error", "bad", "it raised, changed its input, or returned the wrong type, shape or dtype"),
    Outcome("FAIL", "✗", "broken", "bad", "the implementation contradicts the claim"),
    Outcome("CONVENTION_MISMATCH", "≠", "convention mismatch", "bad", "it follows another convention than it declares"),
    Outcome("UNEXPECTED_PASS", "‼", "unexpected pass", "bad", "declared as a known failure, and it holds"),
    Outcome("VACUOUS", "∅", "vacuous", "bad", "nothing was compared, so nothing is proven"),
    Outcome("MISSING", "?", "did not run", "bad", "planned, and no verdict is there"),
    Outcome("SUSPECT", "~", "suspect", "warn", "between the look-again and the fail mark after a second look"),
    Outcome("KNOWN_FAILURE", "×", "known failure", "warn", "fails as its adapter declares, with the reason"),
    Outcome("PARTIAL", "◐", "holds in part", "good", "some of its properties hold, the others are about steps not offered"),
    Outcome("PASS", "✓", "holds", "good", "every planned property holds (a refuted claim: its counterexample was found)"),
    Outcome("UNSUPPORTED", "–", "not offered", "none", "the implementation does not offer the step; never counted as passed"),
    Outcome("UNPLANNED", "·", "not planned", "none", "this run did not plan the claim here"),
)
BY_NAME = {outcome.name: outcome for outcome in OUTCOMES}
RANK = {outcome.name: rank for rank, outcome in enumerate(OUTCOMES)}


def worst(names: list[str]) -> str:
    """What several verdicts amount to: the worst of them; a pass beside a step that is not offered is a pass in part."""
    if not names:
        return "UNPLANNED"
    return "PARTIAL" if set(names) == {"PASS", "UNSUPPORTED"} else min(names, key=RANK.__getitem__)
