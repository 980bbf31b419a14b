"""What the documentation takes from the code: tables, the schema, a figure. Run by the build, so nothing generated is committed.

A page says `<!-- generated: NAME -->` where the table of that name in `TABLES` belongs.
"""

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from reference import STEPS
from reports import card_records, tests_score_records
from reports.records import schema
from reports.words import plural
from veriformer.commands import list as listed

ROOT = Path(__file__).resolve().parents[1]
MARKER = re.compile(r"<!-- generated: (\w+) -->")
KINDS = {"law": "Law", "refuted": "Refuted", "study": "Study"}
PUBLIC_SUITES = json.loads((ROOT / "examples" / "public_suites" / "found.json").read_text(encoding="utf-8"))
BESIDE = ("torch", "torch.nn", "flash-attn", "onnx", "jax")  # libraries with a column of their own


# What mkdocs calls ----------------------------------------------------------------------------------------------------


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the figure of the error budget, and the head of the committed report."""
    sys.path.insert(0, str(ROOT / "docs" / "figures"))
    files.append(File.generated(config, "figures/error_budget.svg", content=import_module("error_budget").draw()))
    picture = import_module("report").newest() / "report.png"
    files.append(File.generated(config, "figures/report.png", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Put each table in the place of its marker. Raises KeyError for a name that is none."""
    del page
    return MARKER.sub(lambda found: TABLES[found[1]](), markdown)


