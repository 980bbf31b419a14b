"""`veriformer doctor`."""

import json
from dataclasses import asdict

import click
from rich.console import Console
from rich.text import Text


@click.command()
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N: the device whose noise is measured.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
def command(*, device: str, as_json: bool) -> None:
    """Say what is here: devices, threads, peers, the noise floor (measured in about ten seconds), and what not to trust."""
    from bench.self_test.doctor import examine
    from veriformer.options import available

    found = examine(available(device))
    if as_json:
        click.echo(json.dumps(asdict(found), ensure_ascii=False, indent=1))
        return
    console = Console(highlight=False)
    for name, value in found.here.items():
        console.print(Text(f"{name:12}", "bold"), value, markup=False)
    console.print()
    for warning in found.warnings:
        console.print(Text(f"! {warning}", "yellow"))
    if not found.warnings:
        console.print(Text("Nothing speaks against timing here.", "green"))
