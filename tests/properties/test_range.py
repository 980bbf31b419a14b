"""The calls at the ends of the range ask what every correct run answers; an undivided product is rounded, and never infinite."""

import numpy as np
import pytest

from properties.counterexample.minimise import leaves
from properties.error_budget.budgets import budget
from properties.error_budget.monte_carlo import Trials
from properties.implementations.calls import Asked
from properties.implementations.contract import DTYPES, Contract
from properties.implementations.formats import FORMATS
from properties.implementations.impl import Impl
from properties.implementations.registry import built_in
from properties.test_range import CALLS, unit


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("step", CALLS)
def test_no_correct_run_overflows_in_calls_about_the_range(step, dtype):
    """Under each contract of the envelope every component is judged; the arguments are numbers of the dtype."""
    impl = Impl(built_in("optimized"), dtype)
    calls = list(CALLS[step][1](unit(dtype)))

    assert calls
    for call in calls:
        allowed = budget(step, *call.args, dtype=dtype, **call.kwargs)
        assert not allowed.undecidable.any()
        assert np.isfinite(allowed.exact).all()
        for path, array in leaves(Asked(step, call.args, call.kwargs)):
            assert array.dtype != np.float64 or np.array_equal(impl.representable(array), array), path


def test_a_product_that_is_divided_later_is_rounded_but_never_infinite():
    """An eager float16 stores Q·Kᵀ with eleven digits, however large it is; a score that large is infinite."""
    machine = Trials([Contract("float16")], 4, seed=0)
    large = machine.given(np.array([[2.0**18 + 1.0, 2049.0]]))
    large.stored = frozenset()

    products, scores = (machine.store(name, large).shadow for name in ("products", "scores"))

    assert np.isfinite(products).all()
    assert (products != large.exact).any()
    assert np.isinf(scores[..., 0]).all()


def test_without_its_limit_float16_rounds_as_it_does():
    """The same digits and the same subnormal numbers, up to its largest number; beyond it the digits alone."""
    x = np.concatenate([np.random.default_rng(0).uniform(-65000, 65000, 1000), 2.0 ** np.arange(-30, 16), [0.0]])
    float16 = FORMATS["float16"]

    assert np.array_equal(float16.unlimited.to_nearest(x), float16.to_nearest(x))
    assert float16.unlimited.to_nearest(np.array([81921.0])) == 81920.0
    assert all(FORMATS[dtype].unlimited is FORMATS[dtype] for dtype in DTYPES if dtype != "float16")
