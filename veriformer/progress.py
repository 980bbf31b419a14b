"""A verification under way: a bar of verdicts fallen out of verdicts planned, and how the run ended."""

from contextlib import nullcontext

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from veriformer import engine
from veriformer.results import Results
from veriformer.settings import Refused

TAIL = 15  # lines of pytest's own output, where it did not get as far as a verdict


def verify(request: engine.Request, *, quiet: bool = False) -> tuple[Results, engine.Ended]:
    """Run the request with a progress bar on stderr. Raises Refused where pytest refuses it."""
    console = Console(stderr=True)
    bar = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
    with nullcontext() if quiet else bar:
        task = bar.add_task("collecting", total=None)

        def look() -> None:
            results = Results.of(request.run)
            if results.planned:
                claims = {finding.claim for finding in results.findings}
                planned = {check["claim"] for check in results.planned}
                bar.update(
                    task,
                    description=f"{len(claims)} of {len(planned)} claims, {len(results.broken)} broken checks",
                    total=len(results.planned),
                    completed=len(results.findings),
                )

        ended = engine.run(request, look)
    if ended.refusal:
        raise Refused(ended.refusal)
    results = Results.of(request.run)
    if not ended.interrupted and (not results.planned or results.missing):
        console.print("\n".join(ended.output.splitlines()[-TAIL:]), markup=False, highlight=False)
    return results, ended
