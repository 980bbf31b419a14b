"""No speed for a wrong result: outputs of the timed calls are compared with the oracle, within its budget.

The outputs of the first, a random and the last sample of each peer in each process are judged. The oracle is slow, so of a large
output one part is judged, drawn in each run: a sequence, a head, some rows, some of the vocabulary. The oracle computes it from
the part of the input that alone influences it. An output that equals a judged one bit for bit is not judged again.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from bench.runner.timer import Kept
from bench.step import Sizes
from bench.workloads import Workload
from properties.assertions import assert_greedy, assert_identical, assert_rounding_only, chosen, taught
from properties.implementations.conventions import OURS
from properties.implementations.impl import NUMPY_DTYPES
from properties.implementations.oracle import oracle
from properties.inputs.parameters import Call
from properties.verdicts import ClaimBroken, record
from reports.bench_records import Gate
from reports.records import Verdict

ROWS = 16  # of an attention or of a target that are judged
WORDS = 1000  # of the vocabulary whose logits are judged where the source is longer than ROWS, so that each trial is slow
INT8 = 0.05  # how far a result in int8 may be off, root mean squares of both: some 0.02 are usual
WORST = 5  # times as far the worst of many may be: of the scores of tokens written


@dataclass(frozen=True)
class Part:
    """What is judged of one variant's output: `index` cuts it out, `call` is what the oracle must be asked for it."""

    whole: Call
    call: Call
    index: tuple[slice, ...]
    what: str  # what is named in `Gate.sample`; "" for all of it

    def of(self, output: Any) -> Any:
        """A copy of that part of a peer's output, in the peer's own kind of array. TypeError: one that may compute now."""
        if isinstance(output, torch.Tensor) and type(output) not in (torch.Tensor, torch.nn.Parameter):
            raise TypeError(f"a {type(output).__name__} may compute when it is read: expected a plain torch.Tensor")
        cut = output[self.index]
        return cut.detach().clone() if isinstance(cut, torch.Tensor) else np.array(cut)


@dataclass(frozen=True)
class Judged:
    """Who computed the outputs: what a budget needs to know of an implementation."""

    name: str
    dtype: str
    device: str
    adapter: Any = None
    conventions: Any = OURS


# Which part ------------------------------------------------------------------------------------------------------------


def _at(rng: np.random.Generator, size: int) -> slice:
    i = int(rng.integers(size))
    return slice(i, i + 1)


def _few(rng: np.random.Generator, size: int, few: int = ROWS) -> slice:
    first = int(rng.integers(max(1, size - few + 1)))
    return slice(first, min(first + few, size))


def _everything(call: Call, _s: Sizes, _rng: np.random.Generator) -> Part:
    return Part(call, call, (), "")


def _one_sequence(call: Call, s: Sizes, rng: np.random.Generator) -> Part:
    row = _at(rng, s["b"])
    asked = Call(tuple(array[row] for array in call.args), call.kwargs)
    return Part(call, asked, (row,), f"sequence {row.start} of {s['b']}")


def _some_tokens(call: Call, s: Sizes, rng: np.random.Generator) -> Part:
    """For steps that treat every token by itself."""
    row, tokens = _at(rng, s["b"]), _few(rng, s["n"])
    asked = Call(tuple(array[row, tokens] for array in call.args), call.kwargs)
    return Part(call, asked, (row, tokens), f"tokens {tokens.start}-{tokens.stop - 1} of sequence {row.start}")


def _one_head(call: Call, s: Sizes, rng: np.random.Generator) -> Part:
    row, head = _at(rng, s["b"]), _at(rng, s["h"])
    return Part(call, Call((call.args[0][row, head],), {}), (row, head), f"sequence {row.start}, head {head.start}")


def _some_queries(call: Call, s: Sizes, rng: np.random.Generator) -> Part:
    row, head, queries = _at(rng, s["b"]), _at(rng, s["h"]), _few(rng, s["n"])
    Q, K, V = call.args
    asked = Call((Q[row, head, queries], K[row, head], V[row, head]), {})
    return Part(call, asked, (row, head, queries), f"queries {queries.start}-{queries.stop - 1} of head {head.start}")


def _first_tokens(call: Call, s: Sizes, rng: np.random.Generator) -> Part:
    row, tokens = _at(rng, s["b"]), slice(0, min(ROWS, s["n"]))
    source, target = call.args
    words = _few(rng, s["vocab"], WORDS if s["m"] > ROWS else s["vocab"])
    model = call.kwargs["parameters"]
    fewer = {**model, "W_out": model["W_out"][:, words], "b_out": model["b_out"][words]}
    asked = Call((source[row], target[row, tokens]), {**call.kwargs, "parameters": fewer})  # later tokens have no influence: M3
    what = f"tokens 0-{tokens.stop - 1} of sequence {row.start}, logits {words.start}-{words.stop - 1}"
    return Part(call, asked, (row, tokens, words), what)


_PARTS: dict[str, Callable[[Call, Sizes, np.random.Generator], Part]] = {
    "positional_encoding": _everything,
    "mask": _everything,
    **dict.fromkeys(("embedding", "residual_norm", "feed_forward", "output_projection"), _some_tokens),
    "softmax": _one_head,
    "attention": _some_queries,
    "transformer": _first_tokens,
    "training": _first_tokens,
}


