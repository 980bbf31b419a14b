"""Localisation: planted faults are named, correct models are not, bad intermediates are refused."""

import numpy as np
import pytest
import torch
from hugging_face_model import hugging_face_model
from torch import nn

from properties.evaluation.localization import FAULTS, Planted, found, model, weights
from properties.implementations.hugging_face_weights import architecture_of, parameters_of
from properties.implementations.impl import Impl
from properties.implementations.registry import built_in
from properties.implementations.weights import mapped, nested
from properties.localize.hooks import Intermediates, names_of, record_intermediates, torch_names
from properties.localize.localize import Case, explained, localize
from properties.localize.step_by_step import chained
from properties.localize.weight_loading import hypotheses
from reference.initialisation import initialise
from reference.parameters import Architecture
from veriformer.localization import localize as localize_model

BY_NAME = {fault.name: fault for fault in FAULTS}
AHEAD = torch.triu(torch.ones(5, 5, dtype=torch.bool), diagonal=1)


def hooked(made: nn.Transformer, seed: int = 0) -> Intermediates:
    """One sequence of random features through a model of two layers."""
    generator = torch.Generator().manual_seed(seed)
    source, target = (torch.randn(1, tokens, 64, generator=generator) for tokens in (7, 5))
    return record_intermediates(made, lambda: made(source, target, tgt_mask=AHEAD), torch_names(made))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_correct_model_of_twelve_layers_has_no_step_over_budget(dtype):
    """Errors grow over twelve layers; none of them is a step's own."""
    made = model(3, dtype)

    finding = found(made, weights(made), 3, dtype)

    assert finding
    assert str(finding).startswith("no step over budget: ")
    assert len(finding.places) > 12 * 5


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.long)])
@pytest.mark.parametrize("fault", [BY_NAME["attention scaled by √(d+1)"], BY_NAME["variance over d − 1"]], ids=lambda f: f.first)
def test_a_fault_in_one_of_six_layers_is_named(fault: Planted, dtype):
    """The first divergence is the matrix that is wrong first; what follows only inherits from it."""
    made = model(1, dtype)
    before = weights(made)
    fault.plant(made.encoder.layers[4])

    finding = found(made, before, 1, dtype)

    assert finding.culprit is not None
    assert finding.culprit.name == f"encoder.4.{fault.first}"
    assert [place.name for place in finding.places if place.is_over] == [finding.culprit.name]


def test_what_is_inherited_is_not_an_own_error():
    """After a fault the whole error stays far over budget while the steps' own errors are within it."""
    made = model(2, torch.float32, layers=2)
    before = weights(made)
    BY_NAME["one head × 1.125"].plant(made.encoder.layers[0])
    intermediates = hooked(made)

    places = {place.name: place for place in localize(Case(before, Architecture(h=4)), intermediates).places}

    assert places["encoder.0.self_attention.output"].own.budget_used > 1
    assert places["decoder.1.feed_forward.output"].total.budget_used > 1
    assert places["decoder.1.feed_forward.output"].own.budget_used <= 1


def exchanged(layer) -> None:
    """W_Q and W_K in each other's place."""
    packed = layer.self_attn.in_proj_weight.data
    packed[:128] = torch.cat([packed[64:128], packed[:64]])


def transposed(layer) -> None:
    """W_O not turned."""
    layer.self_attn.out_proj.weight.data = layer.self_attn.out_proj.weight.data.T.contiguous()


