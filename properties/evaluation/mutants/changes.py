"""Faults that nobody chose: every small change of every base, and every step that is right only up to some length.

Operators are exchanged, signs and calls dropped, numbers moved by one, arguments swapped, branches always or never taken,
statements deleted: whatever a file allows.
"""

import ast
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

from properties.evaluation.detection.fault import RIGHT, Implementation, standalone
from properties.steps import OPTIONS


class Place(NamedTuple):
    """Where the functions of a file are tried: in which base, offering which steps, in which dtype."""

    base: str
    steps: tuple[str, ...]
    dtype: str = "float32"
    instead: tuple[tuple[str, str], ...] = ()


_GRADIENTS = ("gradients", "transformer")
PLACES: dict[str, Place] = {
    "wide": Place("attention", ("attention",), "bfloat16"),
    "softmax": Place("softmax", ("softmax",)),
    **{file: Place(file, ("attention",)) for file in ("attention", "blocked_attention", "split_attention")},
    **{file: Place(file, ("attention",)) for file in ("padded_attention", "packed_attention", "windowed_attention")},
    "attention_with_options": Place(
        "attention_with_options", (*(f"attention.{name}" for name in OPTIONS["attention"]), "attention")
    ),
    "log_sum_exp": Place("log_sum_exp", ("log_sum_exp",)),
    "cu_seqlens_attention": Place("cu_seqlens_attention", ("packed_attention", "packed_attention.causal")),
    "paged_attention": Place("paged_attention", ("paged_attention",)),
    "cached_attention": Place("cached_attention", ("cached_attention", "cached_attention.ring")),
    "attention_cache": Place("attention_cache", ("attention_cache", "attention_cache.capacity", "attention_cache.window")),
    "multi_head": Place("multi_head", ("multi_head", "split_heads", "concat_heads")),
    "multi_head_options": Place(
        "multi_head_options",
        ("multi_head_with_weights", "multi_head_with_weights.causal", "multi_head", "multi_head.causal"),
    ),
    "embedding": Place("model", ("embedding", "positional_encoding", "transformer")),
    "mask": Place("model", ("mask", "transformer")),
    **{file: Place("feed_forward", ("feed_forward",)) for file in ("linear", "feed_forward")},
    "residual_norm": Place("layers", ("layer_norm", "residual_norm", "encoder_layer")),
    "layers": Place("layers", ("encoder_layer", "encoder", "decoder_layer", "decoder")),
    "model": Place("model", ("output_projection", "next_token", "transformer", "generation")),
    "cache": Place("cache", ("kv_cache", "generation")),
    **{file: Place(file, ("kv_cache",)) for file in ("static_cache", "paged_cache", "bare_cache", "uneven_cache")},
    "gradients": Place("gradients", _GRADIENTS, "float64"),
    "attention_with_backward": Place("gradients", _GRADIENTS, "float64", (("attention", "attention_with_backward"),)),
    **{file: Place(file, ("attention_backward",)) for file in ("attention_backward", "blocked_backward")},
    "attention_by_autograd": Place("attention_by_autograd", ("attention_backward", "attention_gradient", "attention")),
    "softmax_backward": Place("softmax_backward", ("softmax_backward",)),
    "norm_backward": Place("norm_backward", ("layer_norm_backward",)),
    "feed_forward_backward": Place("feed_forward_backward", ("feed_forward_backward",)),
    "linear_with_backward": Place("gradients", _GRADIENTS, "float64", (("linear", "linear_with_backward"),)),
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
    tree = ast.parse(standalone(place.base, place.instead))
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
    **dict.fromkeys(("layer_norm", "feed_forward", "encoder_layer", "output_projection", "next_token"), FEATURES),
    **dict.fromkeys(("multi_head", "residual_norm", "decoder_layer"), TWO),
    "embedding": ("bn",),
    "transformer": ("bm", "bn"),
    "generation": ("bm",),
}
"""A letter for each axis of what a step is given: sequences, heads, tokens or keys, features."""

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
                    text = standalone(place.base, place.instead)
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
