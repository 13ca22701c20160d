"""Files are written whole or not at all: a full disk or a kill leaves the last good one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from hnlib.errors import DataError

#: Between the name of a column and one of its values, in the header of a file that was made wide.
WIDE = ":"


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
    """Read a CSV table, one that `write_table` made wide as it was before; ``options`` are those of `pandas.read_csv`.

    Raises
    ------
    DataError
        When it is missing or cannot be read; ``remedy`` says what to do.
    """
    try:
        table: pd.DataFrame = pd.read_csv(path, **options)
        if any(WIDE in str(column) for column in table.columns):
            return _long(pd.read_csv(path, dtype=str, keep_default_na=False), table)
    except (OSError, ValueError) as fault:
        raise DataError(f"file {path}: cannot be read as a table ({reason(fault)}); {remedy}") from None
    return table


def write_text(path: Path, text: str) -> None:
    """Write a text file, in UTF-8."""
    write_atomically(path, lambda part: part.write_text(text, "utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file."""
    text = json.dumps(content, indent=1) + "\n"
    write_atomically(path, lambda part: part.write_text(text))


def write_table(path: Path, table: pd.DataFrame, *, wide: str = "") -> None:
    """Write a table as CSV, numbers to six digits.

    Parameters
    ----------
    path
        Where it goes.
    table
        What is written.
    wide
        Column, such as ``metric``, whose every value gets a column of the file for its ``value``: a row need not
        repeat its names for each of them. `read_table` returns what was written, sorted as the file is.
    """
    content = _wide(table, wide) if wide else table
    write_atomically(path, lambda part: content.to_csv(part, index=False, float_format="%.6g"))


def _wide(table: pd.DataFrame, names: str) -> pd.DataFrame:
    """Return a table with a column for each value of the column `names`: no row is '', a row without value 'nan'."""
    keys = [column for column in table.columns if column not in (names, "value")]
    text = ["nan" if pd.isna(value) else f"{value:.6g}" for value in table["value"]]
    found = table.assign(value=text).pivot(index=keys, columns=names, values="value")
    rows = pd.MultiIndex.from_frame(table[keys].drop_duplicates())
    columns = list(table[names].unique())
    found = found.reindex(index=rows, columns=columns).fillna("")
    return found.set_axis([f"{names}{WIDE}{value}" for value in columns], axis=1).reset_index()


def _long(text: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return the long table of a wide file, its keys typed as pandas reads them."""
    columns = [column for column in text.columns if WIDE in column]
    keys = [column for column in text.columns if column not in columns]
    names = columns[0].split(WIDE)[0]
    values = text[columns].rename(columns={column: column.split(WIDE, 1)[1] for column in columns})
    found = values.melt(var_name=names, ignore_index=False).sort_index(kind="stable")
    found = found[found["value"] != ""].astype({"value": float})
    with suppress(ValueError):  # names that are numbers, such as quantiles, are numbers again
        found[names] = pd.to_numeric(found[names])
    return table[keys].join(found, how="right").reset_index(drop=True)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file."""
    content = source.read_bytes()
    write_atomically(target, lambda part: part.write_bytes(content))
