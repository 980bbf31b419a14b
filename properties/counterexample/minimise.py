"""After Hypothesis has shrunk the structure of an example, shrink its numbers: as few, and as plain, as still show the fault.

Hypothesis cannot see into an array that comes from a seed. Here rows, keys, heads and layers are dropped, numbers set to zero,
or rounded, one change at a time, and each kept while the fault is still to be seen by the call alone.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from properties.counterexample.cache_programs import Played, shorter, without
from properties.implementations.calls import Asked
from properties.implementations.layouts import BESIDE, CONTIGUOUS, LAYOUTS, of
from properties.steps import COMPANIONS, OPTIONS

Shows = Callable[[Asked], bool]

SECONDS = 20.0  # what minimising one call may take
ELEMENTWISE = 64  # arrays of up to so many numbers are gone through number by number

AXES: dict[str, dict[int | str, str]] = {
    "attention": {0: "b h n k", 1: "b h m k", 2: "b h m v", 3: "b h n m", "bias": "b h n m", "sinks": "h", "slopes": "h"}
    | {"dropout_mask": "b h n m"},
    "softmax": {0: "p q n m"},
    "multi_head": {0: "b n .", 1: "b m .", 2: "b . n m"},
    "multi_head_with_weights": {0: "b n .", 1: "b m .", 2: "b . n m"},
    "layer_norm": {0: "b n d", "gain": "d", "bias": "d"},
    "residual_norm": {0: "b n d", 1: "b n d", "gain": "d", "bias": "d"},
    "feed_forward": {0: "b n .", "W_1": ". f", "b_1": "f", "W_2": "f ."},
    "encoder_layer": {0: "b n .", 1: "b . n n"},
    "encoder": {0: "b n .", 1: "b . n n"},
    "decoder_layer": {0: "b n .", 1: "b m .", 2: "b . n n", 3: "b . n m"},
    "decoder": {0: "b n .", 1: "b m .", 2: "b . n n", 3: "b . n m"},
    "embedding": {0: "b n", "table": ". d"},
    "output_projection": {0: "b n .", "W": ". w", "b": "w"},
    "next_token": {0: "b n .", "W": ". w", "b": "w"},
    "split_heads": {0: "b n ."},
    "concat_heads": {0: "b h n k"},
    "transformer": {0: "b m", 1: "b n", 2: "b m", 3: "b n"},
    "generation": {0: "b m", 1: "b m"},
    "log_sum_exp": {0: "b h n k", 1: "b h m k", 2: "b h n m"},
    "packed_attention": {0: ". h k", 1: ". h k", 2: ". h v"},
    "paged_attention": {0: "b h n k", 1: ". . h k", 2: ". . h v", "block_table": "b w", "lengths": "b"},
    "cached_attention": {0: "b h n k", 1: "b h . k", 2: "b h . v", "lengths": "b"},
    "softmax_backward": {0: "p q n m", 1: "p q n m"},
    "attention_backward": {0: "b h n v", 1: "b h n k", 2: "b h m k", 3: "b h m v", 4: "b h n m"},
    "attention_gradient": {0: "b h n v", 1: "b h n k", 2: "b h m k", 3: "b h m v", 4: "b h n m"},
    "layer_norm_backward": {0: "b n d", 1: "b n d", "gain": "d"},
    "feed_forward_backward": {0: "b n .", 1: "b n .", "W_1": ". f", "b_1": "f", "W_2": "f ."},
}
"""The axes of a step's arguments that can be cut, one letter each, counted from the last; a dot is one that cannot."""

NUMBERS: dict[str, tuple[int | str, ...]] = {"mask": (0, 1), "positional_encoding": (0, 1), "generation": ("length",)}
"""The arguments of a step that are numbers of rows, columns or tokens by themselves."""

LEAVABLE = ("b_Q", "b_K", "b_V", "b_O", "b_out", "final_norm", "encoder_norm", "decoder_norm", "b")
"""Parameters that a step does without."""

OPTIONAL = tuple(OPTIONS["attention"])
"""Arguments of attention that are left out where they are not asked for."""


