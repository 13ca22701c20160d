"""What the commands print while they work."""

from __future__ import annotations

import sys

import typer


def say(line: str) -> None:
    """Print a line at once, also where the output is a file."""
    typer.echo(line)
    sys.stdout.flush()


def progress(what: str, done: int, total: int) -> None:
    """Print how far a step is, five times in all."""
    if done == total or done % max(1, total // 5) == 0:
        say(f"{what}: {done} of {total} cases")
