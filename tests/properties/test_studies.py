"""Every study runs, at a small size: a table, a plot, a sentence; the same numbers give the same files; a bad folder is refused."""

import csv
from importlib import import_module

import numpy as np
import pytest
import torch

from optimized.encoder import encoder_layer
from optimized.initialisation import initialise
from optimized.parameters import Architecture
from properties.claims import CLAIMS
from properties.studies.growth import H, layer
from properties.studies.jacobian import jacobian_norm
from properties.studies.study import run, table

SMALL = {
    "growth": {"depths": (1, 2), "seeds": 2, "tokens": 3, "d_model": 8},
    "context": {"sequences": 3, "longest": 9},
    "jacobian": {"scales": (1.0, 32.0), "tokens": 3, "rows": 4},
}
each_study = pytest.mark.parametrize("name", SMALL)


def study(name):
    """The study of that name."""
    return import_module(f"properties.studies.{name}").STUDY


def test_every_study_of_the_catalogue_has_a_script():
    """A claim without a verdict is not left at that."""
    assert {claim.id for claim in CLAIMS if claim.kind == "study"} == {study(name).claim for name in SMALL}


@each_study
def test_a_study_leaves_a_table_a_plot_and_a_sequence(name, tmp_path, capsys):
    """What is printed stands in the table; the plot is an SVG; a second run writes the same bytes."""
    for folder in ("first", "second"):
        run(study(name), ["-o", str(tmp_path / folder)], **SMALL[name])

    printed = capsys.readouterr().out
    with (tmp_path / "first" / f"{name}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert table(rows) in printed
    assert printed.strip().splitlines()[-1].startswith(f"{study(name).claim}: ")
    assert "<svg" in (tmp_path / "first" / f"{name}.svg").read_text(encoding="utf-8")
    for file in (f"{name}.csv", f"{name}.svg"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_a_file_in_place_of_the_folder_is_a_usage_error(tmp_path, capsys):
    """Exit code 2, one line, nothing measured."""
    (tmp_path / "taken").write_text("not a folder")

    with pytest.raises(SystemExit) as stopped:
        run(study("jacobian"), ["-o", str(tmp_path / "taken" / "below")])

    assert stopped.value.code == 2
    assert "--output: expected a folder that can be written to" in capsys.readouterr().err


def test_the_jacobian_of_two_equal_scores_is_the_largest_there_is():
    """p = (½, ½): norm 1/2, exactly; one token that takes all: 0."""
    assert jacobian_norm(np.array([3.0, 3.0])) == 0.5
    assert jacobian_norm(np.array([0.0, 1000.0])) == 0.0


def test_a_layer_without_its_parts_is_the_sublayers_alone():
    """With residual and norm it is the encoder's own layer, bit for bit."""
    X = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parameters = initialise(0, vocab=1, d_model=8, d_ff=4, layers=1, dtype=torch.float64).encoder[0]

    assert torch.equal(layer(X, parameters, residual=True, norm=True), encoder_layer(X, parameters, Architecture(h=H)))
    assert not torch.equal(layer(X, parameters, residual=True, norm=False), layer(X, parameters, residual=False, norm=False))
