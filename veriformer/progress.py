"""A verification under way: a bar of verdicts fallen out of verdicts planned, and how the run ended."""

from rich.console import Console

from bench.bar import Bar
from veriformer import engine
from veriformer.results import Results
from veriformer.settings import Refused

TAIL = 15  # lines of pytest's own output, where it did not get as far as a verdict


def verify(request: engine.Request, *, quiet: bool = False) -> tuple[Results, engine.Ended]:
    """Run the request with a progress bar on stderr. Raises Refused where pytest refuses it."""
    with Bar(quiet=quiet) as bar:

        def look() -> None:
            results = Results.of(request.run)
            claims = {line["claim"] for line in results.lines}
            planned = {check["claim"] for check in results.planned}
            what = (
                f"{len(claims)} of {len(planned)} claims, {len(results.broken)} checks broken"
                if planned
                else "collecting properties"
            )
            bar.show(what, len(results.lines), len(results.planned))

        ended = engine.run(request, look)
    if ended.refusal:
        raise Refused(ended.refusal)
    results = Results.of(request.run)
    if not ended.interrupted and (not results.planned or results.missing):
        tail = "\n".join(ended.output.splitlines()[-TAIL:])
        Console(stderr=True).print(tail, markup=False, highlight=False)
    return results, ended
