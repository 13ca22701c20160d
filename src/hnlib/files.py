"""Files are written whole or not at all: a full disk or a kill leaves the last good one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from hnlib.errors import DataError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a temporary path beside ``path`` and move the result there when it is whole.

    Raises
    ------
    DataError
        When the disk is full or the folder read-only; what was at ``path`` before is still there.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-", suffix=path.name)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    except (OSError, RuntimeError) as fault:  # torch and blosc2 tell a full disk by a RuntimeError
        raise DataError(
            f"file {path}: cannot be written ({reason(fault)}); free space, or choose a folder that you may write to"
        ) from fault
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def reason(fault: BaseException) -> str:
    """Return what an exception says, in one short line without the paths that the caller names anyway."""
    text = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault)
    text = " ".join(text.split()) or type(fault).__name__
    return text[:120] + "..." if len(text) > 120 else text


def read_json(path: Path, remedy: str) -> Any:
    """Read a JSON file.

    Raises
    ------
    DataError
        When it is missing, cannot be read or is no JSON; ``remedy`` says what to do.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as fault:
        raise DataError(f"file {path}: cannot be read as JSON ({reason(fault)}); {remedy}") from None


def read_table(path: Path, remedy: str, **options: Any) -> pd.DataFrame:
    """Read a CSV table; ``options`` are those of `pandas.read_csv`.

    Raises
    ------
    DataError
        When it is missing or cannot be read; ``remedy`` says what to do.
    """
    try:
        table: pd.DataFrame = pd.read_csv(path, **options)
    except (OSError, ValueError) as fault:
        raise DataError(f"file {path}: cannot be read as a table ({reason(fault)}); {remedy}") from None
    return table


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file."""
    text = json.dumps(content, indent=1) + "\n"
    write_atomically(path, lambda part: part.write_text(text))


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, numbers to six digits."""
    write_atomically(path, lambda part: table.to_csv(part, index=False, float_format="%.6g"))


def copy_file(source: Path, target: Path) -> None:
    """Copy a file."""
    content = source.read_bytes()
    write_atomically(target, lambda part: part.write_bytes(content))
