"""Packed weights: the same numbers in another layout, the fastest of those measured; and what cannot be packed is refused."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from optimized import packing, tuned
from optimized.initialisation import initialise
from optimized.multi_head import linear, project
from optimized.packed import InnerProduct, Packed, can_pack
from optimized.packing import LAYOUTS, choices, pack
from optimized.parameters import MultiHeadParameters, SelfAttentionParameters, map_tensors, tensors
from optimized.training import trainable

SMALL = initialise(0, vocab=11, d_model=8, d_ff=6, layers=1, tied=True)

BLOCKS = ("inner_product", "convolution")
needs_blocks = pytest.mark.skipif(not can_pack(torch.float32), reason="this torch has no oneDNN")


def whole_numbers(*shape, seed=0):
    """Small whole numbers in float32, of which every sum is exact in any order."""
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(seed)).float()


def in_blocks(X, b=None):
    """A product of X with a packed matrix of two rows and two columns."""
    return linear(X, InnerProduct(whole_numbers(2, 2), 1), b)


@pytest.mark.parametrize("layout", [layout for tier in packing.OF_TIER[False].values() for layout in tier])
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (3, 7), (64, 33)], ids=str)
@pytest.mark.parametrize("rows", [0, 1, 2, 17])
@pytest.mark.parametrize("biased", ["no bias", "bias", "every second of a bias"])
def test_a_product_with_whole_numbers_is_the_same_bit_for_bit(layout, shape, rows, biased):
    """In every layout, for more and fewer rows than were said, with inputs that are not contiguous and a bias that is not."""
    if layout in BLOCKS and not can_pack(torch.float32):
        pytest.skip("this torch has no oneDNN")
    if layout == "panels" and tuned.missing():
        pytest.skip(tuned.missing())
    W, X = whole_numbers(*shape), whole_numbers(2, rows, 2 * shape[0], seed=1)[..., ::2]
    b = {"no bias": None, "bias": whole_numbers(shape[1]), "every second of a bias": whole_numbers(2 * shape[1])[::2]}[biased]

    found = linear(X, pack(W, rows=4, layout=layout), b)

    assert torch.equal(found, X @ W + (0 if b is None else b))


@needs_blocks
def test_every_matrix_of_a_product_is_packed_and_nothing_else():
    """Embeddings are looked up, gains and biases added: these stay tensors. A tied table is packed beside itself."""
    packed = pack(SMALL, rows=2, layout="convolution")

    layer = packed.decoder[0]
    within, across = layer.self_attention, layer.cross_attention
    heads = [within.W_QKV, within.W_O, *(getattr(across, f"W_{k}") for k in "QKVO"), packed.encoder[0].self_attention.W_QKV]
    assert all(isinstance(W, Packed) for W in (*heads, layer.feed_forward.W_1, layer.feed_forward.W_2, packed.W_out))
    assert packed.target_embedding is SMALL.target_embedding
    assert layer.norm_1.gain is SMALL.decoder[0].norm_1.gain
    assert packed.W_out.shape == (8, 11)


def test_rows_and_source_rows_reach_the_products_they_are_said_of(monkeypatch):
    """The encoder, and the keys and values of cross-attention, have the source's rows; all others the target's."""
    monkeypatch.setattr(packing, "_seconds", lambda *_: {"given": 1.0})
    monkeypatch.setattr(packing, "_measured", {})
    layer, whole = ({(each.rows, each.shape) for each in choices(part, 3, 5)} for part in (SMALL.decoder[0], SMALL))

    assert layer == {(3, (8, 24)), (3, (8, 8)), (3, (8, 6)), (3, (6, 8)), (5, (8, 8))}
    assert whole == layer | {(5, (8, 24)), (5, (8, 6)), (5, (6, 8)), (3, (8, 11))}


@pytest.mark.parametrize("one", [2.9, 3.1])
@pytest.mark.parametrize("biases", ["QKV", "QV", ""])
def test_projections_of_self_attention_are_one_matrix_where_that_is_faster(one, biases, monkeypatch):
    """Three products of a second each, or one: the quicker is taken, and whatever is taken projects alike, bit for bit."""
    monkeypatch.setattr(packing, "_seconds", lambda weights, *_: {"given": one if weights[0].shape[1] == 20 else 1.0})
    monkeypatch.setattr(packing, "_measured", {})
    widths = {"Q": 8, "K": 8, "V": 4}
    matrices = {f"W_{k}": whole_numbers(8, width, seed=ord(k)) for k, width in widths.items()}
    vectors = {f"b_{k}": whole_numbers(widths[k], seed=ord(k)) for k in biases}
    heads = MultiHeadParameters(W_O=whole_numbers(4, 8), **matrices, **vectors)
    layer, X = replace(SMALL.encoder[0], self_attention=heads), whole_numbers(2, 3, 8)

    packed = pack(layer, rows=6).self_attention

    assert isinstance(packed, SelfAttentionParameters if one < 3 else MultiHeadParameters)
    (Q, (K, V)), (found_Q, (found_K, found_V)) = project(X, heads, 2), project(X, packed, 2)
    assert torch.equal(found_Q, Q)
    assert torch.equal(found_K, K)
    assert torch.equal(found_V, V)


def test_the_layout_that_takes_the_least_time_is_chosen_and_said(monkeypatch):
    """Measured once for a shape and a number of rows; not worth less than a twentieth."""
    asked, times = [], {"given": 3.0, "columns": 1.0, "convolution": 2.0}
    monkeypatch.setattr(packing, "_seconds", lambda weights, rows, _: asked.append((len(weights), rows)) or times)
    monkeypatch.setattr(packing, "_measured", {})
    W = whole_numbers(13, 9)

    (first,), (again,) = choices(W, rows=3), choices(W, rows=3)
    times.update(given=1.04)
    (little,) = choices(W, rows=4)

    assert first == again
    assert asked == [(1, 3), (1, 4)]
    assert str(first).startswith("3x13x9 float32, ")
    assert str(first).endswith(": columns (3.00 times as fast)")
    assert pack(W, rows=3).mT.is_contiguous()
    assert little.layout == "given"
    assert pack(W, rows=4) is W


@needs_blocks
def test_what_is_measured_are_products_of_all_layouts_of_a_tier():
    """Those that the matrix is in already are left out; all others have a time."""
    plain = packing._layouts("plain", {torch.float32})
    measured = partial(packing._seconds, rows=2, layouts=plain)

    assert set(plain) == LAYOUTS.keys() - {"panels", "int8", "int8_panels"}
    assert packing._layouts("plain", {torch.float32}, int8=True) == ("int8",)
    assert measured([whole_numbers(5, 3)]).keys() == {"given", "columns", *BLOCKS}
    assert measured([whole_numbers(3, 5).mT]).keys() == {"given", "rows", *BLOCKS}
    assert measured([whole_numbers(5, 3).double()]).keys() == {"given", "columns"}


@needs_blocks
@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: pack(trainable(SMALL), rows=1), "W: expected one that requires no gradient .* got one that does"),
        (
            lambda: pack(map_tensors(torch.Tensor.double, SMALL), rows=1),
            "expected all in float32, bfloat16 or float16, got torch.float64",
        ),
        (lambda: pack(replace(SMALL, b_out=SMALL.b_out.half()), rows=1), "got torch.float16, torch.float32"),
        (lambda: pack(whole_numbers(2, 2).to("meta"), rows=1), "W: expected weights on the CPU, got one on meta"),
        (lambda: pack(SMALL, rows=0), "rows: expected at least 1, got 0"),
        (lambda: pack(SMALL, rows=1, source_rows=0), "source_rows: expected at least 1, got 0"),
        (lambda: pack(SMALL, rows=1, layout="diagonals"), "layout: expected one of given, rows, .* got 'diagonals'"),
        (
            lambda: InnerProduct(whole_numbers(2, 2).double(), 1),
            "W: expected a dtype that oneDNN packs on this processor, got torch.float64",
        ),
        (lambda: in_blocks(whole_numbers(3, 2).double()), "X: expected torch.float32 on the CPU.* got torch.float64 on cpu"),
        (lambda: in_blocks(whole_numbers(3, 2).to("meta")), "X: expected torch.float32 on the CPU.* got torch.float32 on meta"),
        (lambda: in_blocks(whole_numbers(3, 5)), "X: expected 2 features, got 5"),
        (lambda: in_blocks(whole_numbers(3, 2).requires_grad_()), "X: expected one that requires no gradient"),
        (lambda: in_blocks(whole_numbers(3, 2), whole_numbers(1)), r"b: expected 2 numbers of torch.float32 .* got \(1,\)"),
        (
            lambda: in_blocks(whole_numbers(3, 2), whole_numbers(2).double()),
            "b: expected 2 numbers of torch.float32 .* torch.float64",
        ),
    ],
)
def test_what_cannot_be_packed_or_multiplied_is_refused_in_one_line(call, complaint):
    """Nothing is computed in another dtype, on another device or without its gradient."""
    with pytest.raises(ValueError, match=complaint) as caught:
        call()

    assert "\n" not in str(caught.value)


@needs_blocks
@pytest.mark.parametrize("change", [trainable, tensors, lambda packed: pack(packed, rows=1)])
def test_packed_weights_are_neither_trained_nor_packed_again(change):
    """They are no tensors any more."""
    with pytest.raises(TypeError, match="parameters: expected tensors, got a Convolution"):
        change(pack(SMALL, rows=1, layout="convolution"))
