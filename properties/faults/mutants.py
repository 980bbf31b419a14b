"""Faults that nobody chose: every right twin with one small thing changed, and which of them the suite finds.

`python -m properties.faults.mutants [--files …] [--into DIR] [--jobs N]`. A bank is a choice, and a suite can be tuned to it. Here
operators are exchanged, signs and calls dropped, numbers moved by one, arguments swapped, branches always or never taken,
statements deleted: whatever a file allows; and every step is right only up to some length of one axis of what it is given. What is
finished stands in DIR/mutants.jsonl: interrupted, the same command continues.

A mutant that gets through is equivalent (it computes the same), or shows a property to be weak: each is printed, to be looked at.
"""

import argparse
import ast
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import track

from properties import runs
from properties.faults.fault import RIGHT, Implementation, standalone
from properties.faults.search import first_breach

EXAMPLES = 60  # of the `ci` profile
KEY = ("file", "function", "place", "change")
MOST_SECONDS = 120.0  # for one mutant; what takes longer never ends
MOST_MEMORY = 12 * 2**30  # bytes of addresses; a buffer may grow for ever


class TooLong(BaseException):
    """No `Exception`: one that an implementation raises is its own error, and it would be called again."""


class Place(NamedTuple):
    """Where the functions of a file are tried: in which twin, offering which steps, in which dtype."""

    twin: str
    steps: tuple[str, ...]
    dtype: str = "float32"
    instead: tuple[tuple[str, str], ...] = ()


_GRADIENTS = ("gradients", "transformer")
PLACES: dict[str, Place] = {
    "wide": Place("attention", ("attention",), "bfloat16"),
    "softmax": Place("softmax", ("softmax",)),
    **{file: Place(file, ("attention",)) for file in ("attention", "blocked_attention", "split_attention")},
    **{file: Place(file, ("attention",)) for file in ("padded_attention", "packed_attention", "windowed_attention")},
    "multi_head": Place("multi_head", ("multi_head", "split_heads", "concat_heads")),
    "embedding": Place("model", ("embedding", "positional_encoding", "transformer")),
    "mask": Place("model", ("mask", "transformer")),
    "feed_forward": Place("feed_forward", ("feed_forward",)),
    "residual_norm": Place("layers", ("layer_norm", "residual_norm", "encoder_layer")),
    "layers": Place("layers", ("encoder_layer", "encoder", "decoder_layer", "decoder")),
    "model": Place("model", ("output_projection", "next_word", "transformer", "generation")),
    "cache": Place("cache", ("kv_cache", "generation")),
    **{file: Place(file, ("kv_cache",)) for file in ("static_cache", "paged_cache")},
    "gradients": Place("gradients", _GRADIENTS, "float64"),
    "attention_with_backward": Place("gradients", _GRADIENTS, "float64", (("attention", "attention_with_backward"),)),
}


@dataclass(frozen=True)
class Mutant:
    """One small change of one file, as the search wants a fault."""

    file: str
    function: str
    place: str  # line and column in `text`
    change: str  # before → after
    text: str  # the whole implementation
    steps: tuple[str, ...]
    dtype: str

    def implementation(self) -> Implementation:
        """A new object with nothing remembered from earlier calls."""
        return Implementation(f"{self.file}.{self.function} {self.place}", self.text, self.steps, self.dtype)


# ---- what can be changed ----

