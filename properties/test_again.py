"""What once failed is asked again, first: one property for each claim and step that counterexamples of earlier runs are about."""

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

from properties.claims import claim
from properties.counterexample.corpus import Stored, in_dtype, stored
from properties.counterexample.expected import answers
from properties.counterexample.find import seen
from properties.implementations.impl import Impl
from properties.verdicts import ClaimBroken, record


def asking_again(identifier: str, steps: tuple[str, ...], cases: Sequence[Stored]) -> Callable[..., None]:
    """The property that none of these counterexamples of a claim shows a fault any more."""

    def test(impl: Impl) -> None:
        """Calls that once showed a fault are answered within the budget."""
        for case in cases:
            calls, refused = in_dtype(impl, case.calls), record.current.refused
            if found := seen(impl, calls):
                raise found.error or ClaimBroken(f"{case.id} shows again ({found.kind})")
            if record.current.refused > refused:
                continue
            record.compared(sum(answer.exact.size for answer in answers(impl, calls[-1]) or ()) or 1)  # 1: that it answers

    test.__name__ = test.__qualname__ = f"test_what_once_broke_{identifier}_in_{'_and_'.join(steps)}_holds"
    return claim(identifier, needs=steps)(test)


def _kind(case: Stored) -> tuple[str, tuple[str, ...]]:
    return case.claim, case.steps


for (_claim, _steps), _cases in groupby(sorted(stored(Path.cwd()), key=_kind), key=_kind):
    _test = asking_again(_claim, _steps, list(_cases))
    globals()[_test.__name__] = _test
