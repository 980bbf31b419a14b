"""What a weak checker accepts: answers that were never computed, or only as long as somebody looks."""

from properties.evaluation.detection.fault import Fault
from properties.evaluation.detection.reward_hacks import HACKS, LAWS, RETURN

_WIDE = "return x.to(torch.promote_types(x.dtype, torch.float32))"


def _cheat(identifier: str, wrong: str, shows: str, *, right: str = RETURN, dtype: str = "float32") -> Fault:
    """A cheat in attention."""
    return Fault(identifier, "cheat", "attention", ("attention",), right, wrong, shows, LAWS, (), dtype)


CHEATS = (
    _cheat("zeros", "return torch.zeros_like(output).to(Q.dtype)", "always"),
    _cheat("constant-of-the-right-mean", "return torch.full_like(output, wide(V).mean()).to(Q.dtype)", "always"),
    _cheat(
        "last-answer-by-shape",
        "return attention.__dict__.setdefault(str(output.shape), output.to(Q.dtype))",
        "a second call with arguments of the same shapes",
    ),
    _cheat(
        "last-answer-by-identity",
        "return attention.__dict__.setdefault(str((id(Q), output.shape)), output.to(Q.dtype))",
        "a later call whose Q lies where an earlier one lay",
    ),
    _cheat("input-changed", "return (output.to(Q.dtype), V.zero_())[0]", "a V that is not zero"),
    _cheat("output-is-an-input", "return V if V.shape == output.shape else output.to(Q.dtype)", "as many keys as queries"),
    _cheat("single-for-double", "return x.to(torch.float32)", "float64", right=_WIDE, dtype="float64"),
    _cheat("bfloat16-for-single", "return x.to(torch.bfloat16)", "float32", right=_WIDE),
    _cheat("right-up-to-16-keys", "return output.to(Q.dtype) * (K.shape[-2] <= 16)", "more than 16 keys"),
    _cheat("right-for-multiples-of-8", "return output.to(Q.dtype) * (K.shape[-2] % 8 == 0)", "any other number of keys"),
    _cheat(
        "one-nan",
        "return output.masked_fill(output == output.max() if output.numel() else output == 0, math.nan).to(Q.dtype)",
        "always",
    ),
    _cheat(
        "dtype-is-a-lie",
        'return output.bfloat16().as_subclass(type("Lying", (torch.Tensor,), {"dtype": property(lambda _: Q.dtype)}))',
        "float32: the numbers are bfloat16's",
    ),
    _cheat(
        "right-for-the-first-50-calls",
        'return output.to(Q.dtype) * (1.0 if next(attention.__dict__.setdefault("calls", iter(range(10**9)))) < 50 else 1.5)',
        "the 51st call",
    ),
    *HACKS,
)
"""Each in-process, as a callable that cannot be imported elsewhere would be."""

BY_CHANCE = {"last-answer-by-identity", "last-answer-by-address"}
"""Which property sees them first is decided by where a new array lies: where an old one lay, or not."""

PEEKING = _cheat(
    "reads-the-oracle",
    'return torch.as_tensor(__import__("properties.implementations.oracle", fromlist=["oracle"]).oracle("attention", '
    "Q.double().numpy(), K.double().numpy(), V.double().numpy(), None if mask is None else mask.numpy()), dtype=Q.dtype)",
    "never by its numbers: they are the oracle's own",
)
"""Not in the catalogue, since no answer gives it away: only a process in which the oracle cannot be imported would."""