EXCHANGED: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mod,),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}
RENAMED = ("amax amin", "sum mean", "sin cos", "maximum minimum", "zeros ones", "argmax argmin", "exp exp2", "erf tanh", "min max")
OTHER_NAME = {name: other for pair in RENAMED for one, two in [pair.split()] for name, other in [(one, two), (two, one)]}


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in place of an expression or a statement."""
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            yield from (ast.BinOp(left, other(), right) for other in EXCHANGED.get(type(op), ()))
            yield from (left, right)
        case ast.Compare(left=left, ops=[op], comparators=comparators):
            yield from (ast.Compare(left, [other()], comparators) for other in EXCHANGED.get(type(op), ()))
        case ast.BoolOp(op=op, values=values):
            yield from (ast.BoolOp(other(), values) for other in EXCHANGED[type(op)])
            yield from values
        case ast.UnaryOp(operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield from (ast.Constant(value + 1), ast.Constant(value - 1))
        case ast.Constant(value=float(value)):
            yield ast.Constant(value * (1 + 2.0**-6))
        case ast.Attribute(value=value, attr="mT"):
            yield value
        case ast.IfExp(body=body, orelse=orelse):
            yield from (body, orelse)
        case ast.Call():
            yield from _other_calls(node)
        case ast.Slice():
            yield from (ast.Slice(None, node.upper), ast.Slice(node.lower, None))
        case ast.If(orelse=orelse) if not any(isinstance(each, ast.Raise) for each in node.body):
            yield ast.If(ast.Constant(value=True), node.body, orelse)
            yield ast.If(ast.Constant(value=False), node.body, orelse)
        case ast.Assign() | ast.AugAssign() | ast.Expr(value=ast.Call()):
            yield ast.Pass()


def _other_calls(call: ast.Call) -> Iterator[ast.AST]:
    """Without the call, under a kindred name, without a keyword, with two arguments in the other order."""
    function, args, keywords = call.func, call.args, call.keywords
    if isinstance(function, ast.Attribute):
        if not (isinstance(function.value, ast.Name) and function.value.id in ("torch", "math", "self")):
            yield function.value
        if other := OTHER_NAME.get(function.attr):
            yield ast.Call(ast.Attribute(function.value, other, ast.Load()), args, keywords)
    if args and not isinstance(args[0], ast.Starred):
        yield args[0]
    yield from (ast.Call(function, args, keywords[:i] + keywords[i + 1 :]) for i in range(len(keywords)))
    for i in range(len(args) - 1):
        yield ast.Call(function, [*args[:i], args[i + 1], args[i], *args[i + 2 :]], keywords)


def mutants(file: str) -> Iterator[Mutant]:
    """Every change of every function and class of one file of `right`; two that read alike count once."""
    place, own = PLACES[file], _own(file)
    tree = ast.parse(standalone(place.twin, place.instead))
    seen = {ast.unparse(tree)}
    for definition in {node.name: node for node in _definitions(tree) if node.name in own}.values():
        for parent, name, place_in_list, node in _nodes(definition):
            for other in changed(node):
                before = ast.unparse(node)
                _put(parent, name, place_in_list, deepcopy(other))
                text = ast.unparse(ast.fix_missing_locations(tree))
                _put(parent, name, place_in_list, node)
                if text not in seen:
                    seen.add(text)
                    at = f"{node.lineno}:{node.col_offset}"
                    change = f"{_short(before)} → {_short(ast.unparse(other))}"
                    yield Mutant(file, definition.name, at, change, text, place.steps, place.dtype)


FEATURES, TWO = ("bnd",), ("bnd", "bmd")
AXES: dict[str, tuple[str, ...]] = {
    "attention": ("bhnd", "bhmd", "bhmd"),
    "softmax": ("nm",),
    **dict.fromkeys(("layer_norm", "feed_forward", "encoder_layer", "output_projection", "next_word"), FEATURES),
    **dict.fromkeys(("multi_head", "residual_norm", "decoder_layer"), TWO),
    "embedding": ("bn",),
    "transformer": ("bm", "bn"),
    "generation": ("bm",),
}
"""A letter for each axis of what a step is given: sentences, heads, words or keys, features."""

LIMITS = {"b": (16,), "h": (16,)}  # other axes too are long in some workloads
LIMITED = """
def _right_up_to(limit, argument, axis, step):
    def limited(*args, **kwargs):
        return step(*args, **kwargs) * (args[argument].shape[axis] <= limit)
    return limited

