"""`veriformer trace`."""

import click
import numpy as np

SHOWN = 4  # numbers of a matrix's first row


@click.command()
def command() -> None:
    """Print the article's worked example, matrix by matrix: 16 tokens, 512 features, 8 heads of 64.

    Each line names a matrix, its shape, what it is, and the first numbers of its first row.
    """
    from properties.worked_example import describe, run

    tokens, trace = run()
    click.echo(f"{len(tokens)} tokens: {' '.join(tokens)}\n")
    for name, shape, what in describe(trace):
        size = "×".join(map(str, shape))
        click.echo(f"{name:45} {size:>8}  {what}")
        click.echo(f"{'':55} {_beginning(trace[name])}")


def _beginning(matrix: np.ndarray) -> str:
    first = matrix.reshape(-1, matrix.shape[-1])[0, :SHOWN]
    return "".join(f"{number:9.4f}" for number in first) + (" …" if matrix.shape[-1] > SHOWN else "")
