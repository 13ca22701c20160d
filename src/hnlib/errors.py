"""What is told to a user when data or configuration are at fault: one line, no traceback."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any


class HnlibError(Exception):
    """A fault that the user can mend.

    The text is one line: what is wrong, with which case and file, what to do.
    The command line prints it and exits with status 2.
    """


class DataError(HnlibError):
    """A scan, label file or cache that is missing, broken or of another shape."""


class ConfigError(HnlibError, ValueError):
    """An unknown name or an impossible value in a configuration or on the command line."""


def unknown(kind: str, name: object, known: Iterable[str]) -> ConfigError:
    """Return the error for a name that is not in the vocabulary, with the nearest known one.

    Examples
    --------
    >>> print(unknown("organ", "brainstm", ["brainstem", "mandible"]))
    unknown organ 'brainstm': did you mean 'brainstem'? Known: brainstem, mandible
    >>> print(unknown("loss", "CE", ["ce", "dice"]))
    unknown loss 'CE': did you mean 'ce'? Known: ce, dice
    """
    names = sorted(known)
    lower = {one.lower(): one for one in names}
    near = get_close_matches(str(name).lower(), lower, n=1)
    hint = f"did you mean '{lower[near[0]]}'? " if near else ""
    told = f"{hint}Known: {', '.join(names)}" if names else "there is none"
    return ConfigError(f"unknown {kind} '{name}': {told}")


def wrong_value(error: Mapping[str, Any]) -> str:
    """Return in a user's words what one of pydantic's errors says: where, what stands there, what is needed.

    Examples
    --------
    >>> wrong_value({"loc": ("training", "stepz"), "type": "extra_forbidden", "msg": "", "input": 3})
    'training.stepz: no such key'
    >>> wrong_value({"loc": ("seeds", 0), "type": "int_parsing", "msg": "", "input": "x"})
    "seeds.0: is 'x'; a whole number is needed"
    >>> wrong_value({"loc": ("gate",), "type": "less_than_equal", "ctx": {"le": 1}, "msg": "", "input": 2})
    'gate: is 2; a number of at most 1 is needed'
    """
    # pydantic adds which type of several it tried, and whether a key is meant
    where = ".".join(str(part) for part in error["loc"] if part not in ("int", "str", "[key]")) or "the file"
    kind = str(error["type"])
    limits = {key: f"{v:g}" if isinstance(v, float) else v for key, v in error.get("ctx", {}).items()}
    if kind == "missing":
        return f"{where}: is missing"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{where}: no such key"
    if kind == "value_error":  # said by a class of ours
        return f"{where}: {error['ctx']['error']}"
    table = "a table of keys and values"
    words = {"int": "a whole number", "float": "a number", "string": "a text", "bool": "true or false"}
    words |= {"tuple": "a list", "list": "a list", "dict": table, "model": table, "dataclass": table}
    needed = {
        "greater_than": f"a number above {limits.get('gt')}",
        "greater_than_equal": f"a number of at least {limits.get('ge')}",
        "less_than": f"a number below {limits.get('lt')}",
        "less_than_equal": f"a number of at most {limits.get('le')}",
        "too_short": f"a length of at least {limits.get('min_length')}",
        "too_long": f"a length of at most {limits.get('max_length')}",
        "literal_error": f"one of {limits.get('expected')}",
    }.get(kind) or words.get(kind.split("_")[0], error["msg"])
    needed += " or a text" if "int" in error["loc"] else ""
    return f"{where}: is {error['input']!r}; {needed} is needed"
