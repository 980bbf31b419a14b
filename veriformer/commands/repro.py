"""`veriformer repro ID`."""

import sys
from pathlib import Path

import click

from properties.run.subprocesses import run
from veriformer.packages import their_environment
from veriformer.replay import FOLDER
from veriformer.settings import Refused, nearest


@click.command()
@click.argument("identifier", metavar="[ID]", required=False)
@click.option("--run", "folder", type=click.Path(path_type=Path), metavar="DIR", help="The run it is of. Default: all in runs/.")
@click.option("--candidate", metavar="TARGET", help="Run it on another implementation: module:attribute or file.py:attribute.")
@click.option("--device", default="cpu", show_default=True, help="Where tensors are put.")
@click.pass_context
def command(ctx: click.Context, identifier: str | None, folder: Path | None, candidate: str | None, device: str) -> None:
    """Replay a counterexample: the script of that ID, or of the only one that begins so. Without an ID, list them.

    Exit code: 1 the fault shows, 0 it does not (any more), 2 usage.
    """
    scripts = _scripts(folder)
    if identifier is None:
        for name, script in scripts.items():
            click.echo(f"{name}    {script}")
        return
    script = _named(identifier, scripts)
    options = ["--device", device, *(["--candidate", candidate] if candidate else [])]
    ctx.exit(run([sys.executable, script, *options], env=their_environment()).returncode)


def _scripts(folder: Path | None) -> dict[str, Path]:
    """Every script of the run, or of all runs, by its ID; of several with one ID the latest."""
    if folder is not None and not folder.is_dir():
        raise Refused(f"--run: expected a run folder, got {folder}, which is none")
    folders = [folder] if folder is not None else sorted(Path("runs").glob("*"))
    paths = [path for each in folders for path in sorted((each / FOLDER).glob("*.py")) if not path.name.endswith(".candidate.py")]
    if not paths:
        raise Refused(f"no counterexample in {folder or 'runs/'}: a run with a broken claim writes them into its folder")
    return {path.stem: path for path in paths}


def _named(identifier: str, scripts: dict[str, Path]) -> Path:
    found = [identifier] if identifier in scripts else [name for name in scripts if name.startswith(identifier)]
    if len(found) > 1:
        raise Refused(f"ID: expected one counterexample, got {identifier!r}, which begins {len(found)}: {', '.join(found)}")
    if not found:
        raise Refused(
            f"no counterexample {identifier!r}{nearest(identifier, scripts)}; `veriformer repro` lists all {len(scripts)}"
        )
    return scripts[found[0]]
