"""The work of a calibration, in chunks that can be done in any order, on any core, and need not be done twice.

A chunk is one step, one dtype and so many cases (or one dtype's faults, or a property's cases and so many simulated trials of
each); what it found is one JSON line. The cases of a chunk follow from the seed and its number, so that a longer run goes on where
a shorter one ended.
"""

import hashlib
import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from properties.evaluation.baseline_rules import RULES, Case, Judged
from properties.evaluation.calibration import tally
from properties.evaluation.calibration.backward import work as gradients
from properties.evaluation.calibration.backward.faults import GRADED as GRADED_BACKWARD
from properties.evaluation.calibration.cases import MODULES, STEP_CASES, module_case, step_case
from properties.evaluation.calibration.faults import GRADED, NAMED, Mistake
from properties.evaluation.calibration.low_precision import LowPrecision
from properties.evaluation.calibration.options import option_case, option_variants
from properties.evaluation.calibration.simulated import cases, held_to, names
from properties.evaluation.calibration.variants import LOW_DTYPES, Variant, correct_variants
from properties.run.parallel import in_parallel
from properties.steps import OPTIONS
from properties.verdict.listing import property_named
from properties.verdicts import NotOffered
from reports.records import Verdict

CHUNK = {"steps": 64, "modules": 4, "options": 56, "backward": gradients.CHUNK}  # cases of one chunk
DISTINCT = {
    "steps": {"float32": 9, "bfloat16": 2, "float16": 2},
    "modules": {"float32": 22, "bfloat16": 9, "float16": 9},
    "options": {"float32": 15, "bfloat16": 5, "float16": 5},
    "backward": gradients.DISTINCT,
}
"""About how many bit-different results the variants give of one case: each is one check."""

Chunk = tuple[str, str, str, int]
"""What, of which step, fault or property, dtype, number (of what is simulated, of trials).

What: "steps", "modules", "options", "named", "graded", "simulated", "backward" (gradients of steps), "graded backward".
"""


def chunks(
    checks: int,
    modules: int,
    dtypes: tuple[str, ...] = LOW_DTYPES,
    *,
    options: int = 0,
    trials: int = 0,
    backward: int = 0,
    named: bool = True,
) -> Iterator[Chunk]:
    """About so many checks of single steps and of modules, spread evenly over steps and dtypes; and beside them all faults.

    In each dtype about so many checks of attention with `options`. About so many of gradients of single steps in `backward`, and
    beside them the graded faults of a backward.

    And of every case of the properties so many simulated `trials` under each contract. Without the `named` ones, the graded faults
    are left: they alone say how small a fault each rule sees.
    """
    if trials:
        yield from (("simulated", name, dtype, trials) for name in names() for dtype in dtypes)
    for dtype in dtypes if checks + modules else ():  # faults are seen beside correct results
        yield from (("named", fault.name, dtype, 0) for fault in NAMED if named)
        yield from (("graded", kind, dtype, 0) for kind in GRADED)
    for dtype in dtypes:
        of_a_chunk = CHUNK["options"] * DISTINCT["options"][dtype]
        yield from (("options", "attention", dtype, number) for number in range(math.ceil(options / of_a_chunk)))
    for dtype in dtypes if backward else ():
        yield from (("graded backward", kind, dtype, 0) for kind in GRADED_BACKWARD)
    kinds = (("modules", MODULES, modules), ("steps", tuple(STEP_CASES), checks), ("backward", gradients.STEPS, backward))
    for what, steps, wanted in kinds:
        of_a_round = len(steps) * CHUNK[what] * sum(DISTINCT[what][dtype] for dtype in dtypes)
        for number in range(math.ceil(wanted / of_a_round)):
            yield from ((what, step, dtype, number) for step in steps for dtype in dtypes)


def work(chunk: Chunk, seed: int, *, compiled: bool = False) -> dict[str, Any]:
    """What one chunk found; the chunk itself is part of it."""
    what, name, dtype, number = chunk
    match what:
        case "named":
            fault = next(fault for fault in NAMED if fault.name == name)
            found = _named(fault, dtype)
        case "graded":
            found = _graded(name, dtype)
        case "backward":
            found = gradients.correct(name, dtype, number, seed)
        case "graded backward":
            found = gradients.graded(name, dtype)
        case "simulated":
            found = _simulated(name, dtype, number, seed)
        case _:
            found = _honest(what, name, dtype, number, seed, compiled=compiled)
    return {"chunk": list(chunk), "seed": seed, **found}


def _honest(what: str, step: str, dtype: str, number: int, seed: int, *, compiled: bool) -> dict[str, Any]:
    size, rules = CHUNK[what], RULES if what != "options" else {"ours": RULES["ours"]}  # the others know no options
    variants = correct_variants(compiled=compiled) if what != "options" else option_variants()
    correct = tally.Correct()
    for i in range(number * size, (number + 1) * size):
        case = _case(what, step, dtype, seed, i)
        correct.counts["cases"] += 1
        for name, got in _distinct(case, variants).items():
            judged = Judged(case, got)
            correct.add(name, (step, dtype, seed, i), judged.score, {rule: ratio_of(judged) for rule, ratio_of in rules.items()})
            correct.counts.update(f"with {option}" for option in _options(case))
    return correct.line()


def _ratios(judged: Judged) -> tally.Ratios:
    return {rule: ratio_of(judged) for rule, ratio_of in RULES.items()}


