"""What is timed, as data: a step, its sizes, and where its inputs, its flops and its least traffic come from.

Every step of the article alone; attention from 64 to 8192 tokens; the article's forward pass (one sequence of 16 tokens and 512
features, 6 + 6 layers), a batch of 32 sequences of 128 tokens, greedy writing of 64 tokens for one sequence and for 32, and one
step of training. The dictionary has 10,000 tokens.
"""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from bench import formulas
from bench import inputs as draws
from properties.inputs.parameters import Call, Nested

Sizes = dict[str, int]
ITEM = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
VARIANTS = 2  # of the inputs; timed calls go round them


@dataclass(frozen=True)
class Kind:
    """What all workloads of one step have in common."""

    step: str  # of properties.steps, or "training"
    claim: str  # that a wrong output breaks
    flops: formulas.Formula
    elements: formulas.Formula
    inputs: Callable[[draws.Draw, Sizes], tuple[Any, ...]]
    weights: Callable[[draws.Draw, Sizes], Nested] = draws.none


_KINDS = (
    Kind("embedding", "E2", formulas.no_products, formulas.embedding_elements, draws.target_words, draws.table),
    Kind("positional_encoding", "PE1", formulas.no_products, formulas.positional_encoding_elements, draws.places),
    Kind("attention", "A6", formulas.attention_flops, formulas.attention_elements, draws.queries_keys_values),
    Kind("softmax", "A5", formulas.no_products, formulas.softmax_elements, draws.scores),
    Kind("mask", "M1", formulas.no_products, formulas.mask_elements, draws.lengths),
    Kind(
        "multi_head",
        "H3",
        formulas.multi_head_flops,
        formulas.multi_head_elements,
        draws.features_and_memory,
        draws.multi_head,
    ),
    Kind("residual_norm", "R1", formulas.no_products, formulas.residual_norm_elements, draws.features_twice, draws.norm),
    Kind("feed_forward", "F1", formulas.feed_forward_flops, formulas.feed_forward_elements, draws.features, draws.feed_forward),
    Kind(
        "encoder_layer",
        "L1",
        formulas.encoder_layer_flops,
        formulas.encoder_layer_elements,
        draws.features,
        draws.encoder_layer,
    ),
    Kind(
        "decoder_layer",
        "L3",
        formulas.decoder_layer_flops,
        formulas.decoder_layer_elements,
        draws.features_and_memory,
        draws.decoder_layer,
    ),
    Kind(
        "output_projection",
        "O1",
        formulas.output_projection_flops,
        formulas.output_projection_elements,
        draws.features,
        draws.output_matrix,
    ),
    Kind(
        "transformer",
        "T1",
        formulas.transformer_flops,
        formulas.transformer_elements,
        draws.source_and_target_words,
        draws.model,
    ),
    Kind("generation", "G1", formulas.generation_flops, formulas.generation_elements, draws.source_words, draws.writing_model),
    Kind("training", "T1", formulas.training_flops, formulas.training_elements, draws.source_and_target_words, draws.model),
)
KINDS = {kind.step: kind for kind in _KINDS}


@dataclass(frozen=True)
class Workload:
    """One thing to time. Its name is `family.variant`."""

    name: str
    step: str
    sizes: Sizes
    axis: str = ""  # the size that grows along the family, if it is made for growth

    @property
    def family(self) -> str:
        """The part of the name that workloads of one kind share."""
        return self.name.partition(".")[0]

    @property
    def kind(self) -> Kind:
        """Formulas and draws."""
        return KINDS[self.step]

    @property
    def flops(self) -> float:
        """Of one call."""
        return float(self.kind.flops(self.sizes))

    def bytes(self, dtype: str) -> float:
        """The least traffic of one call."""
        return float(self.kind.elements(self.sizes)) * (1 if self.step == "mask" else ITEM[dtype])

    @property
    def tokens(self) -> int | None:
        """The tokens one call works on, where tokens are what counts."""
        if self.step == "generation":
            return self.sizes["b"] * self.sizes["length"]
        return self.sizes["b"] * self.sizes["n"] if self.step in {"transformer", "training"} else None

    def calls(self, seed: int) -> list[Call]:
        """The arguments of the oracle's calls, float64; variants that share their weights."""
        return draws.variants(self.kind.weights, self.kind.inputs, self.sizes, seed, VARIANTS)


# Those of the suite ---------------------------------------------------------------------------------------------------

