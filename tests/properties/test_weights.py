"""Weights go from any form to any other and come back the same; what is no whole Transformer is refused in one line."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import optimized.parameters
import reference.parameters
from optimized.initialisation import initialise
from optimized.mask import causal_mask
from properties.assertions import assert_rounding_only
from properties.implementations.impl import Impl
from properties.implementations.optimized import Optimized
from properties.implementations.weights import (
    FORMAT,
    as_float64,
    flat,
    from_torch,
    load,
    mapped,
    nested,
    save,
    to_optimized,
    to_reference,
    to_torch,
)
from properties.inputs.parameters import models
from reference.initialisation import initialise as initialise_reference

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")  # torch's own, about what is of no use to it

CHOICES = optimized.parameters.Architecture(h=2, norm="pre", activation="gelu_tanh", eps=1e-3, scale_embedding=False)


def model(**changes):
    """The weights of a small model, by name."""
    return flat(initialise(1, vocab=5, source_vocab=6, d_model=4, d_ff=3, layers=2)) | changes


def assert_same(first, second):
    """The same names, and arrays of the same numbers."""
    first, second = flat(first), flat(second)
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert np.array_equal(as_float64(array), as_float64(second[name])), name


@settings(max_examples=20)
@given(models(4, 3, source_vocab=5, vocab=6, most_layers=3))
def test_dataclasses_of_either_column_and_back(parameters):
    """Nested dicts, the oracle's dataclasses, the fast one's, and back: every array as it was, absent ones absent."""
    slow = to_reference(parameters)
    fast = to_optimized(slow)

    assert isinstance(slow, reference.parameters.TransformerParameters)
    assert isinstance(fast.encoder[0].self_attention, optimized.parameters.MultiHeadParameters)
    assert_same(fast, parameters)
    assert_same(to_reference(fast), parameters)
    assert nested(to_reference(fast))["W_out"] is None or parameters["W_out"] is not None


def test_both_columns_know_the_same_fields():
    """Every dataclass of one column has a base in the other, field for field."""
    slow, fast = initialise_reference(0, vocab=3, d_model=2, d_ff=1, layers=1), initialise(0, vocab=3, d_model=2, d_ff=1, layers=1)

    assert flat(slow).keys() == flat(fast).keys()
    assert list(nested(slow)) == list(nested(fast))


def test_a_conversion_copies():
    """What is trained afterwards does not change what it was made from."""
    first = initialise(0, vocab=3, d_model=2, d_ff=1, layers=1, dtype=torch.float64)
    slow, fast = to_reference(first), to_optimized(first)
    before = first.target_embedding.clone()

    slow.target_embedding[:] = 7
    fast.target_embedding[:] = 8

    assert torch.equal(first.target_embedding, before)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(models(4, 3, source_vocab=5, vocab=6, most_layers=2), st.sampled_from(["float64", "float32", "bfloat16", "float16"]))
def test_a_file_gives_back_what_was_saved(tmp_path, parameters, dtype):
    """Every array in its dtype, every choice of the architecture, absent parts absent."""
    saved = to_optimized(parameters, getattr(torch, dtype))
    save(tmp_path / "model.safetensors", saved, CHOICES)

    loaded, choices = load(tmp_path / "model.safetensors")

    assert_same(loaded, saved)
    assert {str(array.dtype) for array in flat(loaded).values()} == {f"torch.{dtype}"}
    assert optimized.parameters.Architecture(**choices) == CHOICES


def test_the_oracle_s_own_weights_can_be_saved(tmp_path):
    """NumPy arrays are saved like tensors."""
    slow = initialise_reference(0, vocab=3, d_model=2, d_ff=1, layers=1, tied=True)
    save(tmp_path / "model.safetensors", slow, reference.parameters.Architecture(h=1))

    assert_same(load(tmp_path / "model.safetensors")[0], slow)


def written(path, tensors, **metadata):
    """A safetensors file of these tensors that says of itself what `save` would say, or something else."""
    said = {"format": FORMAT, "architecture": "{}"} | metadata
    safetensors.torch.save_file({name: torch.as_tensor(array).contiguous() for name, array in tensors.items()}, path, said)


def without(name):
    """The weights of a small model, all but one."""
    return {other: array for other, array in model().items() if other != name}


@pytest.mark.parametrize(
    ("tensors", "metadata", "complaint"),
    [
        (
            {"a": torch.zeros(1)},
            {"format": "pt"},
            "expected weights of the format 'veriformer transformer 1', got .* first tensors: a",
        ),
        ({}, {"format": "pt"}, "first tensors: none"),
        (model(), {"architecture": "no json"}, "expected the weights of one whole Transformer: Expecting value"),
        (model(), {"architecture": json.dumps({"heads": 2})}, "unexpected keyword argument 'heads'"),
        (model(), {"architecture": json.dumps({"h": 0})}, "h: expected at least one head, got 0"),
        (model(), {"architecture": json.dumps([2])}, "must be a mapping"),
        (without("target_embedding"), {}, "missing 1 required positional argument: 'target_embedding'"),
        (without("encoder.1.self_attention.W_O"), {}, "missing 1 required positional argument: 'W_O'"),
        (model(extra=torch.zeros(2)), {}, "got extra, which no Transformer here has"),
        (model(**{"encoder.7.norm_1.gain": torch.zeros(4)}), {}, "missing .* required positional arguments"),
        (model(**{"encoder.999999999.norm_1.gain": torch.zeros(4)}), {}, "layers are numbered from 0"),
        (model(**{"encoder.first.norm_1.gain": torch.zeros(4)}), {}, "layers are numbered from 0"),
        (model(**{"b_out.gain": torch.zeros(4)}), {}, "b_out is an array itself|got b_out of shape"),
        (
            model(b_out=torch.zeros(4)),
            {},
            r"got b_out of shape \(4,\), not \(vocab\) with vocab = 5",
        ),
        (model(b_out=torch.zeros(5, dtype=torch.int64)), {}, "got b_out of torch.int64, not of floating point"),
        (model(b_out=torch.zeros(5, 1)), {}, r"got b_out of shape \(5, 1\), not \(vocab\)"),
    ],
)
def test_a_foreign_file_is_refused_in_one_line(tmp_path, tensors, metadata, complaint):
    """Other tensors, other metadata, one array too few, too many or of another shape: expected and got, no traceback to read."""
    written(tmp_path / "model.safetensors", tensors, **metadata)

    with pytest.raises(ValueError, match=complaint) as caught:
        load(tmp_path / "model.safetensors")

    assert "\n" not in str(caught.value)
    assert "model.safetensors" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a pickle in a zip file, as torch.save writes it", b"\xff" * 64])
def test_a_corrupt_file_is_refused_in_one_line(tmp_path, content):
    """Empty, of another kind, or noise."""
    (tmp_path / "model.safetensors").write_bytes(content)

    with pytest.raises(ValueError, match="expected a safetensors file") as caught:
        load(tmp_path / "model.safetensors")

    assert "\n" not in str(caught.value)


def test_a_file_cut_short_is_refused_in_one_line(tmp_path):
    """Half a download is no model."""
    written(tmp_path / "model.safetensors", model())
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(ValueError, match="expected a safetensors file"):
        load(tmp_path / "model.safetensors")


# torch.nn.Transformer -------------------------------------------------------------------------------------------------


def torch_transformer(**choices):
    """A small `nn.Transformer` in float64, none of whose parameters is special (gains and biases are random too)."""
    torch.manual_seed(5)
    whole = torch.nn.Transformer(8, 2, 2, 3, 5, dropout=0.0, batch_first=True, dtype=torch.float64, **choices).eval()
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.add_(torch.randn_like(parameter) / 4)
    return whole


def outside(**more):
    """What an `nn.Transformer` lacks: embeddings and an output matrix."""
    draw = torch.Generator().manual_seed(6)
    shapes = {"source_embedding": (6, 8), "target_embedding": (7, 8), "W_out": (8, 7), "b_out": (7,)}
    return {name: torch.randn(shape, dtype=torch.float64, generator=draw) for name, shape in shapes.items()} | more


@pytest.mark.parametrize("norm_first", [False, True], ids=["post-norm", "pre-norm"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("bias", [True, False], ids=["biases", "no biases"])
def test_torch_s_transformer_with_converted_weights_agrees_with_the_oracle(norm_first, activation, bias):
    """End to end in float64: embeddings and positions outside, every layer and final norm inside `nn.Transformer`."""
    whole, parts = torch_transformer(norm_first=norm_first, activation=activation, bias=bias), outside()
    parameters = from_torch(whole.state_dict(), **parts)
    source, target = torch.tensor([[1, 5, 2, 0], [3, 3, 4, 1]]), torch.tensor([[2, 0, 6], [1, 1, 5]])
    face = Optimized()

    def put_in(tokens, table):
        return face.embedding(tokens, table=table) + face.positional_encoding(tokens.shape[1], 8, dtype=torch.float64)

    with torch.no_grad():
        X, M = put_in(target, parts["target_embedding"]), put_in(source, parts["source_embedding"])
        logits = whole(M, X, tgt_mask=~causal_mask(3)) @ parts["W_out"] + parts["b_out"]

    arguments = {
        "parameters": mapped(as_float64, parameters),
        "h": 2,
        "norm": "pre" if norm_first else "post",
        "activation": activation,
    }
    assert_rounding_only(Impl(face), "transformer", logits.numpy(), source.numpy(), target.numpy(), **arguments)


def test_a_state_dict_and_back():
    """Packed and unpacked again, every tensor is what it was; the module takes them all."""
    state = torch_transformer().state_dict()

    back = to_torch(from_torch(state, **outside()))

    assert back.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(back[name], tensor), name


def test_missing_biases_are_zeros_in_a_state_dict():
    """Attention without biases fits a module with biases: they are 0."""
    parameters = from_torch(torch_transformer(bias=False).state_dict(), **outside())

    back = to_torch(parameters)

    torch_transformer().load_state_dict(back)
    assert torch.equal(back["encoder.layers.0.self_attn.in_proj_bias"], torch.zeros(24, dtype=torch.float64))


@pytest.mark.parametrize("state", [{}, {"weight": torch.zeros(1)}, {"encoder.layers.0.norm1.weight": torch.zeros(1)}])
def test_the_state_dict_of_something_else_is_refused_in_one_line(state):
    """Named: the first tensor of an `nn.Transformer` that it lacks."""
    with pytest.raises(ValueError, match=r"expected the state dict of a torch.nn.Transformer, got one without '.*coder.layers"):
        from_torch(state)
