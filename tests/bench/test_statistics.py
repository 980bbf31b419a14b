"""From times to verdicts: the interval covers what it claims to, and each verdict is given where it should be."""

import numpy as np
import pytest
from scipy import stats

from bench.analysis.statistics import Interval, distrust, log_ratios, margin_of, odd, student, verdict
from bench.self_test.trials import bootstrap


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.50, 0.60, "faster"),
        (1.10, 1.20, "slower"),
        (0.99, 1.02, "same"),
        (0.99, 1.04, "unresolved"),
        (0.90, 0.99, "unresolved"),
        (1.02, 1.05, "unresolved"),
        (0.90, 1.20, "unresolved"),
        (None, None, "unresolved"),
    ],
)
def test_every_interval_has_its_verdict(low, high, expected):
    """Only a whole interval on one side of the band, or inside it, decides anything."""
    assert verdict(Interval(1.0, low, high), margin=0.03) == expected


def test_a_control_vetoes_whatever_the_interval_says():
    """A ratio of 1/2 is untrusted where the baseline cannot be told from itself."""
    assert verdict(Interval(0.5, 0.49, 0.51), margin=0.03, trusted=False) == "untrusted"


@pytest.mark.parametrize(
    ("low", "high", "trusted"), [(0.99, 1.01, True), (0.95, 1.06, True), (1.04, 1.06, False), (0.8, 1.1, False)]
)
def test_a_control_is_distrusted_that_differs_from_itself_or_tells_nothing(low, high, trusted):
    """An interval that lies outside the band, or that reaches too far."""
    assert (distrust(Interval(1.0, low, high), margin=0.03) == "") == trusted


def test_the_margin_is_never_narrower_than_the_noise():
    """A control that strays by 5 % makes 4 % no difference."""
    assert margin_of("cpu", Interval(1.0, 0.97, 1.05)) == pytest.approx(0.05)
    assert margin_of("cpu", Interval(1.0, 0.995, 1.005)) == pytest.approx(0.03)
    assert margin_of("cuda", None) == pytest.approx(0.05)


def test_one_process_has_no_interval():
    """Rounds of one process are one observation of its layout."""
    assert student([np.log([2.0, 2.0, 2.1])]) == Interval(pytest.approx(2.0), None, None)


def test_drift_that_hits_both_of_a_round_leaves_no_trace():
    """A machine that becomes four times slower during the run does not change a ratio."""
    drift = np.linspace(1, 4, 50)

    assert np.exp(log_ratios(3.0 * drift, 2.0 * drift)) == pytest.approx(1.5)


def simulated(rng: np.random.Generator, ratio: float, processes: int = 6, rounds: int = 30) -> list[np.ndarray]:
    """Processes that differ by 1 %, rounds by 5 %, and a neighbour who triples one sample in ten."""
    bursts = lambda: np.where(rng.random(rounds) < 0.1, 3.0, 1.0)  # noqa: E731
    return [
        np.log(ratio) + rng.normal(0, 0.01) + rng.normal(0, 0.05, rounds) + np.log(bursts() / bursts()) for _ in range(processes)
    ]


def test_students_interval_covers_what_it_says_and_is_the_narrower(monkeypatch):
    """Over 300 simulated runs of identical code it contains 1 in 95 % of them; the bootstrap does so too, but is wider."""
    monkeypatch.setattr("bench.self_test.trials.RESAMPLES", 200)
    rng = np.random.default_rng(0)
    trials = [simulated(rng, 1.0) for _ in range(300)]

    students = [student(trial) for trial in trials]
    bootstraps = [bootstrap(trial) for trial in trials[:60]]

    interval = stats.binomtest(sum(bool(found.contains_one) for found in students), 300).proportion_ci(method="wilson")
    assert interval.low <= 0.95 <= interval.high
    assert stats.binomtest(sum(bool(found.contains_one) for found in bootstraps), 60).proportion_ci().high >= 0.95
    assert np.median([found.high / found.low for found in students]) < np.median([found.high / found.low for found in bootstraps])


def test_five_per_cent_are_found():
    """In four of five simulated runs or more the interval of a true slowdown of 5 % lies above 1."""
    rng = np.random.default_rng(1)
    lows = [student(simulated(rng, 1.05)).low for _ in range(200)]

    assert np.mean(np.array(lows, dtype=float) > 1) >= 0.8


def test_too_many_controls_that_miss_one_are_odd():
    """One of twenty is what 95 % means; eight of twenty is not."""
    assert odd(19, 20) > 0.5
    assert odd(12, 20) < 0.001