def minimised(asked: Asked, shows: Shows, *, seconds: float = SECONDS) -> Asked:
    """The smallest call found that still `shows` the fault; `asked` itself where nothing smaller does, or time is up."""
    deadline, first = time.monotonic() + seconds, 0
    while True:
        for place, smaller in enumerate(_smaller(asked)):
            if place < first:
                continue  # tried before the last change, which made no difference to most of them
            if time.monotonic() > deadline:
                return asked
            if size(smaller) < size(asked) and shows(smaller):
                asked, first = smaller, place
                break
        else:
            if first == 0:
                return asked
            first = 0


def size(asked: Asked) -> tuple[float, ...]:
    """What is to be made small: operations, numbers, how many of them not zero, not whole, how large, arrays laid apart."""
    arrays = [np.asarray(array, dtype=np.float64) for _, array in leaves(asked)]
    numbers = np.concatenate([array.ravel() for array in arrays]) if arrays else np.zeros(0)
    finite = np.where(np.isfinite(numbers), numbers, 0.0)
    return (
        len(asked.kwargs.get("program", ())),
        numbers.size
        + len(arrays)
        + sum(number for _, number in _numbers(asked))
        + (asked.layout is not None)
        + len(_options(asked)),
        int(np.count_nonzero(numbers)),
        int(np.count_nonzero(finite != np.round(finite))),
        float(np.abs(finite).sum()) + sum(abs(number) for _, number in _option_numbers(asked)),
        sum(of(asked.layout, place) != CONTIGUOUS for place in range(len(arrays))),
    )


def numbers(asked: Asked) -> int:
    """How many numbers of the call are not zero."""
    return int(size(asked)[2])


def leaves(asked: Asked) -> Iterator[tuple[tuple[Any, ...], np.ndarray]]:
    """Every array of a call, with the way to it."""
    yield from _leaves(asked.args, ("args",))
    yield from _leaves(asked.kwargs, ("kwargs",))


