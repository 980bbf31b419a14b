"""Numbers and names as a reader wants them: three digits at most, a unit, and nothing that could be markup."""

import math
import shlex
from typing import Any

PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
SHORT = {"float64": "f64", "float32": "f32", "bfloat16": "bf16", "float16": "f16"}
REPEATED = (
    "--backward",
    "--as=",
    "--arrays=",
    "--conventions=",
    "--contract=",
    "--like=",
    "--examples=",
)  # options of a run that its checks are replayed with
KEPT = 1500  # characters of a counterexample that a page shows; the table of checks holds all of it


def absent(value: Any) -> bool:
    """Nothing there to show: not infinity, which is a number as large as they come."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def number(value: Any, digits: int = 3) -> str:
    """`value` to three significant digits, without an exponent where it can be read without."""
    if absent(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        rounded = float(f"{value:.{digits}g}")
        return f"{rounded:,.{max(0, digits - 1 - _magnitude(rounded))}f}".replace(",", "\u2009") if value else "0"
    return f"{value:.{digits - 1}e}"


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 0


def count(value: Any) -> str:
    """A whole number, in groups of three."""
    return "–" if absent(value) or math.isinf(value) else f"{value:,.0f}".replace(",", "\u2009")


def spoken(field: str) -> str:
    """The name of a field as a token: "allocated bytes"."""
    return field.replace("_", " ")


def time(nanoseconds: Any) -> str:
    """A duration with its unit."""
    if absent(nanoseconds):
        return "–"
    unit, size = next((pair for pair in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)) if nanoseconds >= pair[1]), ("ns", 1.0))
    return f"{number(nanoseconds / size)} {unit}"


def size(count: Any) -> str:
    """A number of bytes with its unit."""
    if absent(count):
        return "–"
    unit, step = next((pair for pair in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)) if count >= pair[1]), ("B", 1))
    return f"{number(count / step)} {unit}"


def rate(value: Any, unit: str) -> str:
    """A rate such as 3.2 Gflop/s."""
    if absent(value):
        return "–"
    step, prefix = next(((step, prefix) for step, prefix in PREFIXES if value >= step), (1.0, ""))
    return f"{number(value / step)} {prefix}{unit}"


def percent(share: Any) -> str:
    """A share as per cent."""
    return "–" if absent(share) else f"{number(100 * share, 2)} %"


def ratio(value: Any) -> str:
    """A ratio: enough digits to tell 0.996 from 1."""
    return "–" if absent(value) else f"{value:.3f}" if value < 2 else number(value)


def factor(value: Any) -> str:
    """A ratio beside a unit, as one says it: 1.49, 0.39, 12."""
    return "–" if absent(value) else f"{value:.2f}" if value < 10 else number(value)


def interval(low: Any, high: Any) -> str:
    """Both ends of an interval."""
    return "–" if absent(low) or absent(high) else f"[{ratio(low)}, {ratio(high)}]"


def of_budget(share: Any) -> str:
    """An error measured by what rounding allows."""
    if absent(share):
        return "not measured against a budget"
    return f"{number(share)} × the budget" if share > 1 else f"{percent(share)} of the budget"


def times(value: Any) -> str:
    """A factor to two digits: 41×, 1700×, 1.7e4×."""
    rounded = f"{value:.2g}"
    mantissa, _, power = rounded.partition("e")
    return f"{float(rounded):g}×" if value < 1e4 else f"{mantissa}e{int(power)}×" if power else f"{rounded}×"


def apart(one: str, other: str) -> tuple[str, str]:
    """Two numbers with three digits, or as many more as it takes to tell them apart; as they are where they are no numbers."""
    try:
        first, second = float(one), float(other)
    except ValueError:
        return one, other
    if one.lstrip("-").isdigit() and other.lstrip("-").isdigit():
        return one, other
    shown = [(f"{first:#.{digits}g}".rstrip("."), f"{second:#.{digits}g}".rstrip(".")) for digits in range(3, 18)]
    return next((pair for pair in shown if pair[0] != pair[1]), shown[0])


def short(dtype: str) -> str:
    """A dtype as a column head."""
    return SHORT.get(dtype, dtype)


def excerpt(text: Any, kept: int = KEPT) -> str:
    """The beginning of a long text, saying how much more there is."""
    whole = "" if text is None else str(text)
    return whole if len(whole) <= kept else f"{whole[:kept]} … ({len(whole) - kept} more characters: tables/checks.csv)"


def plural(count: int, one: str, many: str = "") -> str:
    """1 claim, 2 claims."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def replay(check: dict[str, Any], command: list[str]) -> str:
    """The command that runs one check again with the seed it had; `command` is what made the run, and keeps its own options."""
    words = ["veriformer", "verify", check["implementation"], "--claims", check["claim"], "--dtype", check["dtype"]]
    words += ["--device", check["device"]] if check["device"] != "cpu" else []
    words += ["--seed", f"{check['seed']:.0f}"] if isinstance(check.get("seed"), int | float) else []
    words += [part for option in command if option.startswith(REPEATED) for part in option.split("=", 1)]
    return shlex.join(str(word) for word in words)