# Tables ---------------------------------------------------------------------------------------------------------------


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Markdown's; a bar outside of code is no border."""
    lines = ["| " + " | ".join(cell if "`" in cell else cell.replace("|", "\\|") for cell in row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def claims() -> str:
    """Every claim of the article under its step, in the article's order."""
    return _claims_of(STEPS, "The article says")


def claims_beyond() -> str:
    """Every claim about what is not in the article."""
    steps = dict.fromkeys(claim["step"] for claim in listed.claims() if claim["step"] not in STEPS)
    return _claims_of(tuple(steps), "What it means")


def options() -> str:
    """The options of attention."""
    of_attention = (each for each in listed.options() if each["step"] == "attention")
    rows = [(f"`{each['name']}`", each["given"], each["default"], each["formula"]) for each in of_attention]
    return table(("Option", "Given as", "Default", "What it does"), rows)


def layer_options() -> str:
    """The options of steps of all heads at once."""
    of_layers = (each for each in listed.options() if each["step"].startswith("multi_head"))
    rows = [(f"`{each['step']}`", f"`{each['name']}`", each["given"], each["default"], each["formula"]) for each in of_layers]
    return table(("Step", "Option", "Given as", "Default", "What it does"), rows)


def _claims_of(steps: tuple[str, ...], said: str) -> str:
    sections = []
    for step in steps:
        rows = [
            (f"**{claim['id']}** {KINDS[claim['kind']]}", claim["statement"], f"`{claim['formula']}`", claim["expectation"])
            for claim in listed.claims()
            if claim["step"] == step
        ]
        if rows:
            sections.append(f"### {step}\n\n{table(('Claim', said, 'Formula', 'What is so'), rows)}")
    return "\n\n".join(sections)


def kinds() -> str:
    """How many claims there are of each kind."""
    of = [claim["kind"] for claim in listed.claims()]
    return f"There are {len(of)} claims: {of.count('law')} laws, {of.count('refuted')} refuted and {of.count('study')} studies."


def conventions() -> str:
    """Each convention, its choices, and what five libraries choose."""
    made = {(row["library"], row["convention"]): row["choice"] for row in listed.libraries()}
    choices: dict[str, list[str]] = {}
    for row in listed.conventions():
        choices.setdefault(row["convention"], []).append(row["choice"])
    rows = []
    for name, options in choices.items():
        chosen = [f"`{choice}`" if (choice := made.get((library, name))) else "–" for library in BESIDE]
        rows.append((f"`{name}`", " ".join(f"`{option}`" for option in options), *chosen))
    return table(("Convention", "Choices", *BESIDE), rows)


def choices() -> str:
    """What each choice means."""
    rows = [(f"`{row['convention']}`", f"`{row['choice']}`", row["meaning"]) for row in listed.conventions()]
    return table(("Convention", "Choice", "Meaning"), rows)


def sources() -> str:
    """Where each library says so."""
    rows = [(row["library"], f"`{row['convention']}`", f"`{row['choice']}`", row["source"]) for row in listed.libraries()]
    return table(("`--like`", "Convention", "Choice", "Source"), rows)


def steps() -> str:
    """The signature of every step."""
    return "```text\n" + "\n".join(row["signature"] for row in listed.steps()) + "\n```"


def implementations() -> str:
    """What is built in."""
    rows = [(f"`{each['name']}`", ", ".join(each["steps"]), ", ".join(each["dtypes"])) for each in listed.implementations()]
    return table(("Name", "Steps", "dtypes"), rows)


def verdict_record() -> str:
    """The fields of a line of verify.jsonl, from its JSON Schema."""
    return _record(schema()["$defs"]["VerdictRecord"])


def _record(record: dict[str, Any]) -> str:
    required = set(record["required"])
    rows = [
        (f"`{name}`", _kind(field), "yes" if name in required else "", field.get("description", ""))
        for name, field in record["properties"].items()
    ]
    return table(("Field", "Type", "Required", "Meaning"), rows)


def card_record() -> str:
    """The fields of what `card --json` prints."""
    return _record(card_records.schema()["$defs"]["ContractCard"])


def card_convention() -> str:
    """The fields of one of its conventions."""
    return _record(card_records.schema()["$defs"]["CardConvention"])


def tests_score_record() -> str:
    """The fields of what `score --tests --json` prints."""
    return _record(tests_score_records.schema()["$defs"]["TestsScore"])


def scored_fault() -> str:
    """The fields of one of its faults."""
    return _record(tests_score_records.schema()["$defs"]["ScoredFault"])


def public_suites() -> str:
    """What each public test suite noticed."""
    head = ("Suite", "Tests", "Call the kernel", "Compare nothing", "Correct that fail", "Faults noticed", "Cheats noticed")
    rows = [
        (
            f"[{name}](#{name})",
            *(str(each[count]) for count in ("tests", "calling", "cannot_fail")),
            f"{len(each['wronged'])} of {each['correct']}",
            *(f"{each[kind][0]} of {each[kind][1]}" for kind in ("faults", "cheats")),
        )
        for name, each in PUBLIC_SUITES.items()
    ]
    return table(head, rows)


def public_suite(name: str) -> str:
    """With what a public test suite was scored, and what it let through."""
    each = PUBLIC_SUITES[name]
    beside = ", ".join(f"{package} {version}" for package, version in each["beside"].items())
    options = f" with {', '.join(each['options'])}" if each["options"] else ""
    lines = [
        f"* `{'`, `'.join(each['packages'])}`, beside {beside}",
        f"* `{each['replaces']}` as {each['step']}{options}",
        f"* {plural(each['tests'], 'test')}, {each['skipped']} skipped",
        f"* {plural(each['calls'], 'call')}, {sum(each['unread'].values())} not read",
        *(f"    * {count} not read: {why}" for why, count in each["unread"].items()),
        *(f"* `{base}` is correct, and fails: {', '.join(map(_test, failed))}" for base, failed in each["wronged"].items()),
    ]
    rows = [
        (
            f"`{fault['id']}`{' (cheat)' if fault['kind'] == 'cheat' else ''}",
            fault["shows"],
            fault["how"],
            f"{fault['dtype']}: {fault['input']}",
        )
        for fault in each["survivors"]
    ]
    return "\n".join(lines) + "\n\n" + table(("Got through", "It shows when", "In these tests", "The smallest input"), rows)


def _test(identifier: str) -> str:
    return f"`{identifier.rpartition('::')[2]}`"


def _kind(field: dict[str, Any]) -> str:
    """The type of a field of a JSON Schema, in a few words."""
    if "const" in field:
        return f"`{field['const']!r}`"
    if "enum" in field:
        return " ".join(f"`{value}`" for value in field["enum"])
    if "anyOf" in field:
        return " or ".join(_kind(each) for each in field["anyOf"])
    if "$ref" in field:
        return " ".join(f"`{value}`" for value in schema()["$defs"][field["$ref"].rpartition("/")[2]].get("enum", ()))
    return str(field.get("type", "any"))


def modules(package: str) -> str:
    """Every module of a package: the steps in the article's order, then the others."""
    found = [info.name for info in iter_modules([str(ROOT / package)])]
    order = [name for name in STEPS if name in found] + sorted(set(found) - set(STEPS))
    options = "    options:\n      show_root_toc_entry: true\n      heading_level: 2\n"
    return f"::: {package}\n    options:\n      heading_level: 2\n      show_submodules: false\n\n" + "\n\n".join(
        f"::: {package}.{name}\n{options}" for name in order
    )


TABLES: dict[str, Callable[[], str]] = {
    "claims": claims,
    "claims_beyond": claims_beyond,
    "kinds": kinds,
    "conventions": conventions,
    "choices": choices,
    "sources": sources,
    "options": options,
    "layer_options": layer_options,
    "steps": steps,
    "implementations": implementations,
    "verdict_record": verdict_record,
    "card_record": card_record,
    "card_convention": card_convention,
    "tests_score_record": tests_score_record,
    "scored_fault": scored_fault,
    "public_suites": public_suites,
    **{name.replace("-", "_"): partial(public_suite, name) for name in PUBLIC_SUITES},
    "reference": lambda: modules("reference"),
    "optimized": lambda: modules("optimized"),
}
