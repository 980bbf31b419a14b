"""The tuned tier: its product is compiled once, is exact on whole numbers at every shape, and says why where it cannot be had."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from optimized import packing, tuned
from optimized.encoder import encoder, encoder_layer
from optimized.generation import Writer
from optimized.initialisation import initialise
from optimized.multi_head import linear
from optimized.packed import Int8, Int8Panels, Panels, quantised
from optimized.packing import choices, pack
from optimized.parameters import Architecture
from optimized.transformer import transformer
from optimized.tuned.layers import Stack, stack_of

needs_compiler = pytest.mark.skipif(bool(tuned.missing()), reason=tuned.missing())
SMALL = initialise(0, vocab=11, d_model=8, d_ff=6, layers=1, tied=True)


needs_int8 = pytest.mark.skipif(torch.int8 not in tuned.dtypes(), reason="this processor has no products of int8")
DTYPES = [dtype for dtype in tuned.dtypes() if dtype.is_floating_point]


def whole_numbers(*shape, seed=0):
    """Small whole numbers in float32, of which every sum is exact in any order."""
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(seed)).float()


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [*range(1, 27), 31, 32, 33, 95, 96, 97, 193, 400])
def test_a_product_is_exact_at_every_remainder(rows, dtype):
    """Of rows in a tile and in a block, of the inner axis in a word and in a block, of columns in a panel."""
    for depth in (0, 1, 2, 7, 255, 256, 257, 513, 1030):
        columns = (rows * 7 + depth) % 97 + 1
        X, W, b = whole_numbers(rows, depth), whole_numbers(depth, columns, seed=1), whole_numbers(columns, seed=2)

        found = linear(X.to(dtype), Panels(W.to(dtype), rows), b.to(dtype))

        assert torch.equal(found, (X @ W + b).to(dtype)), (depth, columns)


@needs_compiler
@needs_int8
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 12, 13, 16, 17, 32, 33, 97])
def test_a_product_in_int8_is_exact_on_the_numbers_it_rounds_to(rows):
    """What is rounded is told by `quantised`; both layouts add up the same whole numbers."""
    for depth in (1, 3, 4, 63, 64, 65, 1030):
        columns = (rows * 7 + depth) % 97 + 1
        draw = torch.Generator().manual_seed(rows * depth)
        X, W, b = (torch.randn(*shape, generator=draw) for shape in ((rows, depth), (depth, columns), (columns,)))
        (x, of_rows), (w, of_columns) = quantised(X), quantised(W.mT)
        exact = (x.double() @ w.double().mT) * of_rows.double() * of_columns.double().mT + b

        for kind in (Int8, Int8Panels):
            torch.testing.assert_close(linear(X, kind(W, rows), b).double(), exact, rtol=1e-5, atol=1e-5)


def test_rounding_to_int8_is_off_by_half_a_step_at_most_and_keeps_what_is_not_a_number():
    """A step is a 127th of the largest number of a row; zeros stay zeros, and a row with a NaN or an infinity has a NaN."""
    X = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    X[1], X[2, 3], X[3, 7] = 0.0, float("nan"), float("inf")

    whole, scales = quantised(X)

    finite = [0, 1, 4]
    off = (whole[finite] * scales[finite] - X[finite]).abs()
    assert (off <= 0.5001 * scales[finite]).all()
    assert scales[[2, 3]].isnan().all()
    assert scales[finite].isfinite().all()


@needs_compiler
def test_not_a_number_and_infinity_stay_in_their_row_and_column():
    """The zeros that fill the last panel meet no number of the result."""
    X, W = torch.ones(3, 5), torch.ones(5, 17)
    X[1, 2], W[3, 16] = float("inf"), float("nan")

    found = linear(X, Panels(W, 3), None)

    assert torch.equal(found.isnan(), (X @ W).isnan())
    assert torch.equal(found.isinf(), (X @ W).isinf())


@needs_compiler
@pytest.mark.parametrize("dtype", tuned.dtypes())
def test_no_rows_are_no_work(dtype):
    """The operator itself is asked: a product of packed weights answers before it."""
    W, b = whole_numbers(8, 5), torch.zeros(5)
    kind, given = (Int8Panels, torch.float32) if dtype is torch.int8 else (Panels, dtype)
    packed = kind(W.to(given), 4).tensors(b.to(given))
    assert torch.ops.veriformer.linear.default(torch.empty(0, 8, dtype=given), *packed).shape == (0, 5)


@needs_compiler
def test_other_numbers_of_threads_give_the_same_bits():
    """Each number of the result is the work of one thread."""
    X, W, threads = torch.randn(37, 700), torch.randn(700, 130), torch.get_num_threads()
    packed = Panels(W, 37)
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(linear(X, packed, None))
    finally:
        torch.set_num_threads(threads)

    assert all(torch.equal(each, found[0]) for each in found)


@needs_compiler
def test_the_tuned_tier_measures_panels_beside_the_other_layouts(monkeypatch):
    """And takes them where they are fastest, and where another is little faster; the plain tier never does."""
    W, tuned_layouts = whole_numbers(5, 3), packing._layouts("tuned", {torch.float32})
    assert "panels" in packing._seconds([W], 2, tuned_layouts)

    chosen = []
    for best in ("panels", "convolution"):
        for gain in (1.4, 1.6):
            times = {"given": 3.0, "panels": 1.0 * gain, "convolution": 1.0 * gain} | {best: 1.0}
            monkeypatch.setattr(packing, "_seconds", lambda *given, t=times: {name: t[name] for name in t if name in given[2]})
            monkeypatch.setattr(packing, "_measured", {})
            chosen.append(tuple(choices(W, rows=2, tier=tier)[0].layout for tier in ("plain", "tuned")))

    assert chosen == [("convolution", "panels")] * 3 + [("convolution", "convolution")]


SOURCE, TARGET = torch.tensor([[1, 5, 2, 7], [3, 3, 9, 0]]), torch.tensor([[1, 5, 2], [3, 3, 9]])
PADDED = torch.tensor([[True, True, True, False], [True] * 4])


@needs_compiler
@pytest.mark.parametrize("rows", [slice(0, 2), slice(0, 1), slice(0, 0)], ids=["two", "one", "none"])
@pytest.mark.parametrize(
    ("architecture", "masks", "fused"),
    [
        (Architecture(h=2), {}, True),
        (Architecture(h=4), {}, True),
        (Architecture(h=2, norm="pre"), {}, False),
        (Architecture(h=2, activation="gelu"), {}, False),
        (Architecture(h=2), {"source_mask": PADDED}, True),
        (Architecture(h=2), {"source_mask": PADDED.flip(1)}, False),
    ],
    ids=["2 heads", "4 heads", "pre-norm", "gelu", "padding", "padding in front"],
)
def test_a_whole_model_in_panels_is_the_model(architecture, masks, fused, rows, monkeypatch):
    """Layer by layer in one call where they are the paper's, and step by step otherwise: within what float32 rounds."""
    masks, called = {name: mask[rows] for name, mask in masks.items()}, []
    for name in ("encoder", "decoder"):
        real = getattr(Stack, name)
        monkeypatch.setattr(Stack, name, lambda *given, f=real, n=name, **options: called.append(n) or f(*given, **options))

    found = transformer(SOURCE[rows], TARGET[rows], pack(SMALL, rows=6, layout="panels"), architecture, **masks)

    torch.testing.assert_close(found, transformer(SOURCE[rows], TARGET[rows], SMALL, architecture, **masks))
    assert called == (["encoder", "decoder"] if fused and len(found) else [])


