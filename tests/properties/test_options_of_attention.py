"""Options of attention: how an implementation offers them, what a covering array asks, conventions, and small counterexamples."""

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
import torch

from properties.assertions import assert_rounding_only
from properties.counterexample.find import fault, smallest
from properties.counterexample.minimise import minimised
from properties.counterexample.write import as_data, from_data
from properties.evaluation.correct.attention_with_options import attention
from properties.implementations.calls import Asked
from properties.implementations.conventions import OURS, Conventions, visible
from properties.implementations.impl import Impl
from properties.inputs.attention_options import AROUND, LEVELS, composed, covering
from properties.steps import COMPANIONS, OPTIONS, offered_options
from properties.verdict.judge import run_property
from properties.verdict.listing import property_named
from reports.records import Verdict
from veriformer.isolation.in_process import InProcess
from veriformer.isolation.proxy import ImplementationProxy, TargetError
from veriformer.isolation.worker import TargetRefused

EVERY = frozenset(OPTIONS["attention"])

TARGETS = """
import torch

def attention(Q, K, V, mask=None, *, causal=False, window=None):
    assert window is None or isinstance(window, tuple), window
    assert causal or window, "asked for without an option"
    return torch.zeros(*Q.shape[:-1], V.shape[-1], dtype=Q.dtype)

class Named:
    options = ("grouped_heads", "sinks")

    def attention(self, Q, K, V, mask=None, *, scale=None):
        return Q

class Packed:
    def attention(self, Q, K, V, mask=None, *, causal=False):
        return Q

    def packed_attention(self, Q, K, V, *, cu_seqlens_q, cu_seqlens_k):
        assert len(cu_seqlens_q) == len(cu_seqlens_k)
        output = Q.new_zeros(*Q.shape[:2], V.shape[-1])
        for r in range(len(cu_seqlens_q) - 1):
            q, k, v = (
                X[int(at[r]) : int(at[r + 1])].transpose(0, 1)
                for X, at in ((Q, cu_seqlens_q), (K, cu_seqlens_k), (V, cu_seqlens_k))
            )
            if q.shape[1] and k.shape[1]:
                scores = q @ k.mT / q.shape[-1] ** 0.5
                output[int(cu_seqlens_q[r]) : int(cu_seqlens_q[r + 1])] = (torch.softmax(scores, -1) @ v).transpose(0, 1)
        return output

class Unknown:
    options = ("sink",)
    attention = staticmethod(attention)
"""


