"""Files are written whole or not at all: a full disk or a kill leaves the last good one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a temporary path beside ``path`` and move the result there when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-", suffix=path.name)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