def _case(what: str, step: str, dtype: str, seed: int, number: int) -> Case:
    match what:
        case "options":
            return option_case(dtype, seed, number)
        case "modules":
            return module_case(step, dtype, seed, number)
        case _:
            return step_case(step, dtype, seed, number)


def _options(case: Case) -> list[str]:
    """The options of attention that a case asks for."""
    grouped = case.step == "attention" and case.args[0].shape[1] != case.args[1].shape[1]
    return [*(name for name in case.kwargs if name in OPTIONS.get(case.step, ())), *(["grouped_heads"] if grouped else [])]


def _distinct(case: Case, variants: dict[str, Variant]) -> dict[str, np.ndarray]:
    """Each bit-different result once, under the name of the first variant that gave it."""
    seen, results = set(), {}
    for name, variant in variants.items():
        try:
            got = variant(case.step, case.args, case.kwargs, case.dtype)
        except NotOffered:
            continue
        key = hashlib.blake2b(np.ascontiguousarray(got + 0.0).tobytes()).digest()  # −0 is 0
        if key not in seen:
            seen.add(key)
            results[name] = got
    return results


def _named(fault: Mistake, dtype: str) -> dict[str, Any]:
    """On how many of the witness inputs each rule rejects the fault, and a correct plain implementation."""
    rejected: Counter[str] = Counter()
    arithmetic: Counter[str] = Counter()
    with np.errstate(all="ignore"):
        for seed in range(tally.SEEDS):
            args, kwargs = fault.witness(seed)
            probe = fault.wrong(LowPrecision("float64"), args, kwargs)
            case = Case(fault.step, args, kwargs, dtype, {fault.name: probe})
            got = fault.wrong(LowPrecision(dtype), args, kwargs)
            right = [getattr(LowPrecision(dtype, mode=mode), fault.step)(*args, **kwargs) for mode in ("eager", "fused")]
            suspect, results = Judged(case, got), [Judged(case, result) for result in right]
            for rule, ratio_of in RULES.items():
                rejected[rule] += ratio_of(suspect) > 1
                arithmetic[rule] += sum(ratio_of(result) > 1 for result in results)
            rejected["ours, without probes"] += case.budget.without_probes().score(got).budget_used > 1
    return {"rejected": dict(rejected), "correct rejected": dict(arithmetic), "of": tally.SEEDS}


def _graded(kind: str, dtype: str) -> dict[str, Any]:
    """A fault on its witness inputs, made smaller and smaller; beside it correct plain implementations, eager and fused."""
    cases = []
    with np.errstate(all="ignore"):
        for seed in range(tally.SEEDS):
            coarse = GRADED[kind](2.0**-6)
            args, kwargs = coarse.witness(seed)
            cases.append(Case(coarse.step, args, kwargs, dtype, {kind: coarse.wrong(LowPrecision("float64"), args, kwargs)}))

        def wrong(size: float) -> Iterator[tally.Ratios]:
            fault = GRADED[kind](size)
            return (_ratios(Judged(case, fault.wrong(LowPrecision(dtype), case.args, case.kwargs))) for case in cases)

        modes = [LowPrecision(dtype, mode=mode) for mode in ("eager", "fused")]
        right = [Judged(case, getattr(mode, case.step)(*case.args, **case.kwargs)) for case in cases for mode in modes]
        return tally.graded(wrong, map(_ratios, right))


def _simulated(name: str, dtype: str, trials: int, seed: int) -> dict[str, Any]:
    """How far trials of our own simulator come out from what one property asks for, in σ, by what they are held to."""
    counts: Counter[str] = Counter()
    largest: dict[str, float] = defaultdict(float)
    alarms = []
    for number, case in enumerate(cases(property_named(name), dtype, seed)):
        counts["cases"] += 1
        for what, contracts in held_to(dtype, number).items():
            for score in case.scores(contracts, trials, seed):
                counts["trials"] += 1
                counts["suspects"] += score.verdict is Verdict.SUSPECT
                largest[what] = max(largest[what], score.worst)
                if score.budget_used > 1:
                    alarms.append({"property": name, "step": case.step, "held to": what, "score": str(score)})
    return {"counts": {**counts, "alarms": len(alarms)}, "largest": largest, "alarms": alarms[: tally.ALARMS_SHOWN]}


def finished(path: Path, seed: int) -> dict[Chunk, dict[str, Any]]:
    """What a file of lines holds for this seed; a last line that was cut off is left out."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    found = [json.loads(line) for line in lines if line]
    return {tuple(line["chunk"]): line for line in found if line["seed"] == seed}


def _end_with_a_whole_line(path: Path) -> None:
    """Cut off what an interrupted run left of its last line, or the next line would be written behind it."""
    if path.exists():
        whole = path.read_bytes().rpartition(b"\n")[0]
        os.truncate(path, len(whole) + bool(whole))


def run(wanted: list[Chunk], seed: int, path: Path, *, jobs: int, compiled: bool = False) -> Iterator[dict[str, Any]]:
    """Do what is not yet in `path`, on so many cores; each line is on disk before it is handed out."""
    done = finished(path, seed)
    _end_with_a_whole_line(path)
    missing = [chunk for chunk in wanted if chunk not in done]
    yield from (done[chunk] for chunk in wanted if chunk in done)
    for line in in_parallel(_alone, ((chunk, seed, compiled) for chunk in missing), jobs):
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        yield line


def _alone(chunk: Chunk, seed: int, compiled: bool) -> dict[str, Any]:
    """One chunk in a worker, which keeps to one core."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    with threadpool_limits(1):
        return work(chunk, seed, compiled=compiled)