class Ours:
    """The correct attention with options, of other conventions where asked for."""

    name, arrays, dtypes, steps, options = "ours", "torch", ("float32",), frozenset({"attention"}), EVERY

    def __init__(self, conventions: Conventions | None = None, wrong: str = "") -> None:
        self.conventions, self._wrong = conventions or OURS, wrong

    def attention(self, Q: torch.Tensor, K: torch.Tensor, V: torch.Tensor, mask: torch.Tensor | None = None, **options):
        """As declared: causal from the other corner, NaN or the mean for a fully masked row; or without one option."""
        options.pop(self._wrong, None)
        if self._wrong == "dropout_mask":
            options.pop("dropout_p", None)
        n, m, said = Q.shape[2], K.shape[2], self.conventions
        if said.causal_alignment == "bottom_right":  # queries that nobody asked for stand in front of, or behind, the others
            more = m - n
            Q = torch.cat([Q[:, :, :1].expand(-1, -1, more, -1), Q], dim=2) if more > 0 else Q
            if more < 0:
                return self._from_the_end(Q, K, V, mask, options)
            mask = None if mask is None else torch.broadcast_to(mask, (Q.shape[0], Q.shape[1], n, m))
            mask = None if mask is None else torch.cat([torch.ones_like(mask[:, :, :1]).expand(-1, -1, more, -1), mask], dim=2)
            if (bias := options.get("bias")) is not None:
                bias = torch.broadcast_to(bias, (Q.shape[0], Q.shape[1], n, m))
                options["bias"] = torch.cat([torch.zeros_like(bias[:, :, :1]).expand(-1, -1, more, -1), bias], dim=2)
            if (kept := options.get("dropout_mask")) is not None:
                options["dropout_mask"] = torch.cat([torch.ones_like(kept[:, :, :1]).expand(-1, -1, more, -1), kept], dim=2)
            return attention(Q, K, V, mask, **options)[:, :, more:]
        answer = attention(Q, K, V, mask, **options)
        if said.fully_masked_row == "zeros":
            return answer
        arrays = [None if X is None else X.double().numpy() for X in (Q, K, V, mask if mask is None else mask.double())]
        arrays[3] = None if arrays[3] is None else arrays[3] > 0
        given = {name: value.double().numpy() if isinstance(value, torch.Tensor) else value for name, value in options.items()}
        none_seen = ~torch.from_numpy(visible(tuple(arrays), given, said).any(axis=-1, keepdims=True)) & ("sinks" not in options)
        weights = torch.full((*Q.shape[:3], V.shape[2]), 1 / V.shape[2], dtype=V.dtype)
        if "dropout_mask" in options:
            weights = weights * options["dropout_mask"] / (1 - options["dropout_p"])
        mean = weights @ V.repeat_interleave(Q.shape[1] // V.shape[1], 1)
        instead = torch.nan if said.fully_masked_row == "nan" else mean
        return torch.where(none_seen, instead, answer)

    @staticmethod
    def _from_the_end(*_: object) -> torch.Tensor:
        raise NotImplementedError("more queries than keys")


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A user's file, in the current folder."""
    (tmp_path / "kernels.py").write_text(TARGETS)
    monkeypatch.chdir(tmp_path)
    return "kernels.py"


def test_options_are_read_from_the_signature(file):
    """Those that are parameters; and none is handed over that is not asked for, a window as a tuple."""
    with ImplementationProxy(f"{file}:attention") as proxy:
        impl, X = Impl(proxy, "float32").under(OURS), np.ones((1, 1, 2, 1))

        assert proxy.options == {"causal", "window"}
        assert impl.offers("attention", "attention.causal")
        assert not impl.offers("attention.scale")
        assert not impl.attention(X, X, X, window=(1, None)).any()


def test_options_are_read_from_a_class(file):
    """What its method takes, and what it names."""
    with ImplementationProxy(f"{file}:Named") as proxy:
        assert proxy.options == {"scale", "grouped_heads", "sinks"}


def test_causal_of_packed_attention_is_an_option_of_its_own(file):
    """Who has none is not asked for it, though its attention has one, and is held to everything else."""
    with ImplementationProxy(f"{file}:Packed") as proxy:
        impl = Impl(proxy, "float32")
        names = ("test_packed_attention_agrees_with_the_oracle", "test_each_packed_sequence_is_attention_by_itself")
        causal = run_property(property_named("test_packed_causal_attention_sees_nothing_that_comes_later"), impl, seed=0)

        assert proxy.options == {"causal"}
        assert [run_property(property_named(name), impl, seed=0, examples=20).verdict for name in names] == [Verdict.PASS] * 2
        assert (causal.verdict, causal.message) == (
            Verdict.UNSUPPORTED,
            "does not offer packed_attention, packed_attention.causal",
        )


def test_an_option_of_another_step_is_named_with_it():
    """Of a function that takes anything by name."""
    assert offered_options({"packed_attention": ("causal",)}) == {"packed_attention.causal"}
    assert offered_options({"attention": ("kwargs",)}, ("packed_attention.causal",)) == {"packed_attention.causal"}


def test_an_unknown_option_is_refused(file):
    """In one line that says which there are."""
    with pytest.raises(TargetError, match=r"kernels.py:Unknown: options: expected some of causal, .*, got 'sink'"):
        ImplementationProxy(f"{file}:Unknown")
    with pytest.raises(ValueError, match="got 'sink'"):
        offered_options({}, ("sink",))


def test_options_of_a_function_at_hand():
    """A function that runs in this process offers those of its signature too, and those of its attribute."""

    def mine(Q, K, V, mask=None, *, bias=None):
        return Q

    mine.options = ("grouped_heads",)

    assert InProcess("mine", mine, "attention", None).options == {"bias", "grouped_heads"}
    mine.options = ("sink",)
    with pytest.raises(TargetRefused, match="got 'sink'"):
        InProcess("mine", mine, "attention", None)


@pytest.mark.parametrize(("offered", "rows"), [(EVERY, 14), (frozenset({"causal", "scale", "bias", "grouped_heads"}), 8)])
def test_a_covering_array_has_every_pair(offered, rows):
    """Fourteen rows for all options, mask and lengths, where every combination would be 4608."""
    levels = {name: values for name, values in (LEVELS | AROUND).items() if name in {*offered, *AROUND}}
    found = covering(offered)

    assert len(found) == rows
    for one, other in combinations(levels, 2):
        assert {(row[one], row[other]) for row in found} == set(product(levels[one], levels[other]))


@pytest.mark.parametrize(
    "conventions",
    [replace(OURS, causal_alignment="bottom_right"), replace(OURS, fully_masked_row="nan"), replace(OURS, fully_masked_row="mean")],
    ids=["bottom_right", "nan", "mean"],
)
def test_options_follow_conventions(conventions):
    """The oracle is asked what an implementation of other conventions answers, for every pair of options."""
    impl = Impl(Ours(conventions), "float32")
    for seed, row in enumerate(covering()):
        if row["lengths"] == "n > m" and conventions.causal_alignment == "bottom_right":
            continue
        call = composed(row, seed)

        assert_rounding_only(impl, "attention", impl.attention(*call.args, **call.kwargs), *call.args, **call.kwargs)


@pytest.mark.parametrize("option", ["causal", "window", "slopes"])
def test_alignment_is_found_by_an_option(option):
    """Without a step `mask`, from the options that ask where the first query stands."""
    for alignment in ("top_left", "bottom_right"):
        adapter = Ours(replace(OURS, causal_alignment=alignment))
        adapter.options = frozenset({option})
        impl = Impl(adapter, "float32")
        adapter.conventions, said = replace(adapter.conventions, causal_alignment=None), adapter.conventions
        adapter.attention = Ours(said).attention

        assert impl.conventions.causal_alignment == alignment


@pytest.mark.parametrize("option", ["causal", "scale", "bias", "window", "softcap", "sinks", "slopes", "dropout_mask"])
def test_a_counterexample_keeps_the_option_it_is_about_alone(option):
    """Of a call with all options what is left is small, and has the one that has no effect."""
    impl = Impl(Ours(wrong=option), "float32")
    row = {name: values[-1] for name, values in LEVELS.items()} | {"mask": True, "lengths": "n = m"}
    asked = next(found for seed in range(99) if fault(impl, [found := Asked("attention", *composed(row, seed))]))

    found = smallest(impl, "X9", "test", [asked])

    assert found is not None
    assert set(found.calls[0].kwargs) - COMPANIONS.keys() == {option}
    assert found.calls[0].args[3] is None
    assert found.calls[0].args[0].shape[1] == 1
    assert found.numbers <= 8
    assert from_data(as_data(found.calls[0].kwargs)).keys() == found.calls[0].kwargs.keys()


def test_key_heads_are_dropped_together_with_those_that_read_them():
    """Of six heads in two groups one group of one head is left, where any head shows the fault."""
    rng = np.random.default_rng(0)
    asked = Asked("attention", tuple(rng.integers(1, 5, (1, h, 3, 2)) / 1.0 for h in (6, 2, 2)), {"sinks": np.ones(6)})

    small = minimised(
        asked, lambda call: bool(call.args[0].size and call.args[1].size and not call.args[0].shape[1] % call.args[1].shape[1])
    )

    assert [X.shape for X in small.args] == [(1, 1, 1, 1)] * 3
    assert not small.kwargs
