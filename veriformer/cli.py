"""The command line: `veriformer COMMAND`. A command's module is imported when it is asked for, so that `--help` is immediate.

Exit codes: 0 good, 1 a claim is broken, 2 usage, 3 a confirmed slowdown, 5 planned checks missing, 130 or 143 interrupted.
"""

import errno
import importlib
from importlib.metadata import version
from typing import Any

import click

from veriformer import packages, settings

COMMANDS = {
    "verify": ("veriformer.commands.verify", "Verify an implementation, claim by claim."),
    "card": ("veriformer.commands.card", "Say in seconds what an implementation does: conventions, sizes, arithmetic."),
    "report": ("veriformer.commands.report", "Verify and measure all that is built in, or render run folders."),
    "list": (
        "veriformer.commands.list",
        "List claims, steps (with their signatures), options, implementations, conventions, libraries.",
    ),
    "libraries": ("veriformer.commands.libraries", "Verify the attention of libraries, and print a table of them."),
    "explain": ("veriformer.commands.explain", "Say what a claim states and what mathematics says about it."),
    "trace": ("veriformer.commands.trace", "Print the article's worked example, matrix by matrix."),
    "bench": ("veriformer.commands.bench", "Measure what an implementation costs, beside its peers."),
    "compare": ("veriformer.commands.compare", "Compare the timings of two runs."),
    "plan": ("veriformer.commands.plan", "Write down all that a run is to do, so that several machines can share it."),
    "run": ("veriformer.commands.run", "Do one machine's part of a plan."),
    "merge": ("veriformer.commands.merge", "Join the run folders of several shards into one."),
    "doctor": ("veriformer.commands.doctor", "Say what this machine has, and what cannot be trusted on it."),
    "budget": ("veriformer.commands.budget", "Say how far a correct computation may stray from the oracle."),
    "calibrate": ("veriformer.commands.calibrate", "Measure false positives and the smallest visible fault of every budget."),
    "localize": ("veriformer.commands.localize", "Find the first step at which an implementation goes wrong."),
    "score": ("veriformer.commands.score", "Count which of the re-created real bugs the properties catch."),
    "repro": ("veriformer.commands.repro", "Replay a counterexample."),
}
"""name → (module, what `--help` says of it)."""


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of a disk


class Commands(click.Group):
    """A group whose commands are looked up in COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """In the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, with the defaults the user's pyproject.toml gives it."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        ctx.default_map = {**(ctx.default_map or {}), cmd_name: settings.defaults(cmd_name, command)}
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest name for one that does not exist. Refuses to import what is not ours."""
        if mistake := packages.mistaken():
            raise settings.Refused(mistake)
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            known = ", ".join(COMMANDS)
            raise settings.Refused(f"no command {args[0]!r}{settings.nearest(args[0], COMMANDS)}; expected one of {known}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a file that cannot be written or read is a line, no traceback."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.filename is None and error.errno not in FULL:
                raise
            plain = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
            raise settings.Refused(str(plain if type(error).__module__ == "builtins" else error)) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run. A process of its own, what is not called with arguments of a test's, ends with all that it starts."""
        if args or "args" in kwargs:
            return super().main(*args, **kwargs)
        packages.prefer_ours()
        if packages.mistaken():
            return super().main(*args, **kwargs)
        from properties.run.subprocesses import guarded

        return guarded(lambda: super(Commands, self).main(*args, **kwargs))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("veriformer"), prog_name="veriformer")
def main() -> None:
    """Is this Transformer right, where does it go wrong, and what does it cost?"""
