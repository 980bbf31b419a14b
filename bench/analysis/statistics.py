"""From times to a verdict: the ratio of two peers, with an interval between processes.

    x_r = log(t_peer / t_baseline)  in round r of one process       timed moments apart, so drift cancels
    y_p = median of x_r over the rounds of process p                one process is one observation: its layout of memory,
                                                                    its place among the neighbours, its clock
    ratio, low, high = exp(mean y_p ± t₀.₉₇₅ · s / √P)              Student's t with P − 1 degrees of freedom

`veriformer bench --self-test` shows how often that interval covers what it should, on the machine at hand.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
CPU_MARGIN = 0.03  # a smaller difference does not count; on a GPU with unlocked clocks 5 %
GPU_MARGIN = 0.05
WIDEST_REACH = 0.10  # a control that reaches further from 1 is not trusted
ODD_CONTROLS = 0.001  # a run is untrusted if so many controls that miss 1 are less likely than this


class Interval(NamedTuple):
    """A ratio (or a time) with its 95 % interval; low and high are None when there was but one process."""

    middle: float
    low: float | None
    high: float | None

    @property
    def reach(self) -> float | None:
        """How far the interval of a ratio goes from 1, as a fraction."""
        return None if self.low is None or self.high is None else max(self.high, 1 / self.low) - 1

    @property
    def contains_one(self) -> bool | None:
        """Whether a ratio of 1 is among what the interval allows."""
        return None if self.low is None or self.high is None else self.low <= 1 <= self.high


def log_ratios(peer: Sequence[float], baseline: Sequence[float]) -> np.ndarray:
    """log(t_peer / t_baseline), round by round."""
    return np.log(np.asarray(peer) / np.asarray(baseline))


def student(processes: Sequence[np.ndarray]) -> Interval:
    """The interval of the verdicts: Student's on the processes' medians. Raises ValueError without a process."""
    medians = np.array([np.median(rounds) for rounds in processes])
    if len(medians) == 0:
        raise ValueError("processes: expected at least one, got none")
    middle = float(medians.mean())
    if len(medians) == 1:
        return Interval(float(np.exp(middle)), None, None)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(medians) - 1) * stats.sem(medians))
    return Interval(float(np.exp(middle)), float(np.exp(middle - reach)), float(np.exp(middle + reach)))


def margin_of(device: str, control: Interval | None, stated: float | None = None) -> float:
    """The margin of a group: the stated one (or the device's), never narrower than the control's reach."""
    least = stated if stated is not None else CPU_MARGIN if device == "cpu" else GPU_MARGIN
    reach = control.reach if control is not None else None
    return least if reach is None else max(least, min(reach, WIDEST_REACH))


def verdict(ratio: Interval, margin: float, *, trusted: bool = True) -> str:
    """The verdict of the interval of a ratio (`reports.bench_records.VERDICTS`)."""
    if ratio.low is None or ratio.high is None:
        return "unresolved"
    if not trusted:
        return "untrusted"
    if ratio.high < 1 / (1 + margin):
        return "faster"
    if ratio.low > 1 + margin:
        return "slower"
    return "same" if ratio.low >= 1 / (1 + margin) and ratio.high <= 1 + margin else "unresolved"


def distrust(control: Interval, margin: float) -> str:
    """Why a control makes its group untrusted; "" if it does not."""
    if control.low is None or control.high is None or control.reach is None:
        return "one process only: there is no interval between processes"
    if control.low > 1 + margin or control.high < 1 / (1 + margin):
        return f"the baseline differs from itself: {control.low:.3f}-{control.high:.3f}"
    if control.reach > WIDEST_REACH:
        return f"the baseline cannot be told from itself within {WIDEST_REACH:.0%}: {control.low:.3f}-{control.high:.3f}"
    return ""


def odd(containing_one: int, controls: int) -> float:
    """The probability of so few controls containing 1, if each does with the stated confidence."""
    return float(stats.binomtest(containing_one, controls, CONFIDENCE, alternative="less").pvalue)
