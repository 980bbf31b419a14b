"""What every study does: measure, write a table and a plot, print the table and what it shows."""

import argparse
import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

Row = dict[str, Any]

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "veriformer",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
"""Text stays text and no name is drawn at random: the same measurements give the same file."""


@dataclass(frozen=True)
class Study:
    """One study: its name is that of its files."""

    name: str
    claim: str
    question: str
    measure: Callable[..., list[Row]]
    plot: Callable[[Figure, list[Row]], None]
    finding: Callable[[list[Row]], str]


def table(rows: Sequence[Row]) -> str:
    """The rows in columns, numbers to three digits."""
    cells = [list(rows[0]), *([shown(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return "\n".join("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in cells)


def shown(value: Any) -> str:
    """A number to three digits; anything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def spread(values: Sequence[float], name: str) -> Row:
    """The median of measurements that differ by chance, and between what they lie."""
    low, middle, high = np.quantile(values, (0, 0.5, 1)).tolist()
    return {name: middle, f"{name} from": low, f"{name} to": high}


def write(study: Study, rows: list[Row], folder: Path) -> None:
    """Leave `name`.csv and `name`.svg in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{study.name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: shown(value) for name, value in row.items()} for row in rows)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        study.plot(figure, rows)
        figure.suptitle(f"{study.claim}: {study.question}")
        figure.savefig(folder / f"{study.name}.svg", metadata={"Date": None})


def run(study: Study, arguments: Sequence[str] | None = None, **sizes: Any) -> None:
    """The command line of a study."""
    options = argparse.ArgumentParser(prog=f"python -m properties.studies.{study.name}", description=study.question)
    options.add_argument("-o", "--output", type=Path, default=Path(), metavar="DIR", help="where the table and the plot go (here)")
    folder = options.parse_args(arguments).output
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        options.error(f"--output: expected a folder that can be written to, got {folder}")
    rows = study.measure(**sizes)
    write(study, rows, folder)
    print(table(rows))
    print(f"\n{study.claim}: {study.finding(rows)}")
