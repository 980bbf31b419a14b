"""What a correct implementation promises about its arithmetic. It is declared, not guessed; the budget follows from it.

Every contract allows: any order of summation, x·(1/s) for x/s, x·c − m·c for (x − m)·c, and library functions good to a few
units of the accumulation dtype. Another algorithm with another error (exp(x − (m + log Σ)), say) is not among them.

An adapter declares its contract in an attribute `contract`: the keyword arguments of `Contract` apart from dtype, or a dict of
such dicts by dtype, e.g. `contract = {"bfloat16": {"mode": "fused", "cast_weights": True}}`. One that does not declare its mode
is held to the envelope of eager and fused: in each component the larger of the two scales. Both are what ordinary code does (a
chain of operators, a fused kernel), so neither may be an accusation; an implementation that knows better declares it, and is held
to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from properties.implementations.formats import FORMATS, Format

if TYPE_CHECKING:
    from properties.implementations.impl import Impl

DTYPES = ("float64", "float32", "bfloat16", "float16")
KAPPA: Mapping[str, float] = {"exp": 1.0, "tanh": 2.0, "erf": 8.0, "sin": 2.0, "cos": 2.0, "sqrt": 1.0, "log": 2.0, "table": 10.0}
"""How many units of the accumulation dtype a library function may be off. `log` may be taken to base 2: one unit of log₂, and a
half each for ln 2 and for their product. `erf` is off by units of 1, not of itself: vectorised, it is 1 − p(t)·exp(−x²), which
cancels where x is small (torch 2.13 on a CPU with AVX2 is off by 8 units in GELU near x = −0.05). `table` are numbers a step makes
out of nothing: the frequencies 10000^(−2i/d), whose logarithm reaches ln 10⁴ ≈ 9.2, so that a correct exponential of it errs by
about ten units."""

MATMUL = {"highest": None, "high": "tf32", "medium": "bfloat16"}
MOST_PARTS = 64  # that a matrix product may be summed in
FUSED_STORES = frozenset({"Q", "K", "V", "concat", "hidden", "norm", "final_norm", "input", "result", "O", "dpreactivation"})
"""What a fused kernel writes in the storage dtype: the operands of the next matrix product, and its result."""

UNSCALED = frozenset({"products"})
"""What is divided before it is used. Stored in between it may be rounded to the storage dtype, but it may not overflow there: Q·Kᵀ
of scores that fit. Dividing Q first costs nothing and is what PyTorch does; float16 models whose Q·Kᵀ overflowed were mended so."""


@dataclass(frozen=True)
class Contract:
    """One way of computing. Raises ValueError for one that makes no sense, saying what to declare instead.

    dtype         what matrices are stored in
    accumulation  what a step computes in; "" is float32, for float64 storage float64
    mode          "eager": every named matrix is stored in `dtype`; "fused": only operands of matrix products and results are
    cast_weights  whether a fused attention stores softmax's weights P in `dtype` before P V, and their gradient backward (an eager
                  one always does)
    accuracies    κ of library functions where it differs from KAPPA
    flush_to_zero whether subnormal numbers may become 0, in arguments, on the way and in results
    split_k       in how many parts along its inner axis a matrix product is summed; each part, and their sum, is stored in `dtype`
    float32_matmul_precision  torch's setting: "highest", "high" (operands in TF32: 11 bits) or "medium" (in bfloat16)
    narrow        says that accumulating in less than the storage dtype is meant
    """

    dtype: str = "float32"
    accumulation: str = ""
    mode: Literal["eager", "fused"] = "eager"
    cast_weights: bool = False
    accuracies: Mapping[str, float] = field(default_factory=dict)
    flush_to_zero: bool = False
    split_k: int = 1
    float32_matmul_precision: Literal["highest", "high", "medium"] = "highest"
    narrow: bool = False

    def __post_init__(self) -> None:
        if not self.accumulation:
            object.__setattr__(self, "accumulation", "float64" if self.dtype == "float64" else "float32")
        _one_of("dtype", self.dtype, DTYPES)
        _one_of("accumulation", self.accumulation, DTYPES)
        _one_of("mode", self.mode, ("eager", "fused"))
        _one_of("float32_matmul_precision", self.float32_matmul_precision, tuple(MATMUL))
        self._must_make_sense()

    def _must_make_sense(self) -> None:
        if FORMATS[self.accumulation].bits < FORMATS[self.dtype].bits and not self.narrow:
            raise ValueError(
                f"accumulation: expected at least the precision of dtype {self.dtype}, got {self.accumulation}; "
                "declare narrow=True if sums really lose bits that the result has room for"
            )
        if self.cast_weights and self.mode == "eager":
            raise ValueError("cast_weights: an eager implementation stores every matrix, P too; declare mode='fused' with it")
        if self.float32_matmul_precision != "highest" and self.accumulation != "float32":
            raise ValueError(
                f"float32_matmul_precision: expected 'highest' with accumulation {self.accumulation}, "
                f"got {self.float32_matmul_precision!r}; it only speaks of float32 products"
            )
        if not 1 <= self.split_k <= MOST_PARTS:
            raise ValueError(f"split_k: expected 1 to {MOST_PARTS} parts of a matrix product, got {self.split_k}")
        for name, units in self.accuracies.items():
            _one_of("accuracies", name, tuple(KAPPA))
            if not 0 <= units < 2**10:
                raise ValueError(f"accuracies: expected {name} between 0 and 1024 units, got {units}")

    @property
    def storage(self) -> Format:
        """The format of stored matrices."""
        return FORMATS[self.dtype]

    @property
    def inside(self) -> Format:
        """The format inside a step."""
        return FORMATS[self.accumulation]

    @property
    def operands(self) -> Format | None:
        """The format float32 operands of a matrix product are cut to; None leaves them whole."""
        name = MATMUL[self.float32_matmul_precision]
        return None if name is None else FORMATS[name]

    def kappa(self, function: str) -> float:
        """How many units a library function may be off."""
        return self.accuracies.get(function, KAPPA[function])

    def stores(self, name: str) -> bool:
        """Whether the matrix that the oracle records as `name` (its last part) is stored in `dtype`."""
        if self.mode == "eager":
            return True
        return name in FUSED_STORES or (name in ("weights", "dproducts") and self.cast_weights)


def envelope(dtype: str) -> tuple[Contract, ...]:
    """What an implementation that declares nothing is held to; where nothing is stored in less, eager and fused are the same."""
    return _in_either_mode(Contract(dtype))


def _in_either_mode(contract: Contract) -> tuple[Contract, ...]:
    if contract.dtype in ("float64", "float32"):
        return (contract,)
    return contract, replace(contract, mode="fused")


def declared(adapter: Any, dtype: str) -> tuple[Contract, ...]:
    """The contract of an implementation at `dtype`, or the envelope if it declares none. Raises ValueError for nonsense."""
    declaration = getattr(adapter, "contract", None)
    if declaration is None:
        return envelope(dtype)
    if isinstance(declaration, Contract):
        return (declaration,)
    if declaration and all(key in DTYPES for key in declaration):
        if dtype not in declaration:
            return envelope(dtype)
        declaration = declaration[dtype]
    try:
        contract = Contract(dtype=dtype, **declaration)
    except TypeError as error:
        raise ValueError(f"contract: expected keyword arguments of Contract, got {declaration!r} ({error})") from error
    return (contract,) if "mode" in declaration else _in_either_mode(contract)


def in_force(impl: "Impl") -> tuple[Contract, ...]:
    """What an implementation is held to: what it declares, or the envelope; flushing subnormals, where that is its convention."""
    contracts = declared(impl.adapter, impl.dtype)
    if impl.conventions.subnormals != "flushed":
        return contracts
    return tuple(replace(contract, flush_to_zero=True) for contract in contracts)


def _one_of(what: str, got: str, choices: tuple[str, ...]) -> None:
    if got not in choices:
        raise ValueError(f"{what}: expected one of {', '.join(choices)}, got {got!r}")
