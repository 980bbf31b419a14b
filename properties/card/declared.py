"""What a card found, as a class may declare it; and where that is not what is declared."""

from typing import Any

from properties.card import arithmetic
from properties.implementations.contract import declared as contracts
from properties.implementations.conventions import CHOICES, CONVENTIONS
from properties.implementations.formats import FORMATS
from properties.implementations.impl import Impl
from reports.card_records import CardConvention, CardNumber

WIDTHS = (
    ("products", "Q·Kᵀ adds up in", arithmetic.of_products, "2ᵏ + 1 − 2ᵏ"),
    ("softmax_sum", "Σ eˢ adds up in", arithmetic.of_the_sum, "1 + 2⁻ᵏ"),
    ("values", "P·V adds up in", arithmetic.of_values, "2ᵏ + 1 − 2ᵏ"),
)


def declaration(rows: list[CardConvention], numbers: list[CardNumber]) -> dict[str, Any]:
    """What was found, as a class may declare it: conventions that are the same in every dtype, and a contract by dtype."""
    choices: dict[str, set[str]] = {}
    for row in rows:
        if row.name in CHOICES and row.choice:
            choices.setdefault(row.name, set()).add(row.choice)
    conventions = {
        name: _all_of(name, made) for name, made in choices.items() if len(made) == 1 or CONVENTIONS[name].allows in made
    }
    contract = {}
    for dtype in dict.fromkeys(number.dtype for number in numbers):
        found = {number.name: number.value for number in numbers if number.dtype == dtype and not number.problem}
        if said := _contract_of(dtype, found):
            contract[dtype] = said
    return {"conventions": conventions} | ({"contract": contract} if contract else {})


def _all_of(name: str, made: set[str]) -> str:
    allows = CONVENTIONS[name].allows
    return allows if allows is not None and allows in made else next(iter(made))


def _contract_of(dtype: str, found: dict[str, str]) -> dict[str, Any]:
    """The arguments of a contract that the numbers decide."""
    said: dict[str, Any] = {}
    match found.get("scores"), found.get("weights"):
        case arithmetic.ROUNDED, arithmetic.ROUNDED:
            said["mode"] = "eager"
        case arithmetic.KEPT, arithmetic.ROUNDED | arithmetic.BEFORE_DIVISION:
            said |= {"mode": "fused", "cast_weights": True}
        case arithmetic.KEPT, arithmetic.KEPT:
            said["mode"] = "fused"
    usual = "float64" if dtype == "float64" else "float32"
    formats = [found[name] for name, *_ in WIDTHS if found.get(name) in FORMATS]
    narrowest = min(formats, key=lambda name: FORMATS[name].bits, default=usual)
    if narrowest != usual:
        said["accumulation"] = narrowest
        if FORMATS[narrowest].bits < FORMATS[dtype].bits:
            said["narrow"] = True
    return said


def mismatches(rows: list[CardConvention]) -> list[str]:
    """Where a probe shows another choice than the declared one."""
    return [
        f"{row.name}: declared {row.declared}, but the probe shows {row.choice} ({', '.join(row.dtypes)})"
        for row in rows
        if row.mismatch
    ]


def contradictions(impl: Impl, numbers: list[CardNumber]) -> list[str]:
    """Where the numbers show less than the declared contract promises."""
    if getattr(impl.adapter, "contract", None) is None:
        return []
    promised = contracts(impl.adapter, impl.dtype)
    found = {number.name: number for number in numbers if number.dtype == impl.dtype and not number.problem}
    lines = []
    for name, *_ in WIDTHS:
        value = found[name].value if name in found else ""
        if value in FORMATS and all(FORMATS[value].bits < FORMATS[each.accumulation].bits for each in promised):
            lines.append(f"contract: {impl.dtype}: accumulation={promised[0].accumulation}, but {found[name].what} {value}")
    if len(promised) == 1 and promised[0].mode == "fused":
        if "scores" in found and found["scores"].value == arithmetic.ROUNDED:
            lines.append(f"contract: {impl.dtype}: mode=fused, but scores are rounded to {impl.dtype}")
        rounded = (arithmetic.ROUNDED, arithmetic.BEFORE_DIVISION)
        if not promised[0].cast_weights and "weights" in found and found["weights"].value in rounded:
            lines.append(f"contract: {impl.dtype}: cast_weights=false, but weights are rounded to {impl.dtype}")
    return lines
