"""The command `hnlib nnunet`."""

from __future__ import annotations

from pathlib import Path

import typer

from hnlib.console import say


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""

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
