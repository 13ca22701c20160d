"""What is told to a user when data or configuration are at fault: one line, no traceback."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class HnlibError(Exception):
    """A fault that the user can mend.

    The text is one line: what is wrong, with which case and file, what to do.
    The command line prints it and exits with status 2.
    """


class DataError(HnlibError):
    """A scan, label file or cache that is missing, broken or of another shape."""


class ConfigError(HnlibError):
    """An unknown name or an impossible value in a configuration or on the command line."""


def unknown(kind: str, name: object, known: Iterable[str]) -> ConfigError:
    """Return the error for a name that is not in the vocabulary, with the nearest known one.

    Examples
    --------
    >>> print(unknown("organ", "brainstm", ["brainstem", "mandible"]))
    unknown organ 'brainstm': did you mean 'brainstem'? Known: brainstem, mandible
    """
    names = sorted(known)
    as_known = {known_name.lower(): known_name for known_name in names}  # CE is nearest to ce
    near = get_close_matches(str(name).lower(), as_known, n=1)
    hint = f"did you mean '{as_known[near[0]]}'? " if near else ""
    return ConfigError(f"unknown {kind} '{name}': {hint}Known: {', '.join(names)}")