def without_bias(layer) -> None:
    """b_2 missing."""
    layer.linear2.bias.data.zero_()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (exchanged, "W_Q and W_K of encoder.1.self_attention exchanged"),
        (transposed, "W_O of encoder.1.self_attention transposed"),
        (without_bias, "b_2 of encoder.1.feed_forward missing"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_weights_loaded_wrongly_are_recognised(wrong, told):
    """Exchanged, transposed, left out: the numbers are consistent with one of them, and it is named."""
    made = model(4, torch.float32, layers=2)
    case = Case(weights(made), Architecture(h=4))
    wrong(made.encoder.layers[1])
    intermediates = hooked(made)

    finding = explained(localize(case, intermediates), case, intermediates, hypotheses)

    assert finding.explanation == f"the numbers are consistent with {told}"


def test_few_taps_share_a_verdict():
    """With only the ends of the layers recorded, the fault is placed between two of them, and what lies between is listed."""
    made = model(5, torch.float32, layers=2)
    before = weights(made)
    BY_NAME["one head × 1.125"].plant(made.encoder.layers[1])
    intermediates = {
        name: tap
        for name, tap in hooked(made).items()
        if name.endswith(("input", "encoder.0.add_norm_2.norm", "1.add_norm_2.norm"))
    }

    finding = localize(Case(before, Architecture(h=4)), intermediates)

    assert finding.culprit is not None
    assert finding.culprit.name == "encoder.1.add_norm_2.norm"
    assert "encoder.1.self_attention.output" in finding.culprit.since
    assert "encoder.0.self_attention.output" not in finding.culprit.since


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_implementation_is_localised_by_its_single_steps(dtype):
    """The fast implementation's own steps, chained into a whole model, leave no budget; with one feature moved, it is named."""
    impl, rng = Impl(built_in("optimized"), dtype), np.random.default_rng(0)
    drawn = nested(initialise(0, vocab=11, d_model=16, d_ff=32, layers=2))
    parameters = mapped(impl.representable, drawn)
    case = Case(parameters, Architecture(h=2), *rng.integers(0, 11, (2, 6)))
    intermediates = chained(impl, case)

    assert localize(case, intermediates, dtype=dtype)

    intermediates["encoder.1.feed_forward.output"] = intermediates["encoder.1.feed_forward.output"] + np.eye(6, 16)
    culprit = localize(case, intermediates, dtype=dtype).culprit
    assert culprit is not None
    assert culprit.name == "encoder.1.feed_forward.output"


@pytest.mark.parametrize("kind", ["Marian", "Bart"])
def test_hugging_face_models_are_heard(kind):
    """BART and Marian with weights of their own: no step over budget; with one norm's eps changed, that norm is named."""
    made = hugging_face_model(kind)
    parameters, architecture = parameters_of(made), architecture_of(made)

    assert localize_model(made, parameters=parameters, architecture=architecture)

    made.model.decoder.layers[1].encoder_attn_layer_norm.eps = 0.125
    culprit = localize_model(made, parameters=parameters, architecture=architecture).culprit
    assert culprit is not None
    assert culprit.name == "decoder.1.add_norm_2.norm"


def test_taps_that_do_not_fit_are_refused():
    """A wrong shape, a name the oracle does not have, NaN to begin with, no input: each is said in one line."""
    made = model(6, torch.float32, layers=1)
    case, intermediates = Case(weights(made), Architecture(h=4)), hooked(made)
    norm = "encoder.0.add_norm_1.norm"
    for wrong, complaint in (
        (intermediates | {norm: intermediates[norm][:-1]}, r"expected shape \(7, 64\), got \(6, 64\)"),
        (intermediates | {"encoder.0.attn": intermediates[norm]}, "the oracle has no matrix encoder.0.attn"),
        (intermediates | {"source.input": np.full((7, 64), np.nan)}, "expected finite numbers to begin with"),
        ({norm: intermediates[norm]}, "expected source.input"),
    ):
        with pytest.raises(ValueError, match=complaint):
            localize(case, wrong)


def test_modules_that_cannot_be_heard_are_refused():
    """A model of an unknown kind, a map to a module that is not there, a call that runs none of them."""
    made = model(7, torch.float32, layers=1)
    with pytest.raises(ValueError, match=r"is no nn\.Transformer"):
        names_of(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="has no such module"):
        record_intermediates(made, lambda: None, {"encoder.0.self_attention.output": "encoder.layers.9"})
    with pytest.raises(ValueError, match="nothing was recorded"):
        record_intermediates(made, lambda: None, torch_names(made))
