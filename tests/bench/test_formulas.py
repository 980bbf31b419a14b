"""Flops and traffic of the workloads: against torch's own counter, and against the arrays there really are."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.peers.table import peer
from bench.workloads import SETS, STEPS, Workload, named, select
from properties.implementations.oracle import ORACLES, oracle
from properties.test_transformer import named as arrays_of

SMALL = {"b": 2, "n": 6, "m": 5, "h": 2, "d_model": 8, "d_ff": 12, "d_k": 4, "layers": 2, "vocab": 11, "length": 3}
WITH_PRODUCTS = sorted(step for step in STEPS if STEPS[step].flops(SMALL) > 0 and step != "generation")


def counted(workload: Workload) -> int:
    """What torch's counter sees when the plain modules run, operator by operator."""
    calls = workload.calls(seed=0)
    with torch.no_grad():
        built = peer("torch.eager").build(workload, calls, "float32", "cpu")
        with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            built.call(*built.arguments[0])
    return counter.get_total_flops()


@pytest.mark.parametrize("step", WITH_PRODUCTS)
def test_flops_are_those_that_torch_counts(step):
    """2 n m k for every product, of every step, of both directions in training."""
    workload = Workload(step, step, SMALL)

    assert workload.flops == counted(workload)


def test_generation_costs_a_row_for_every_token():
    """With one token to generate: the encoder, the memory's keys and values, and a target of one token."""
    one = {**SMALL, "length": 1}
    writing = Workload("generation", "generation", one).flops

    assert writing == Workload("transformer", "transformer", {**SMALL, "n": 1}).flops


def sizes_of(value) -> int:
    """All numbers in nested arrays."""
    if isinstance(value, dict):
        return sum(map(sizes_of, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(sizes_of, value))
    return value.size if isinstance(value, np.ndarray) else 0


@pytest.mark.parametrize("step", sorted(set(STEPS) - {"embedding", "transformer", "generation", "training"}))
def test_traffic_is_every_number_in_and_out_once(step):
    """Inputs, weights and the result."""
    workload = Workload(step, step, {**SMALL, "d_k": 4})
    call = workload.calls(seed=0)[0]

    touched = sizes_of(call.args) + sizes_of(call.kwargs) + oracle(step, *call.args, **call.kwargs).size

    assert workload.definition.elements(workload.sizes) == touched


def test_traffic_of_a_model_is_its_weights_and_the_rows_looked_up():
    """Of the two tables only the rows of the tokens at hand are read."""
    workload = Workload("transformer", "transformer", SMALL)
    call = workload.calls(seed=0)[0]
    tables = sum(call.kwargs["parameters"][f"{side}_embedding"].size for side in ("source", "target"))
    looked_up = sum(tokens.size for tokens in call.args) * SMALL["d_model"]

    touched = (
        sizes_of(call.args) + sizes_of(call.kwargs) - tables + looked_up + oracle("transformer", *call.args, **call.kwargs).size
    )

    assert workload.definition.elements(workload.sizes) == touched


@pytest.mark.parametrize("step", sorted(STEPS))
def test_inputs_are_the_same_numbers_in_every_dtype(step):
    """A seed gives the same calls again; every number survives bfloat16; variants differ in inputs and share their weights."""
    workload = Workload(step, step, SMALL)
    first, second = workload.calls(seed=3)
    again, _ = workload.calls(seed=3)

    for one, other in zip(first.args, again.args, strict=True):
        assert np.array_equal(one, other)
    for name, one in arrays_of([list(first.args), first.kwargs]).items():
        if one.dtype == np.float64 and one.ndim:  # eps is a number, not an input
            exact = torch.from_numpy(one)
            assert torch.equal(exact.to(torch.bfloat16).double(), exact), name
    assert first.kwargs is second.kwargs
    assert step in ("mask", "positional_encoding") or not np.array_equal(first.args[0], second.args[0])


def test_greedy_generation_does_not_repeat_one_token_for_ever():
    """Nor does it end before the length asked for."""
    workload = named("generation.1@d_model=64+d_ff=64+layers=2+vocab=100+length=24+m=8")
    call = workload.calls(seed=0)[0]

    tokens = oracle("generation", *call.args, **call.kwargs)[0]

    assert len(set(tokens.tolist())) > 4
    assert call.kwargs["eos"] not in tokens


def test_workloads_are_chosen_by_name_family_or_set():
    """In the suite's order, each once; sizes may be changed."""
    assert [workload.name for workload in select(["attention.128", "attention.64"])] == ["attention.64", "attention.128"]
    assert len(select(["attention"])) == 8
    assert len(select(["full", "short"])) == len(SETS["full"])
    assert named("attention.64@n=16").sizes == {"b": 1, "h": 8, "n": 16, "m": 64, "d_k": 64}


@pytest.mark.parametrize("name", ["atention", "attention.63", "attention.64@q=3", "attention.64@n=0", "attention.64@n=x", ""])
def test_a_workload_that_does_not_exist_is_refused(name):
    """With the option's name and what is near."""
    with pytest.raises(ValueError, match="--workloads"):
        select([name])


def test_every_step_has_an_oracle_but_training():
    """What is timed can be judged."""
    assert set(STEPS) - set(ORACLES) == {"training"}