@needs_compiler
@pytest.mark.parametrize("mask", [None, PADDED], ids=["no padding", "padding"])
def test_generation_in_panels_writes_the_same_tokens(mask):
    """One token of each sequence at a time, with a cache that grows: every score is that of the plain tier but for rounding."""
    packed, scores = pack(SMALL, rows=2, source_rows=8, layout="panels"), []
    for parameters in (SMALL, packed):
        writer = Writer(SOURCE, parameters, Architecture(h=2), mask, capacity=2)
        scores.append(torch.stack([writer.step(tokens) for tokens in TARGET.mT.repeat(3, 1)]))

    torch.testing.assert_close(scores[1], scores[0])


@needs_compiler
def test_a_cache_is_continued_with_the_layers_it_is_given():
    """Not with those of the step before, which it keeps collected."""
    scores = []
    for layout in (None, "panels"):
        models = [initialise(seed, vocab=11, d_model=8, d_ff=6, layers=1, tied=True) for seed in (0, 1)]
        first, second = models if layout is None else [pack(each, rows=2, source_rows=8, layout=layout) for each in models]
        writer = Writer(SOURCE, first, Architecture(h=2), capacity=2)
        writer.step(TARGET[:, 0])
        writer.parameters = second
        scores.append(writer.step(TARGET[:, 1]))

    torch.testing.assert_close(scores[1], scores[0])


