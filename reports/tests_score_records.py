"""The record of `veriformer score --tests`: what a user's tests notice, typed as the lines of a run are.

Imports what `reports.records` imports, so that every other package may import it.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from reports.records import Text

SCHEMA = 1
Kind = Literal["fault", "cheat"]
Status = Literal["noticed", "got through", "not told apart", "not shown", "not asked"]


class ScoredFault(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One fault or cheat of the catalogue, in the kernel's place."""

    id: Text
    kind: Kind
    component: Text
    fault_class: Text
    shows: Annotated[str, Meta(description="when it shows, in a sentence")]
    status: Annotated[
        Status,
        Meta(
            description="not told apart: its correct base fails the same tests; not shown: the kernel's signature is not seen to "
            "show it; not asked: got through, since no call of the tests could be read by it"
        ),
    ]
    test: Annotated[str, Meta(description="the first test that noticed it; empty for none")] = ""
    said: Annotated[str, Meta(description="what that test said")] = ""
    differed: Annotated[int, Meta(description="answers to the tests that were not the correct base's, bit for bit")] = 0
    largest: Annotated[float | None, Meta(description="by how much at most; null for NaN, another shape, or nothing")] = None
    asked: Annotated[int, Meta(description="calls of the tests that it answered")] = 0
    input: Annotated[str, Meta(description="of one that got through, the smallest input that would have told")] = ""
    dtype: str = ""
    found_by: Annotated[str, Meta(description="the property that found that input")] = ""
    why: Annotated[str, Meta(description="of one that is not shown, why")] = ""
    reports: Annotated[list[str], Meta(description="where it was reported")] = []

    @property
    def survived(self) -> bool:
        """Whether it counts against the tests."""
        return self.status in ("got through", "not told apart", "not asked")

    @property
    def how(self) -> str:
        """How it got through, in a few words."""
        answers = f"{self.differed} of {self.asked} answers of your tests' calls"
        if self.status == "not told apart":
            return "the tests that fail for it fail for its correct base as well"
        if self.status == "not asked":
            return "none of the calls could be put to it"
        if not self.differed:
            return "no call of your tests shows it"
        if self.largest is None:
            return f"{answers} are NaN, infinite, or of another shape or dtype, and no test fails"
        return f"{answers} differ from its correct base's, by up to {self.largest:.2g}, and no test fails"


class ScoredTest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One test of the user's."""

    id: Text
    calls: Annotated[int, Meta(description="how often it calls the kernel")]
    answered: Annotated[int, Meta(description="how many of these calls could be read, and answered in the kernel's place")]
    failed_for: Annotated[list[str], Meta(description="what it failed for, of what it was run with")]
    skipped: Annotated[str, Meta(description="why it is skipped; empty where it is not")] = ""

    @property
    def cannot_fail(self) -> bool:
        """Whether it calls the kernel and passes whatever that answers."""
        return bool(self.answered) and not self.failed_for and not self.skipped


class ScoredCorrect(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One correct implementation in the kernel's place, and the tests that fail for it, each with what it says."""

    id: Text
    failed: dict[str, str]
    asked: int = 0
    ended: Annotated[str, Meta(description="how the run ended where it did not come to its end")] = ""


class TestsScore(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a user's tests notice."""

    __test__ = False  # not one of pytest's

    schema: Literal[1] = SCHEMA
    kind: Literal["tests_score"] = "tests_score"
    replaces: Text
    step: Text
    tests: list[str]
    faults: list[ScoredFault]
    each_test: list[ScoredTest]
    correct: list[ScoredCorrect]
    options: list[str]
    dtypes: list[str]
    conventions: dict[str, str]
    domain: str = ""
    calls: int = 0
    unread: Annotated[dict[str, int], Meta(description="calls that the kernel answered itself, by why they could not be read")] = {}
    seconds: Annotated[float, Meta(description="of one run of the tests with the kernel itself")] = 0.0

    def of(self, kind: Kind) -> tuple[int, int]:
        """How many faults, or cheats, were noticed, and of how many that can be shown."""
        counted = [fault for fault in self.faults if fault.kind == kind and fault.status != "not shown"]
        return sum(fault.status == "noticed" for fault in counted), len(counted)

    @property
    def survivors(self) -> list[ScoredFault]:
        """What got through, faults before cheats."""
        return [fault for fault in self.faults if fault.survived]

    @property
    def not_shown(self) -> list[ScoredFault]:
        """What the kernel's signature is not seen to show."""
        return [fault for fault in self.faults if fault.status == "not shown"]

    @property
    def cannot_fail(self) -> list[ScoredTest]:
        """Tests that compare nothing."""
        return [test for test in self.each_test if test.cannot_fail]

    @property
    def wronged(self) -> list[ScoredCorrect]:
        """Correct implementations that some test fails for."""
        return [each for each in self.correct if each.failed or each.ended]

    @property
    def good(self) -> bool:
        """Whether nothing got through, nothing correct failed, and every test can fail."""
        return not (self.survivors or self.wronged or self.cannot_fail)


def schema() -> dict[str, Any]:
    """The JSON Schema of the record."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(TestsScore)}
