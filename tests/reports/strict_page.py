"""A rendered report, read by a parser that forgives nothing."""

from html.parser import HTMLParser
from pathlib import Path

from reports.render import render

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    """A page read strictly: tags must be balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        """Note the tag."""
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice in {tag}"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """An element of SVG that closes itself."""
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        """It must close the one that was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data):
        """Keep what a reader sees."""
        if not self.open or self.open[-1] not in {"style", "title"}:
            self.text.append(data)

    def words(self) -> str:
        """The visible text, its white space made even."""
        return " ".join(" ".join(self.text).split())


def report(folder: Path, out: Path, **options) -> tuple[Page, str]:
    """Render one folder; the page, parsed, and the Markdown."""
    render([folder], out, **options)
    return Page((out / "report.html").read_text(encoding="utf-8")), (out / "summary.md").read_text(encoding="utf-8")
