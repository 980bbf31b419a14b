"""From run folders to a page: report.html (one file, offline, no script), summary.md, junit.xml, and the tables as CSV.

A pure function of the folders: the same folders give the same bytes.
"""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from reports import words
from reports.compare import compared
from reports.findings import Findings
from reports.folders import ReportError, read, write_whole
from reports.junit import junit
from reports.merge import merged
from reports.page import context
from reports.tables import Table

PAGE, SUMMARY, JUNIT, TABLES = "report.html", "summary.md", "junit.xml", "tables"
PAGE_LIMIT, SUMMARY_LIMIT = 1536 * 1024, 60_000  # bytes
ROWS = (400, 120, 40, 10, 3)  # how many rows of a long list are shown; the next is tried where the page came out too long


def render(folders: Sequence[Path], out: Path, against: Path | None = None) -> tuple[list[Path], Findings]:
    """Write the report of the run in `folders` (several: shards of one run) to `out`, held against the run in `against`, if any.

    Returns what was written, and what it says. Raises ReportError, having written nothing, for folders that make no report.
    """
    run = merged([read(folder) for folder in folders])
    change = None if against is None else compared(read(against), run, across_machines=True)
    found = Findings(run, change)
    shown = context(found)
    texts = {
        PAGE: fitting("report.html.jinja2", shown, PAGE_LIMIT),
        SUMMARY: fitting("summary.md.jinja2", shown, SUMMARY_LIMIT),
        JUNIT: junit(found),
    }
    if out.exists() and not out.is_dir():
        raise ReportError(f"-o {out}: expected a folder, found a file")
    (out / TABLES).mkdir(parents=True, exist_ok=True)
    written = [write_whole(out / name, text) for name, text in texts.items()]
    for name, table in found.tables().items():
        written += _files(out / TABLES / name, table)
    return written, found


def fitting(template: str, shown: dict[str, Any], limit: int) -> str:
    """The text with as many rows as fit the limit; what is left out is counted where it would stand."""
    text = ""
    for rows in ROWS:
        text = environment().get_template(template).render(shown, rows=rows)
        if len(text.encode()) <= limit:
            return text
    raise ReportError(f"{template}: {len(text.encode())} bytes with {ROWS[-1]} rows a table, over the limit of {limit}")


def environment() -> jinja2.Environment:
    """Templates of this package, HTML escaped, undefined names refused."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("reports"),
        autoescape=jinja2.select_autoescape(["html.jinja2"], default=False),  # Markdown escapes by its own rules: `markdown`
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(words, name) for name in FILTERS} | {
        "md": markdown,
        "fenced": fenced,
        "breakable": breakable,
    }
    return environment


FILTERS = (
    "number",
    "count",
    "spoken",
    "time",
    "size",
    "rate",
    "percent",
    "ratio",
    "interval",
    "of_budget",
    "short",
    "excerpt",
    "plural",
    "absent",
)


def markdown(text: Any) -> str:
    """A text that Markdown shows as it is, on one line: no table cell, tag, link, heading or emphasis comes of it."""
    one_line = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]<>|~#!&$@])", r"\\\1", one_line)


def fenced(text: Any) -> str:
    """A text as a block of code whose fence no backticks in it can close."""
    longest = max((len(ticks) for ticks in re.findall(r"`+", str(text))), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def breakable(name: Any) -> Markup:
    """A dotted name that a narrow column may break after its dots."""
    return Markup("<wbr>").join(re.split(r"(?<=[.:_/])", str(name)))


def _files(path: Path, table: Table) -> list[Path]:
    guarded: Table = table.map(_guarded)
    written = [write_whole(path.with_suffix(".csv"), guarded.to_csv(index=False, lineterminator="\n"))]
    if importlib.util.find_spec("pyarrow") is not None:
        parquet = path.with_suffix(".parquet")
        guarded.astype(dict.fromkeys(guarded.select_dtypes("object"), str)).to_parquet(parquet, index=False)
        written.append(parquet)
    return written


def _guarded(value: Any) -> Any:
    """A text that no spreadsheet takes for a formula."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t")) and not _is_number(value):
        return f"'{value}"
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
