"""The command `hnlib nnunet`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer


def register(app: typer.Typer, say: Callable[[str], None]) -> None:
    """Add the command to the command line; ``say`` prints a line."""

    @app.command()
    def nnunet() -> None:
        """Print the folder of the trainers for nnU-Net v2: export nnUNet_extTrainer=$(hnlib nnunet)."""
        from hnlib.nnunet.draw import nnunet_version, version_remark

        found = nnunet_version()
        missing = 'nnU-Net is not installed here: in a clone of the repository, pip install -e ".[nnunet]"'
        remark = version_remark(found) if found else missing
        if remark:
            typer.echo(f"note: {remark}", err=True)
        say(str(Path(__file__).parent))
