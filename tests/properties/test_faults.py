"""The catalogue of faults: complete, each entry one statement away from right, and unknown to what looks for it."""

import ast
from pathlib import Path
from random import Random

import pytest

from properties.claims import CLAIMS
from properties.evaluation.baseline_checks import normal_cases
from properties.evaluation.detection import catalogue
from properties.evaluation.detection.cheats import PEEKING
from properties.evaluation.detection.fault import Fault
from properties.evaluation.detection.search import Breach, breaches, breaks, is_breach, planned
from properties.implementations.impl import Impl
from properties.verdict.judge import Judgement
from properties.verdict.listing import property_named
from properties.verdicts import ImplementationCrash, ImplementationError
from reports.records import Verdict

ROOM = Path(__file__).parents[2] / "properties"
KNOWS_THE_BANK = {"test_detection.py"}


def named(fault: Fault) -> str:
    """The name of an entry, for pytest."""
    return fault.id


def bases() -> list[Fault]:
    """One entry for every base with what it offers and in which dtype."""
    return list({(f.base, tuple(f.instead.items()), frozenset(f.steps), f.dtype): f for f in catalogue.CATALOGUE}.values())


def test_every_class_is_re_created_or_left_out_for_a_reason():
    """All 92 classes of reports have an entry, or a sentence that says why none is possible."""
    classes = [fault_class for classes in catalogue.CLASSES.values() for fault_class in classes]
    re_created = {fault.fault_class for fault in catalogue.FAULTS}

    assert len(classes) == len(set(classes)) == 92
    assert re_created | set(catalogue.OUT_OF_SCOPE) == set(classes)
    assert not re_created & set(catalogue.OUT_OF_SCOPE)


def test_entries_have_names_of_their_own_reports_and_claims_to_break():
    """Ids are unique, every bug has a report's address and claims to break, unless nothing can show it."""
    identifiers = [fault.id for fault in catalogue.CATALOGUE]
    claims = {claim.id for claim in CLAIMS}

    assert len(identifiers) == len(set(identifiers))
    assert [fault.id for fault in catalogue.FAULTS if not fault.reports] == []
    assert {claim for fault in catalogue.CATALOGUE for claim in fault.breaks} <= claims
    assert [fault.id for fault in catalogue.CATALOGUE if bool(fault.breaks) == bool(fault.equivalent)] == []


def differing(right: ast.AST, wrong: ast.AST) -> int:
    """How many statements differ; a compound one counts as one if its head does, else its body is looked into."""
    if ast.dump(right) == ast.dump(wrong):
        return 0
    bodies = [(getattr(right, name, []), getattr(wrong, name, [])) for name in ("body", "orelse", "finalbody")]
    heads = [ast.dump(_without_body(node)) for node in (right, wrong)]
    if (
        type(right) is type(wrong)
        and heads[0] == heads[1]
        and all(len(a) == len(b) for a, b in bodies)
        and any(a for a, _ in bodies)
    ):
        return sum(differing(a, b) for pair in bodies for a, b in zip(*pair, strict=True))
    return 1


def _without_body(node: ast.AST) -> ast.AST:
    fields = {name: [] if name in ("body", "orelse", "finalbody") else value for name, value in ast.iter_fields(node)}
    return type(node)(**fields)


@pytest.mark.parametrize("fault", catalogue.CATALOGUE, ids=named)
def test_an_entry_is_one_statement_away_from_right(fault):
    """The syntax trees of the faulty text and its base differ in exactly one statement."""
    assert differing(ast.parse(fault.source(wrong=False)), ast.parse(fault.source())) == 1


@pytest.mark.parametrize("fault", catalogue.CATALOGUE, ids=named)
def test_an_entry_stands_alone_and_answers(fault):
    """Its text imports torch and the standard library alone, and answers a usual call, or refuses it in its own name."""
    source = fault.source()
    imported = {node.module.split(".")[0] for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
    assert imported <= {"torch", "collections", "typing"}

    step, args, kwargs = normal_cases(fault.steps[0], 0)[0]
    impl = Impl(fault.implementation(), fault.dtype)
    try:
        answer = impl.call(step, *args, **kwargs)
    except (ImplementationError, ImplementationCrash) as refused:
        answer = str(refused)

    assert fault.id in answer if isinstance(answer, str) else answer is not None


EACH_BASE = list({fault.base: fault for fault in bases()}.values())
IN_CI = Random(0).sample(EACH_BASE, len(EACH_BASE) // 3)
SAMPLE = [pytest.param(each, id=each.base, marks=() if each in IN_CI else pytest.mark.long) for each in EACH_BASE]


@pytest.mark.parametrize("fault", SAMPLE)
def test_a_base_breaks_nothing(fault):
    """Every property that is run on a faulty one passes on its base, in one dtype; `veriformer score` asks every base in all."""
    found = list(breaches(lambda: fault.implementation(wrong=False), fault, seed=0, examples=5))

    assert found
    assert [each for each in found if isinstance(each, Breach)] == []


def test_an_equivalent_entry_breaks_nothing():
    """Adding the same constant to every seen score changes nothing, as its proof says; the suite does not gives false positives."""
    equivalent = [fault for fault in catalogue.CATALOGUE if fault.equivalent]

    assert [fault.id for fault in equivalent] == ["one-added-to-every-seen-score"]
    for fault in equivalent:
        assert [each for each in breaches(fault.implementation, fault, seed=0, examples=20) if isinstance(each, Breach)] == []


SEEN_BY = {
    "one-memory-for-all-answers": ("test_attention_reads_every_layout",),
    "right-below-4096-numbers": ("test_large_masks_that_differ_by_sequence_and_head", "test_attention_at_every_size"),
}
"""What few properties see: those that ask again before they read an answer, and those that ask for large ones."""


@pytest.mark.parametrize(("identifier", "law"), [(cheat, law) for cheat, laws in SEEN_BY.items() for law in laws])
def test_what_few_properties_see_is_seen_by_each_of_them(identifier, law):
    """By name, since no third is there."""
    assert breaks(catalogue.entry(identifier), property_named(law), seed=0)


@pytest.mark.parametrize("fault", [fault for fault in catalogue.CHEATS[::2] if fault.id not in SEEN_BY], ids=named)
def test_a_cheat_breaks_three_laws_or_more(fault):
    """No other cheat depends on a single law: three claims or properties find it, of those run on attention. Every second cheat."""
    broken = []
    for test in planned(fault):
        if breaks(fault, test, seed=0):
            broken.append(test.__name__)
        if len(broken) == 3:
            return
    pytest.fail(f"{fault.id} was found by {broken} only")


def test_a_property_that_goes_wrong_itself_has_caught_nothing():
    """An exception that is neither a verdict's nor raised in the faulty text is a mistake of ours, and said aloud."""
    fault = catalogue.entry("zeros")
    mistake = Judgement(Verdict.ERROR, "missing 1 required positional argument", error=TypeError("missing"))

    with pytest.raises(RuntimeError, match="not an error of zeros: missing 1 required"):
        is_breach(mistake, fault.implementation())


def test_no_property_sees_that_an_answer_is_the_oracles_own():
    """The limit of every check of values: an implementation that imports our oracle and repeats it gets through."""
    test = property_named("test_attention_agrees_with_the_oracle")

    assert not breaks(PEEKING, test, seed=0, examples=5)