PAPER = {"h": 8, "d_model": 512, "d_ff": 2048, "layers": 6, "vocab": 10_000}
WORDS = {**PAPER, "b": 8, "n": 64, "m": 64}  # for a step alone: long enough to fill a core, short enough for the oracle

_ALONE = (
    Workload("embedding.8x64", "embedding", WORDS),
    Workload("positional_encoding.512", "positional_encoding", {"n": 512, "d_model": 512}),
    Workload("mask.512", "mask", {"n": 512, "m": 512}),
    Workload("softmax.8x8x64", "softmax", WORDS),
    Workload("multi_head.8x64", "multi_head", WORDS),
    Workload("residual_norm.8x64", "residual_norm", WORDS),
    Workload("feed_forward.8x64", "feed_forward", WORDS),
    Workload("encoder.8x64", "encoder_layer", WORDS),
    Workload("decoder.8x64", "decoder_layer", WORDS),
    Workload("output_projection.1x64", "output_projection", {**WORDS, "b": 1}),
)
_ATTENTION = tuple(Workload(f"attention.{n}", "attention", {"b": 1, "h": 8, "n": n, "m": n, "d_k": 64}, axis="n") for n in LENGTHS)
_WHOLE = (
    Workload("transformer.article", "transformer", {**PAPER, "b": 1, "n": 16, "m": 16}),
    Workload("transformer.batch", "transformer", {**PAPER, "b": 32, "n": 128, "m": 128}),
    Workload("generation.1", "generation", {**PAPER, "b": 1, "m": 16, "length": 64}),
    Workload("generation.32", "generation", {**PAPER, "b": 32, "m": 64, "length": 64}),
    Workload("training.16x64", "training", {**PAPER, "b": 16, "n": 64, "m": 64}),
)
WORKLOADS: dict[str, Workload] = {workload.name: workload for workload in (*_ALONE, *_ATTENTION, *_WHOLE)}

SETS: dict[str, tuple[str, ...]] = {
    "steps": tuple(workload.name for workload in _ALONE),
    "short": (
        "softmax.8x8x64",
        "multi_head.8x64",
        "residual_norm.8x64",
        "feed_forward.8x64",
        "encoder.8x64",
        "decoder.8x64",
        *(f"attention.{n}" for n in LENGTHS if n <= 2048),
        "transformer.article",
    ),
    "whole": tuple(workload.name for workload in _WHOLE),
    "full": tuple(WORKLOADS),
}


def named(name: str) -> Workload:
    """The workload of that name; `name@n=16+b=2` is the same at other sizes.

    Raises ValueError for one that is not known, a size it does not have, or one that is not positive.
    """
    base, _, changes = name.partition("@")
    if base not in WORKLOADS:
        raise ValueError(f"--workloads: no workload, family or set called {base!r}; did you mean {_close(base)}?")
    workload = WORKLOADS[base]
    sizes: dict[str, str] = {}
    for change in filter(None, changes.split("+")):
        size, _, value = change.partition("=")
        sizes[size] = value
        if size not in workload.sizes or not value.isdecimal() or int(value) < 1:
            raise ValueError(f"--workloads: {base} has sizes {', '.join(workload.sizes)}, each 1 or more; got {size}={value}")
    return replace(workload, name=name, sizes={**workload.sizes, **{size: int(value) for size, value in sizes.items()}})


def select(names: Iterable[str]) -> list[Workload]:
    """The workloads of these names, families or sets, in the suite's order. Raises ValueError for a name that is none of them."""
    chosen: dict[str, Workload] = {}
    families = {workload.family for workload in WORKLOADS.values()}
    for name in names:
        if name in families and name not in SETS:
            members = [workload.name for workload in WORKLOADS.values() if workload.family == name]
        else:
            members = SETS.get(name, (name,))
        chosen |= {member: named(member) for member in members}
    if not chosen:
        raise ValueError(f"--workloads: expected at least one of {', '.join([*SETS, *sorted(families)])}, or a name")
    order = list(WORKLOADS)
    return sorted(chosen.values(), key=lambda workload: order.index(workload.name.partition("@")[0]))


def _close(name: str) -> str:
    families = sorted({workload.family for workload in WORKLOADS.values()})
    return ", ".join(difflib.get_close_matches(name, [*SETS, *families, *WORKLOADS], n=3, cutoff=0.4) or SETS)