def parts(workload: Workload, calls: list[Call], seed: int) -> list[Part]:
    """What will be judged of each variant's output; the same in all processes of a run."""
    rng = np.random.default_rng(seed)
    return [_PARTS.get(workload.step, _one_sequence)(call, workload.sizes, rng) for call in calls]


# The judgement --------------------------------------------------------------------------------------------------------


def judge(workload: Workload, peer: Judged, parts: list[Part], kept: dict[str, Kept], known: dict[str, Gate] | None = None) -> Gate:
    """The worst that the oracle says of the kept outputs. `known` holds judgements by digest, and takes the new ones."""
    known = {} if known is None else known
    gates = []
    for output in kept.values():
        got = widened(output.part)
        digest = _digest(workload, peer, output.variant, got)
        if digest not in known:
            known[digest] = replace(_judge(workload, peer, parts[output.variant], got), outputs=[digest])
        gates.append(known[digest])
    if not gates:
        return Gate(Verdict.VACUOUS, workload.definition.claim, "no output was kept")
    worst = max(gates, key=lambda gate: (gate.verdict != Verdict.PASS, gate.share or 0.0))
    return replace(worst, outputs=sorted({digest for gate in gates for digest in gate.outputs}))


def _judge(workload: Workload, peer: Judged, part: Part, got: np.ndarray) -> Gate:
    share, seen = None, record.start()
    try:
        _compare(workload.step, peer, part, got)
        verdict, message = _passed(peer, seen, got)
    except ClaimBroken as broken:
        verdict, message, share = Verdict.FAIL, str(broken).splitlines()[0], broken.budget_used
    except (ValueError, TypeError, AttributeError) as error:  # the wrong shape or kind of array
        verdict, message = Verdict.ERROR, f"{type(error).__name__}: {error}".splitlines()[0]
    share = seen.budget_used if share is None else share
    return Gate(verdict, workload.definition.claim, message, share, seen.compared or got.size, part.what)


def _passed(peer: Judged, seen: Any, got: np.ndarray) -> tuple[Verdict, str]:
    """A pass, unless nothing or too little was compared, or a score is suspect."""
    if seen.mostly_undecidable or (peer.name != "reference" and got.size and not seen.compared):
        return Verdict.VACUOUS, f"{seen.undecidable} of {got.size} numbers could not be judged"
    return (Verdict.SUSPECT, seen.suspects[0]) if seen.suspects else (Verdict.PASS, "")


def _compare(step: str, peer: Judged, part: Part, got: np.ndarray) -> None:
    """Raise ClaimBroken unless `got` is what the step gives but for rounding; the oracle must repeat itself to the last bit."""
    call = part.call
    if peer.dtype == "int8":
        _compare_in_int8(step, call, got)
    elif peer.name == "reference":
        assert_identical(got, part.of(oracle(step, *part.whole.args, **part.whole.kwargs)), step)
    elif step == "generation":
        assert_greedy(peer, Call((*call.args, None), call.kwargs), got)
    else:
        # a step of training at a rate of 0 gives the logits of its forward pass
        computed = "transformer" if step == "training" else step
        assert_rounding_only(peer, computed, got, *call.args, **call.kwargs)  # pyright: ignore[reportArgumentType]


def _compare_in_int8(step: str, call: Call, got: np.ndarray) -> None:
    """No budget of rounding holds for weights that were rounded to 127 steps: the result must be near on the whole.

    Of generation, the score of each token written must be near the largest. Whether a model still writes the same is for
    a trained one to tell: see tests/optimized/test_int8.py.
    """
    if step == "generation":
        asked = Call((*call.args, None), call.kwargs)
        teaching = taught(asked, got)
        expected = np.asarray(oracle("transformer", *teaching.args, **teaching.kwargs))
        of_written = np.take_along_axis(expected, got[..., None], axis=-1)[..., 0]
        off = np.max((expected.max(axis=-1) - of_written)[chosen(asked, got)], initial=0.0) / WORST
    else:
        expected = np.asarray(oracle(step, *call.args, **call.kwargs))  # pyright: ignore[reportArgumentType]
        off = np.sqrt(np.mean((got - expected) ** 2))
    share = float(off / np.sqrt(np.mean(expected**2)))
    if not share <= INT8:
        raise ClaimBroken(f"off by {share:.2g} of the root mean square: expected at most {INT8} in int8", budget_used=share / INT8)
    record.compared(got.size, budget_used=share / INT8)


def widened(part: Any) -> np.ndarray:
    """An output as an array of float64, or of its own integers; as it is where it is one."""
    if isinstance(part, torch.Tensor):
        part = part.cpu()
        return (part.to(torch.float64) if part.is_floating_point() else part).numpy()
    # bfloat16 is no dtype of NumPy's own: it has a name, and nothing to compare with
    return part.astype(np.float64) if part.dtype in NUMPY_DTYPES.values() or part.dtype.name == "bfloat16" else part


def _digest(workload: Workload, peer: Judged, variant: int, got: np.ndarray) -> str:
    about = f"{workload.name}/{peer.dtype}/{variant}/{got.shape}/{peer.name == 'reference'}"
    return hashlib.blake2b(about.encode() + np.ascontiguousarray(got).tobytes(), digest_size=12).hexdigest()