{step} = _right_up_to({limit}, {argument}, {axis}, {step})
"""


def limited(file: str) -> Iterator[Mutant]:
    """The steps of a file, each right as long as one axis of one argument is no longer than some limit."""
    place = PLACES[file]
    for step in sorted(_own(file) & set(place.steps)):
        for argument, letters in enumerate(AXES.get(step, ())):
            for axis, letter in enumerate(letters):
                for limit in LIMITS.get(letter, (16, 128)):
                    text = standalone(place.twin, place.instead)
                    text += LIMITED.format(step=step, limit=limit, argument=argument, axis=axis)
                    change = f"right up to {limit} in axis {axis} of argument {argument}"
                    yield Mutant(file, step, "", change, text, place.steps, place.dtype)


def _own(file: str) -> set[str]:
    return {node.name for node in _definitions(ast.parse((RIGHT / f"{file}.py").read_text(encoding="utf-8")))}


def _definitions(tree: ast.Module) -> list[ast.FunctionDef | ast.ClassDef]:
    return [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]


def _nodes(parent: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, Any]]:
    """Everything that can be changed below a node, and where it stands; nothing of signatures, docstrings and errors raised."""
    for name, value in ast.iter_fields(parent):
        if name in ("args", "returns", "annotation", "decorator_list") and isinstance(parent, ast.FunctionDef | ast.AnnAssign):
            continue
        for i, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(node, ast.AST) and not isinstance(node, ast.Raise):
                yield parent, name, i, node
                yield from _nodes(node)


def _put(parent: ast.AST, name: str, place: int | None, node: ast.AST) -> None:
    if place is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[place] = node


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 90 else f"{line[:87]}…"


# ---- which are found ----


def searched(mutant: Mutant) -> dict[str, Any]:
    """The line of one mutant: what broke first, if anything did."""
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _too_long)
    began = time.perf_counter()
    line: dict[str, Any] = {name: getattr(mutant, name) for name in KEY}
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, before[1]))
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS, 1.0)  # and again, wherever it is called once more
    try:
        breach = first_breach(mutant, 0, EXAMPLES)  # type: ignore[arg-type]  (as much of a fault as the search asks for)
    except TooLong:
        return {**line, "found": True, "law": "", "verdict": "never ends"}
    except (SyntaxError, NameError, TypeError, AttributeError) as error:  # it is no implementation at all
        return {**line, "found": True, "law": "", "verdict": type(error).__name__}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        resource.setrlimit(resource.RLIMIT_AS, before)
    said = {} if breach is None else {"law": breach.property, "claim": breach.claim, "verdict": breach.verdict}
    return {**line, "found": breach is not None, **said, "seconds": round(time.perf_counter() - began, 2)}


def _too_long(*_: object) -> None:
    raise TooLong


def report(lines: list[dict[str, Any]]) -> str:
    """How many of each file were found, and every one that was not."""
    said = []
    for file in PLACES:
        own = [line for line in lines if line["file"] == file]
        if own:
            wrong = [line for line in own if line.get("verdict") not in ("ERROR", "never ends") and line.get("claim")]
            missed = [line for line in own if not line["found"]]
            said.append(f"{file}: {len(own) - len(missed)} of {len(own)} found, {len(wrong)} of them by a wrong answer")
            said += [f"  {line['function']}: {line['change']}" for line in missed]
    missed = sum(not line["found"] for line in lines)
    said.append(f"{len(lines)} mutants, {len(lines) - missed} found ({(len(lines) - missed) / len(lines):.1%}), {missed} not")
    laws = Counter(line["law"] for line in lines if line.get("law"))
    said.append(f"{len(laws)} properties were the first to find one")
    return "\n".join(said)


def main() -> int:
    """Print what was found; exit code 0 whatever that is, 2 for a typing mistake."""
    from joblib import Parallel, delayed

    parser = argparse.ArgumentParser(prog="python -m properties.faults.mutants", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", nargs="*", choices=tuple(PLACES), default=list(PLACES), metavar="FILE")
    parser.add_argument("--into", type=Path, default=Path("runs/mutants"), metavar="DIR")
    parser.add_argument("--jobs", type=int, default=-1, help="processes; -1 is one for each core")
    given = parser.parse_args()
    if given.jobs == 0:
        parser.error("--jobs: expected a number of processes, or -1 for one on each core, got 0")
    given.into.mkdir(parents=True, exist_ok=True)
    done, code = given.into / "mutants.jsonl", runs.code_hash()

    finished = {tuple(line[name] for name in KEY): line for line in runs.finished(done) if line["code"] == code}
    wanted = [mutant for file in given.files for mutant in (*mutants(file), *limited(file))]
    missing = [each for each in wanted if tuple(getattr(each, name) for name in KEY) not in finished]
    work: Any = Parallel(n_jobs=given.jobs, return_as="generator_unordered")(delayed(searched)(each) for each in missing)
    for line in track(work, "looking for mutants", total=len(missing)):
        runs.append(done, {"code": code, **line})
        finished[tuple(line[name] for name in KEY)] = line
    print(report([line for line in finished.values() if line["file"] in given.files]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
