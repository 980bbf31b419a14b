"""Localisation of gradients: planted faults of one layer's backward are named, correct models are not, other models are refused."""

import numpy as np
import pytest
import torch
from hugging_face_model import hugging_face_model
from torch import nn

from properties.evaluation.backward_localization import FAULTS, first, found
from properties.evaluation.localization import model
from properties.implementations.weights import as_float64, from_torch, mapped
from properties.localize.backward import Recorded, localize_backward, steps
from properties.localize.hooks import record_gradients, torch_names
from reference.parameters import Architecture
from veriformer.localization import localize

SAMPLE = tuple(fault for fault in FAULTS if fault.first in ("feed_forward.hidden", "add_norm_2.residual", "input", "memory"))


def small(seed: int = 0) -> nn.Transformer:
    """Two layers a side."""
    return model(seed, torch.float32, layers=2)


def test_a_correct_model_has_no_gradient_over_budget():
    """Of every matrix and of every weight there is one that is judged."""
    made = small()

    finding = found(made, 0)

    assert finding
    assert str(finding).startswith("no step over budget: ")
    assert "gradients judged" in str(finding)
    names = {place.name for place in finding.places}
    assert {f"gradient of {name}" for name in ("source.input", "target.input", "encoder.final_norm", "decoder_norm.gain")} <= names
    weights = sum(parameter.ndim > 0 for _, parameter in made.named_parameters())
    assert len(names) >= weights  # in_proj is three


@pytest.mark.parametrize("fault", SAMPLE, ids=lambda fault: fault.name)
def test_a_fault_of_one_backward_is_named(fault):
    """And no gradient but its own is over budget: what comes after it only inherits."""
    made = small(1)
    stack = fault.stacks[-1]
    fault.plant(getattr(made, stack).layers[1])

    finding = found(made, 1)

    assert finding.culprit is not None
    assert finding.culprit.name == first(fault, stack, 1)
    assert sum(place.is_over for place in finding.places) == 1


def test_pre_norm_gradients_are_judged_too():
    """A norm before the sublayer, and the residual connection around both."""
    torch.manual_seed(2)
    made = nn.Transformer(16, 2, 2, 2, 32, dropout=0.0, batch_first=True, norm_first=True).eval()

    finding = localize(made, backward=True)

    assert finding
    assert {"gradient of encoder.1.add_norm_2.norm", "gradient of encoder.0.add_norm_2.residual"} <= {
        place.name for place in finding.places
    }


@pytest.mark.parametrize("kind", ["Marian", "Bart"])
def test_hugging_face_models_are_differentiated(kind):
    """Their matrices are judged; with one sublayer's gradient halved, what it reads is named."""
    made = hugging_face_model(kind)

    assert localize(made, backward=True)

    made.model.decoder.layers[1].fc2.register_full_backward_hook(lambda _, given, __: (given[0] / 2,))
    culprit = localize(made, backward=True).culprit
    assert culprit is not None
    assert culprit.name == "gradient of decoder.1.feed_forward.hidden"


def test_what_cannot_be_differentiated_is_refused():
    """No gradient, a batch of several sequences, nothing that was recorded: each is said in one line."""
    made = small(3)
    source, target = torch.randn(2, 5, 64), torch.randn(2, 4, 64)
    with pytest.raises(ValueError, match="expected a batch of one sequence, got 2"):
        localize(made, source, target, backward=True)
    with pytest.raises(ValueError, match="expected a result that can be differentiated"):
        record_gradients(made, lambda: made(source[:1], target[:1]).detach(), torch_names(made))
    with pytest.raises(ValueError, match="got none to judge"):
        localize_backward(Recorded({}, {}), mapped(as_float64, from_torch(made.state_dict())), Architecture(h=4))


def test_steps_without_their_values_are_left_out():
    """With the norms of one layer alone recorded, only these are judged."""
    made = small(4)
    names = {name: place for name, place in torch_names(made).items() if name.startswith("encoder.1.add_norm")}
    values, gradients = record_gradients(made, lambda: made(torch.randn(1, 5, 64), torch.randn(1, 4, 64)), names)
    parameters = mapped(as_float64, from_torch(made.state_dict()))

    finding = localize_backward(Recorded(values, gradients), parameters, Architecture(h=4))

    assert [place.name for place in finding.places] == [f"gradient of encoder.1.add_norm_{k}.residual" for k in (2, 1)]
    assert len(list(steps(parameters, Architecture(h=4)))) > 20
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