@needs_compiler
def test_packed_layers_are_computed_with_the_architecture_they_are_given():
    """Not with that of the call before, whose stack they keep."""
    packed = pack(SMALL, rows=6, layout="panels")

    for architecture in (Architecture(h=2), Architecture(h=4), Architecture(h=2, eps=0.1)):
        found = transformer(SOURCE, TARGET, packed, architecture)
        torch.testing.assert_close(found, transformer(SOURCE, TARGET, SMALL, architecture))


@needs_compiler
def test_a_gradient_that_panels_do_not_give_is_refused_by_a_whole_layer_too():
    """As by a single product."""
    packed = pack(SMALL, rows=3, layout="panels").encoder[0]

    with pytest.raises(ValueError, match="X: expected one that requires no gradient"):
        encoder_layer(torch.ones(1, 3, 8, requires_grad=True), packed, Architecture(h=2))


@needs_compiler
@pytest.mark.parametrize(
    ("X", "h", "complaint"),
    [
        (torch.ones(1, 3, 6), 2, "X: expected 8 features, got 6"),
        (torch.ones(1, 3, 12), 2, "X: expected 8 features, got 12"),
        (torch.ones(1, 3, 8), 3, "h: expected a number of heads that divides 8 features, got 3"),
    ],
)
def test_other_features_and_heads_are_refused_by_a_whole_stack_too(X, h, complaint):
    """In the words of a single product or step; nothing is read that is not there."""
    packed = pack(SMALL, rows=3, layout="panels")

    with pytest.raises(ValueError, match=complaint):
        encoder(X, packed.encoder, Architecture(h=h))


@needs_compiler
def test_sizes_that_do_not_fit_are_refused_before_anything_is_read():
    """By the operators themselves, whoever calls them."""
    blocks, scales, b = Panels(torch.ones(8, 40), 1).tensors(None)
    product = torch.ops.veriformer.linear.default

    for X, bias in ((torch.ones(2, 200), b), (torch.ones(2, 8), torch.ones(400)), (torch.ones(2, 8), torch.ones(3))):
        with pytest.raises(RuntimeError, match="expected"):
            product(X, blocks, scales, bias)


@needs_compiler
@pytest.mark.parametrize(
    "change",
    [
        {"X": torch.ones(1, 3, 6)},
        {"X": torch.ones(1, 3, 8, dtype=torch.bfloat16)},
        {"M": torch.ones(2, 3, 8)},
        {"M": torch.ones(1, 3, 12)},
        *({"lengths": torch.tensor(lengths)} for lengths in ([0], [4], [3, 3])),
        *({"matrices": slice(0, count)} for count in (3, 22)),
        {"norms": slice(0, 5)},
        {"h": 3},
        {"d_v": 8},
    ],
    ids=", ".join,
)
def test_a_stack_that_does_not_fit_is_refused_before_anything_is_read(change):
    """X, M, the matrices, the norms and the heads of a decoder."""
    stack = stack_of(pack(SMALL, rows=3, layout="panels").decoder, Architecture(h=2))
    matrices, norms = stack.matrices_with_memory, stack.norms
    given = {"X": torch.ones(1, 3, 8), "M": torch.ones(1, 3, 8), "lengths": torch.tensor([3])}
    given |= {"matrices": slice(None), "norms": slice(None), "h": 2, "d_v": 4}

    def called(X, M, lengths, matrices_of, norms_of, h, d_v):
        return torch.ops.veriformer.decoder.default(X, M, lengths, matrices[matrices_of], norms[norms_of], h, d_v, 1e-5)

    assert called(*given.values()).shape == (1, 3, 8)
    with pytest.raises((RuntimeError, IndexError)):
        called(*(given | change).values())


@needs_compiler
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_a_number_reaches_the_scores_of_a_whole_layer(bad):
    """ReLU, LayerNorm and the attention of one query hide none."""
    packed = pack(SMALL, rows=1, layout="panels")
    X = torch.ones(1, 1, 8)
    X[0, 0, 3] = bad

    for parameters in (SMALL, packed):
        assert encoder_layer(X, parameters.encoder[0], Architecture(h=2)).isnan().all()


