"""The vocabulary of a verdict: how each outcome is drawn, said and ranked. Never by colour alone: each has its glyph and word."""

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


OUTCOMES = (  # worst first
    Outcome("FAIL", "✗", "broken", "bad", "the implementation contradicts the claim"),
    Outcome("CRASH", "†", "crashed", "bad", "the implementation's process died"),
    Outcome("TIMEOUT", "∞", "timed out", "bad", "the implementation did not answer in the time allowed"),
    Outcome("ERROR", "!", "error", "bad", "it raised, changed its input, or returned the wrong type, shape or dtype"),
    Outcome("CONVENTION_MISMATCH", "≠", "convention mismatch", "bad", "it follows another convention than it declares"),
    Outcome("VACUOUS", "∅", "vacuous", "bad", "nothing was compared, so nothing is proven"),
    Outcome("UNEXPECTED_PASS", "‼", "unexpected pass", "bad", "declared as a known failure, and it holds"),
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
OF_THE_REPORT = ("MISSING", "PARTIAL", "UNPLANNED")  # what no line of a run may say: it follows from what is not there
IN_A_LINE = tuple(name for name in BY_NAME if name not in OF_THE_REPORT)
BROKEN = tuple(outcome.name for outcome in OUTCOMES if outcome.tone == "bad" and outcome.name != "MISSING")


def worst(names: list[str]) -> str:
    """What several verdicts amount to: the worst of them; a pass beside a step that is not offered is a pass in part."""
    if not names:
        return "UNPLANNED"
    if "PASS" in names and "UNSUPPORTED" in names and set(names) == {"PASS", "UNSUPPORTED"}:
        return "PARTIAL"
    return min(names, key=RANK.__getitem__)
