"""The picture in README.md and results.md: the head of the committed page, of the newest run that was verified and timed.

`make picture` writes it anew, with a browser from PyPI (the extra `picture`). In the picture stands the digest of what it shows,
by which a test tells whether it is of today's page.
"""

import hashlib
import os
import sys
from pathlib import Path

RUNS = Path(__file__).resolve().parents[2] / "reports" / "runs"
WIDTH, HEIGHT = 1200, 1300
KEY = "page"  # of the PNG's text that holds the digest


def newest() -> Path:
    """The run; runs are named by their days."""
    return max(run for run in RUNS.iterdir() if (run / "verify.jsonl").exists() and (run / "bench.jsonl").exists())


def digest(run: Path) -> str:
    """Of the page's style, head and matrix, which the picture shows."""
    head, below, _ = (run / "report.html").read_text(encoding="utf-8").partition('<section id="broken"')
    if not below:
        raise ValueError(f"{run}/report.html: expected a section 'broken' below the matrix, found none")
    return hashlib.blake2b(head.encode(), digest_size=8).hexdigest()


def draw(run: Path) -> None:
    """Write `report.png` beside the page."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    os.environ.setdefault("QTWEBENGINE_CHROMIUM_FLAGS", "--no-sandbox --disable-gpu")  # the page is ours
    from PyQt6.QtCore import QTimer, QUrl
    from PyQt6.QtWebEngineCore import QWebEngineSettings
    from PyQt6.QtWebEngineWidgets import QWebEngineView
    from PyQt6.QtWidgets import QApplication

    app, view = QApplication(sys.argv[:1]), QWebEngineView()
    view.page().settings().setAttribute(QWebEngineSettings.WebAttribute.ShowScrollBars, False)
    view.resize(WIDTH, HEIGHT)

    def grab() -> None:
        image = view.grab().toImage()
        image.setText(KEY, digest(run))
        app.exit(0 if image.save(str(run / "report.png")) else 1)

    view.loadFinished.connect(lambda _: QTimer.singleShot(2000, grab))  # milliseconds, for what is loaded to be painted
    view.load(QUrl.fromLocalFile(str(run / "report.html")))
    view.show()
    if app.exec():
        raise SystemExit(f"{run}/report.png: could not be written")


if __name__ == "__main__":
    draw(newest())