@pytest.mark.long
@needs_compiler
@pytest.mark.parametrize("instructions", ["DEFAULT", "AVX2", "AVX512", "AVX512 BF16 VNNI"])
def test_products_are_as_exact_with_fewer_instructions(instructions, tmp_path):
    """What is compiled for other processors, as far as this one can run it."""
    here = tuned.capability().split()
    if instructions != "DEFAULT" and not set(instructions.split()) <= {*here, *(["AVX2"] if "AVX512" in here else [])}:
        pytest.skip(f"this processor has {' '.join(here)}")
    attention = str(Path(__file__).with_name("test_tuned_attention.py"))
    program = f"""
import sys, pytest
from optimized import tuned
tuned.capability = lambda: {instructions!r}
asked = ["-k", "exact or model or generation or hidden", "-m", "not long"]
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *asked, {__file__!r}, {attention!r}]))
"""
    settings = {**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path / "kept")}
    root = Path(__file__).resolve().parents[2]

    done = subprocess.run([sys.executable, "-c", program], env=settings, cwd=root, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


@pytest.mark.long
@needs_compiler
def test_what_is_compiled_is_kept_for_the_next_process(tmp_path):
    """One file in the folder for extensions; the second process says nothing of compiling."""
    command = [sys.executable, "-c", "from optimized import tuned; tuned.load()"]
    settings = {**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path / "kept")}
    root = Path(__file__).resolve().parents[2]

    first, second = (
        subprocess.run(command, env=settings, cwd=root, capture_output=True, text=True, check=True).stderr for _ in range(2)
    )

    assert "compiling the tuned tier" in first
    assert second == ""
    (kept,) = (tmp_path / "kept").iterdir()
    assert kept.suffix == ".so"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"CXX": "no-such-compiler"}, "the tuned tier needs a C++ compiler, and no-such-compiler was not found"),
        ({"CXX": "false"}, "the tuned tier could not be compiled: "),
    ],
)
def test_without_a_compiler_the_tuned_tier_says_why_and_the_fastest_is_the_plain_one(settings, why, tmp_path):
    """One line each; nothing is left in the folder for extensions."""
    program = """
import torch
from optimized import tuned
from optimized.packing import pack
try:
    pack(torch.ones(2, 2), rows=1, tier="tuned")
except tuned.NotBuilt as error:
    assert "\\n" not in str(error)
    print(error)
assert isinstance(pack(torch.ones(2, 2), rows=1, tier="fastest"), object)
"""
    settings = {**os.environ, **settings, "TORCH_EXTENSIONS_DIR": str(tmp_path / "kept")}
    root = Path(__file__).resolve().parents[2]

    done = subprocess.run([sys.executable, "-c", program], env=settings, cwd=root, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(why)
    assert f"veriformer: the plain tier is taken: {why}" in done.stderr
    assert not list(tmp_path.rglob("*.so"))


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("veriformer verify optimized.tuned --run run", 2, ["Error: optimized.tuned: the tuned tier needs a C++ compiler"]),
        ("pytest {file} --implementation optimized.tuned", 4, ["ERROR: optimized.tuned: the tuned tier needs a C++ compiler"]),
        ("pytest {file} -q -rs --examples 2", 0, ["passed", "UNSUPPORTED: the tuned tier needs a C++ compiler, and no-such"]),
    ],
    ids=["verify", "pytest", "pytest, all that is built in"],
)
def test_a_run_without_a_compiler_says_why_and_verifies_the_others(command, code, said, tmp_path):
    """One line where the tier is named; where it is not, its checks are unsupported for that reason and nothing else is."""
    root = Path(__file__).resolve().parents[2]
    settings = {**os.environ, "CXX": "no-such", "TORCH_EXTENSIONS_DIR": str(tmp_path / "kept"), "PYTHONPATH": str(root)}
    program, *arguments = command.format(file=root / "properties" / "test_feed_forward.py").split()

    command = [sys.executable, "-P", "-m", program, *arguments]
    done = subprocess.run(command, env=settings, cwd=tmp_path, capture_output=True, text=True, check=False)

    told = done.stdout + done.stderr
    assert done.returncode == code, told
    assert all(text in told for text in said), told
    assert "Traceback" not in told
    assert not list(tmp_path.rglob("verify.jsonl"))


@needs_compiler
@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: pack(SMALL, rows=1, tier="tunde"), "tier: expected one of plain, tuned, fastest, got 'tunde'"),
        (lambda: pack(torch.ones(2, 2).half(), rows=1, tier="tuned"), "products of torch.float32 .*, not of torch.float16"),
        (
            lambda: Panels(torch.ones(2, 2).half(), 1),
            "W: expected a dtype that the tuned tier has products of .* got torch.float16",
        ),
        (
            lambda: pack(torch.ones(2, 2).bfloat16(), rows=1, int8=True),
            "int8: expected parameters of torch.float32, got torch.bfloat16",
        ),
        (lambda: linear(torch.ones(2, 3), Panels(torch.ones(2, 2), 1), None), "X: expected 2 features, got 3"),
    ],
)
def test_a_tier_that_is_not_here_is_refused_in_one_line(call, complaint):
    """No narrower dtype is taken in its place."""
    with pytest.raises(ValueError, match=complaint):
        call()