def _leaves(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], np.ndarray]]:
    if isinstance(value, np.ndarray):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _leaves(item, (*path, i))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Nested arguments with what stands at `path` replaced."""
    if not path:
        return new
    key, rest = path[0], path[1:]
    if isinstance(value, Asked):
        return value._replace(**{key: replaced(getattr(value, key), rest, new)})
    if isinstance(value, dict):
        return {**value, key: replaced(value[key], rest, new)}
    return type(value)(replaced(item, rest, new) if i == key else item for i, item in enumerate(value))


# ---- the changes that are tried, the boldest first ----


def _smaller(asked: Asked) -> Iterator[Asked]:
    yield from corners(asked)
    yield from _with_shorter_programs(asked)
    yield from _without_options(asked)
    yield from _with_fewer_layers(asked)
    yield from _with_less_packed(asked)
    yield from _with_fewer_key_heads(asked)
    yield from _cut(asked)
    yield from _with_smaller_numbers(asked)
    yield from _plainer(asked)
    yield from _with_plainer_options(asked)
    yield from _with_plainer_layouts(asked)


def corners(asked: Asked) -> Iterator[Asked]:
    """With one, two or three of everything: so little is asked at once that trying it costs next to nothing."""
    for length in (1, 2, 3):
        corner = asked
        for letter in _letters(asked):
            whole = _length(asked, letter)
            corner = _cut_out(corner, letter, whole, list(range(length, whole)))
        yield corner


def _with_shorter_programs(asked: Asked) -> Iterator[Asked]:
    """With fewer operations on a cache, and fewer tokens and rows in them."""
    if asked.step == "kv_cache":
        vocabularies = (len(asked.kwargs["parameters"][f"{side}_embedding"]) for side in ("source", "target"))
        source, *real = asked.args
        for fewer in shorter(Played(source, real[0] if real else None, asked.kwargs["program"]), *vocabularies):
            yield asked._replace(args=(fewer.source, fewer.real), kwargs=asked.kwargs | {"program": fewer.program})
    if asked.step == "attention_cache":
        program = asked.kwargs["program"]
        for place in reversed(range(len(program))):
            yield asked._replace(kwargs=asked.kwargs | {"program": without(program, place)})


def _without_options(asked: Asked) -> Iterator[Asked]:
    """Without a mask, a bias, a norm that may be left out, an option of attention, a layout in memory."""
    if asked.layout is not None:
        yield asked._replace(layout=None)
    for i, value in enumerate(asked.args):
        if isinstance(value, np.ndarray) and value.dtype == bool:
            yield replaced(asked, ("args", i), None)
    for path in _named(asked.kwargs, ("kwargs",)):
        if path[-1] in LEAVABLE:
            yield replaced(asked, path, None)
    for option in _options(asked):
        others = {name: value for name, value in asked.kwargs.items() if option not in (name, COMPANIONS.get(name))}
        yield asked._replace(kwargs=others)


def _named(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, item in items:
        if item is not None:
            yield (*path, key)
            yield from _named(item, (*path, key))


def _with_fewer_layers(asked: Asked) -> Iterator[Asked]:
    for path in _named(asked.kwargs, ("kwargs",)):
        if path[-1] in ("layers", "encoder", "decoder"):
            layers = asked.kwargs[path[1]] if len(path) == 2 else asked.kwargs[path[1]][path[2]]
            yield from (replaced(asked, path, layers[:i] + layers[i + 1 :]) for i in range(len(layers)) if len(layers) > 1)


PACKED = (("cu_seqlens_q", (0,)), ("cu_seqlens_k", (1, 2)))
"""Of packed sequences: the argument with their cumulative lengths, and which others hold their rows."""


def _with_less_packed(asked: Asked) -> Iterator[Asked]:
    """With a packed sequence fewer, or half as many queries or keys in one, or one fewer."""
    if asked.step != "packed_attention" or len({len(asked.kwargs[name]) for name, _ in PACKED}) > 1:
        return
    for r in range(len(asked.kwargs["cu_seqlens_q"]) - 1):
        without = asked
        for name, places in PACKED:
            without = _without_rows(without, name, places, r, int(np.diff(asked.kwargs[name])[r]))
        bounds = {name: np.delete(without.kwargs[name], r + 1) for name, _ in PACKED}
        yield without._replace(kwargs={**without.kwargs, **bounds})
        for name, places in PACKED:
            rows = int(np.diff(asked.kwargs[name])[r])
            yield from (
                _without_rows(asked, name, places, r, fewer) for fewer in sorted({rows // 2, 1}, reverse=True) if fewer <= rows
            )


def _without_rows(asked: Asked, name: str, places: tuple[int, ...], r: int, fewer: int) -> Asked:
    """Without the last so many rows of the packed sequence r."""
    lengths = asked.kwargs[name]
    gone = list(range(max(int(lengths[r + 1]) - fewer, 0), int(lengths[r + 1])))
    for place in places:
        kept = [row for row in range(len(asked.args[place])) if row not in gone]
        asked = replaced(asked, ("args", place), asked.args[place][kept])
    shorter_by = np.where(np.arange(len(lengths)) > r, fewer, 0)
    return replaced(asked, ("kwargs", name), lengths - shorter_by)


def _options(asked: Asked) -> list[str]:
    """The options of attention that are asked for."""
    return [name for name in asked.kwargs if name in OPTIONAL] if asked.step == "attention" else []


def _option_numbers(asked: Asked) -> list[tuple[tuple[Any, ...], float]]:
    """The numbers among the options of attention, each with the way to it."""
    named = [(name, asked.kwargs[name]) for name in _options(asked)]
    numbers = [(("kwargs", name), value) for name, value in named if name in ("scale", "softcap")]  # dropout_p is left as it is
    sides = [(("kwargs", name, side), value[side]) for name, value in named if name == "window" for side in (0, 1)]
    return [(path, float(number)) for path, number in (*numbers, *sides) if number is not None]


def _with_plainer_options(asked: Asked) -> Iterator[Asked]:
    """With a scale or a cap of ±1, a window narrower by one or open on a side."""
    for path, number in _option_numbers(asked):
        if path[1] == "window":
            yield from (
                replaced(asked, path, plain) for plain in (None, 0, int(number) - 1) if plain is None or 0 <= plain < number
            )
        elif number:
            yield replaced(asked, path, float(np.sign(number)))


def _with_fewer_key_heads(asked: Asked) -> Iterator[Asked]:
    """Where several query heads read one key head: with one group of them, or with one query head fewer in each."""
    if asked.step != "attention" or asked.args[0].shape[1] <= (g := asked.args[1].shape[1]):
        return
    h = asked.args[0].shape[1]
    grouped = np.arange(h).reshape(g, -1)
    for heads, keys in ((grouped[:1], [0]), (grouped[-1:], [g - 1]), (grouped[:, 1:], range(g)), (grouped[:, :-1], range(g))):
        kept, smaller = heads.ravel(), asked
        for path, array, axes in _arrays_with_axes(asked):
            which = keys if path in (("args", 1), ("args", 2)) else kept
            axis = next((axis for axis, name in axes if name == "h" and array.shape[axis] > 1), None)
            if axis is not None:
                smaller = replaced(smaller, path, np.take(array, list(which), axis=axis))
        yield smaller


def _cut(asked: Asked) -> Iterator[Asked]:
    """With an axis cut to half, or by one: rows, keys, heads, features, sequences."""
    for letter in _letters(asked):
        length = _length(asked, letter)
        for gone in _pieces(length):
            if len(gone) < length:
                yield _cut_out(asked, letter, length, gone)


def _letters(asked: Asked) -> list[str]:
    axes = AXES.get(asked.step, {})
    return sorted({letter for letters in axes.values() for letter in letters.split()} - {"."})


def _with_smaller_numbers(asked: Asked) -> Iterator[Asked]:
    """With a number of rows, columns or tokens that is 1, or less by half, by a quarter, …, by one."""
    for path, number in _numbers(asked):
        halves = [number >> bits for bits in range(1, int(number).bit_length())]
        yield from (replaced(asked, path, number - less) for less in (number - 1, *halves) if less > 0)


def _numbers(asked: Asked) -> list[tuple[tuple[str, int | str], int]]:
    """The numbers of rows, columns or tokens among the arguments, each with the way to it."""
    places = NUMBERS.get(asked.step, ())
    found = [(("args", where), asked.args[where]) for where in places if isinstance(where, int) and where < len(asked.args)]
    return [*found, *((("kwargs", where), asked.kwargs[where]) for where in places if where in asked.kwargs)]


def _pieces(length: int) -> list[list[int]]:
    half = length // 2
    halves = [list(range(half, length)), list(range(half))] if length > 2 else []
    return [*halves, *([i] for i in reversed(range(length)))]


def _arrays_with_axes(asked: Asked) -> Iterator[tuple[tuple[Any, ...], np.ndarray, list[tuple[int, str]]]]:
    for where, letters in AXES.get(asked.step, {}).items():
        path = ("args", where) if isinstance(where, int) else ("kwargs", where)
        array = asked.args[where] if isinstance(where, int) and where < len(asked.args) else asked.kwargs.get(str(where))
        if isinstance(array, np.ndarray):
            named = letters.split()[-array.ndim :] if array.ndim else []
            yield path, array, [(axis - len(named), letter) for axis, letter in enumerate(named)]


def _length(asked: Asked, letter: str) -> int:
    return max(
        (array.shape[axis] for _, array, axes in _arrays_with_axes(asked) for axis, name in axes if name == letter), default=0
    )


def _cut_out(asked: Asked, letter: str, length: int, gone: list[int]) -> Asked:
    for path, array, axes in _arrays_with_axes(asked):
        kept = array
        for axis, name in axes:
            if name == letter and array.shape[axis] == length:
                kept = np.delete(kept, gone, axis=axis)
        asked = replaced(asked, path, kept)
    return asked


def _plainer(asked: Asked) -> Iterator[Asked]:
    """With zeros in place of an array, a row, a number; with whole numbers; with ones."""
    for path, array in leaves(asked):
        if array.dtype == bool or not np.count_nonzero(array):
            continue
        yield replaced(asked, path, np.zeros_like(array))
        if array.dtype == np.float64:
            yield replaced(asked, path, np.round(array))
            yield replaced(asked, path, np.sign(array))
        for place in _places(array):
            for plain in (0, np.sign(array[place])):
                other = array.copy()
                other[place] = plain
                yield replaced(asked, path, other)


def _with_plainer_layouts(asked: Asked) -> Iterator[Asked]:
    """With one array fewer that does not lie in memory as usual."""
    names = [of(asked.layout, place) or CONTIGUOUS for place, _ in enumerate(leaves(asked))]
    if set(names) & LAYOUTS.keys():
        for place in range(len(names)):
            plain = [*names[:place], CONTIGUOUS, *names[place + 1 :]]
            yield asked._replace(layout=BESIDE.join(plain) if set(plain) != {CONTIGUOUS} else None)


def _places(array: np.ndarray) -> Iterator[Any]:
    """Its rows, then its numbers, where they are few."""
    if array.ndim > 1:
        yield from np.ndindex(array.shape[:-1])
    if array.size <= ELEMENTWISE:
        yield from (place for place in np.ndindex(array.shape) if array[place])
