"""Whether a kernel's Q, K and V are (b, h, n, d), as the step's are, or (b, n, h, d): seen from what it answers.

All scores are 0. The values are 1 where the second axis is at its first place, and 0 elsewhere. Where that is an axis of heads, the
second head has none of it; where it is one of tokens, the second query has its share.

Stands alone, as everything in the process of a user's tests does; the readers of calls and of answers are handed in.
"""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

SIZES = (2, 16, 128)  # of both axes: the first that the kernel takes is asked


class Probed:
    """The kernel itself, asked once more beside its calls until an answer shows it; that is noted in `seen`."""

    def __init__(self, reading: Any, answering: Any, signature: Any, seen: Any, *, takes_self: bool) -> None:
        self.reading, self.answering, self.signature, self.seen = reading, answering, signature, seen
        self.takes_self = takes_self
        self.original: Callable[..., Any] = lambda *_, **__: None
        self._inside = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the kernel answers."""
        if self.seen.tokens_first is None and not self._inside:
            self._inside = True
            with torch.no_grad():
                self._ask(args[: int(self.takes_self)], args[int(self.takes_self) :], kwargs)
            self._inside = False
        return self.original(*args, **kwargs)

    def _ask(self, itself: tuple[Any, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """With Q, K and V of ours alone, by place or by name as in this call."""
        order = list(self.signature.positional if self.signature.parameters is None else self.signature.parameters)
        places = {step: name for name, step in self.signature.places().items()}
        names = [places.get(step, "") for step in "QKV"]
        given = {**dict(zip(order, args, strict=False)), **kwargs}
        Q: Any = given.get(names[0])
        by_place = order[:3] == names and len(args) >= 3
        if not all(name in given for name in names) or len(getattr(Q, "shape", ())) < 3:
            return

        def ask(*QKV: Tensor) -> Any:
            like = [_like(self.answering, X, Q) for X in QKV]
            result = self.original(*itself, *like) if by_place else self.original(*itself, **dict(zip(names, like, strict=True)))
            return self.reading.tensors(self.answering.main_array(result)[0])

        self.seen.tokens_first = tokens_first(ask, Q.shape[-1])


def tokens_first(ask: Callable[..., Any], width: int) -> bool | None:
    """Whether tokens come before heads; None where no answer shows it. `ask` takes tensors and answers with one."""
    for size in SIZES:
        nothing, V = torch.zeros(1, size, size, width), torch.zeros(1, size, size, width)
        V[:, 0] = 1
        answer = None
        with contextlib.suppress(Exception):  # whatever a kernel raises for sizes that it does not take
            answer = ask(nothing, nothing, V)
        if isinstance(answer, Tensor) and answer.shape == V.shape:
            first, second = float(answer[0, 0].sum()), float(answer[0, 1].sum())
            return second > 0 if first > 0 else None
    return None


def _like(answering: Any, X: Tensor, Q: Any) -> Any:
    """The numbers of X in an array as Q is one."""
    if isinstance(Q, Tensor):
        return X.to(Q)
    dtype = getattr(torch, str(Q.dtype), torch.float32)
    return answering.as_the_kernel(X.to(dtype), {"library": answering.description(Q)[0], "dtypes": {}}, None)
