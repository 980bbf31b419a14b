"""The vocabulary of verdicts: how each outcome is drawn, said and ranked. Never by colour alone: each has its glyph and token."""

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
    Outcome(
        "UNEXPECTED_PASS", "‼", "unexpected pass", "bad", "declared a known failure, and it holds: the declaration is out of date"
    ),
    Outcome("VACUOUS", "∅", "vacuous", "bad", "nothing was compared, so nothing is proven"),
    Outcome("MISSING", "?", "did not run", "bad", "planned, and no verdict is there"),
    Outcome("SUSPECT", "~", "suspect", "warn", "6–8 σ after 256 resamples: reported, exit 0"),
    Outcome("KNOWN_FAILURE", "×", "known failure", "warn", "fails as its adapter declares, for the reason below"),
    Outcome("PARTIAL", "◐", "holds in part", "good", "some of its properties hold, the others need steps that are not offered"),
    Outcome("PASS", "✓", "holds", "good", "every planned property holds (a refuted claim: its counterexample is found)"),
    Outcome("UNSUPPORTED", "–", "not offered", "none", "the implementation does not offer the step; never counted as passed"),
    Outcome("UNPLANNED", "·", "not planned", "none", "this run did not plan the claim here"),
)
COMPARED = {  # how a peer stands to its baseline
    outcome.name: outcome
    for outcome in (
        Outcome("faster", "↓", "faster", "none", "the whole 95 % interval is more than {margin} below 1"),
        Outcome("same", "=", "same", "none", "the whole interval is within ±{margin}"),
        Outcome("slower", "↑", "slower", "none", "the whole interval is more than {margin} above 1"),
        Outcome("unresolved", "≈", "unresolved", "none", "inconclusive at ±{margin}: the interval crosses its edge"),
        Outcome("untrusted", "~", "untrusted", "warn", "rejected by the A/A control: the baseline differs from itself in this run"),
    )
}
BY_NAME = {outcome.name: outcome for outcome in OUTCOMES}
RANK = {outcome.name: rank for rank, outcome in enumerate(OUTCOMES)}


def worst(names: list[str]) -> str:
    """What several verdicts amount to: the worst of them; a pass beside a step that is not offered is a pass in part."""
    if not names:
        return "UNPLANNED"
    return "PARTIAL" if set(names) == {"PASS", "UNSUPPORTED"} else min(names, key=RANK.__getitem__)
