"""A score of a user's tests on a terminal: the mark, what got through, what is wrongly failed, what cannot fail."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reports.tests_score_records import ScoredFault, TestsScore
from reports.words import plural

NAMED = 6  # of a long list
TOLD = 4  # faults of a component that are told in full; the page tells all


def shown(found: TestsScore) -> Iterator[RenderableType]:
    """The score, part by part."""
    noticed, of = found.of("fault")
    cheats, of_cheats = found.of("cheat")
    mark = f"{noticed} of {of} faults noticed" + (f", {cheats} of {of_cheats} cheats" if of_cheats else "")
    yield Text.assemble((mark, "bold green" if found.good else "bold red"), f"  by the tests of {found.replaces}")
    yield Text(_about(found), "dim")
    yield from _survivors(found)
    if found.wronged:
        yield Text(f"\nfails though it is correct ({len(found.wronged)} of {len(found.correct)} correct implementations)", "bold")
        for each in found.wronged:
            yield Padding(Text(f"{each.id}: {_tests(each.failed, each.ended)}"), (0, 0, 0, 2), expand=False)
    elif found.correct:
        yield Text(f"\nnone of {plural(len(found.correct), 'correct implementation')} fails", "green")
    if found.cannot_fail:
        verb = "compares" if len(found.cannot_fail) == 1 else "compare"
        yield Text(f"\ncannot fail ({plural(len(found.cannot_fail), 'test')} that {verb} nothing)", "bold")
        for test in found.cannot_fail:
            yield Padding(
                Text(f"{test.id}: {plural(test.calls, 'call')}, and passes on zeros, ones, NaN and noise"),
                (0, 0, 0, 2),
                expand=False,
            )
    yield from _set_apart(found)


def _about(found: TestsScore) -> str:
    tests = found.each_test
    calling, skipped = sum(bool(test.calls) for test in tests), [test.skipped for test in tests if test.skipped]
    said = f"{plural(len(tests), 'test')}, {calling} call it, {plural(found.calls, 'call')}; as {found.step}"
    if found.options:
        said += f" with {', '.join(found.options)}"
    if "axes" in found.conventions:
        said += f", axes {found.conventions['axes']}"
    if skipped:
        reason, _ = Counter(skipped).most_common(1)[0]
        said += f"; {len(skipped)} skipped ({reason})"
    return said


def _survivors(found: TestsScore) -> Iterator[RenderableType]:
    if not found.survivors:
        yield Text("\nnothing got through", "green")
        return
    yield Text(f"\ngot through ({len(found.survivors)})", "bold")
    for name, faults in _by_component(found.survivors):
        yield Padding(Text(name, "bold cyan"), (0, 0, 0, 2), expand=False)
        table = Table.grid(padding=(0, 1))
        for fault in faults[:TOLD]:
            lines = Text.assemble((fault.id, "bold"), f" ({fault.fault_class}). It shows when: {fault.shows}. Here {fault.how}.")
            if fault.input:
                lines.append(f"\nwould have told: {fault.input}", "dim")
            table.add_row(Text("·"), lines)
        if others := [fault.id for fault in faults[TOLD:]]:
            table.add_row(Text("·"), Text(f"{len(others)} more, each with its input on the page: {', '.join(others)}", "dim"))
        yield Padding(table, (0, 0, 0, 4), expand=False)


def _by_component(faults: Iterable[ScoredFault]) -> Iterator[tuple[str, list[ScoredFault]]]:
    order = list(dict.fromkeys(fault.component for fault in faults))
    ordered = sorted(faults, key=lambda fault: order.index(fault.component))
    for name, group in groupby(ordered, key=lambda fault: fault.component):
        yield name, list(group)


def _set_apart(found: TestsScore) -> Iterator[RenderableType]:
    """What is no fault of the tests: what the signature does not show, and what could not be read."""
    if found.not_shown:
        yield Text(f"\nset apart ({len(found.not_shown)}): not seen to show in what the kernel takes", "dim")
        for why, group in groupby(sorted(found.not_shown, key=lambda each: each.why), key=lambda each: each.why):
            ids = [each.id for each in group]
            yield Padding(Text(f"{', '.join(ids[:NAMED])}{_more(ids)}: {why}", "dim"), (0, 0, 0, 2), expand=False)
    for why, count in found.unread.items():
        yield Text(f"{count} of {plural(found.calls, 'call')} not read, and left to the kernel: {why}", "yellow")


def _more(names: list[str]) -> str:
    return f" and {len(names) - NAMED} more" if len(names) > NAMED else ""


def _tests(failed: dict[str, str], ended: str) -> str:
    """The first test and what it said, and how many others there are."""
    if not failed:
        return f"the run {ended}"
    test, said = next(iter(failed.items()))
    others = f" (and {plural(len(failed) - 1, 'other test')})" if len(failed) > 1 else ""
    return f"{test}{others}: {said}"
