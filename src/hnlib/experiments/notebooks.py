"""Execute parameterised notebooks; needs papermill, which is an optional dependency (extra ``book``)."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hnlib.errors import ConfigError, unknown

INJECTED = "# as set for this page"
#: MyST's roles, such as {term}`words <target>`.
ROLE = re.compile(r"\{([a-z:]+)\}`([^`]+)`")


def parse_parameters(pairs: Sequence[str]) -> dict[str, Any]:
    """Read ``name=value`` pairs; values as YAML reads them.

    Examples
    --------
    >>> parse_parameters(["seed=3", "profile=tiny"])
    {'seed': 3, 'profile': 'tiny'}
    """
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"notebook parameter '{pair}': write it as name=value")
        found[name] = yaml.safe_load(value) if value else ""
    return found


def run_notebook(source: Path, target: Path, parameters: Mapping[str, Any], *, plain: bool = False) -> None:
    """Execute a notebook into ``target``; its printed lines go to the terminal as they come.

    Papermill only warns about a parameter that the notebook does not declare; here it is refused. With ``plain`` the
    text is for a reader of the notebook alone: values and words stand where the book's markup is.

    Raises
    ------
    ConfigError
        When the notebook is missing, declares no such parameter, or fails; the last line of its
        error is told and the copy with the full traceback named.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    if not source.is_file():
        raise ConfigError(f"notebook {source}: no such file")
    declared = papermill.inspect_notebook(str(source))
    for name in parameters:
        if name not in declared:
            raise unknown(f"parameter of {source.name}", name, declared)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            str(source),
            str(target),
            parameters=dict(parameters),
            progress_bar=False,
            stdout_file=sys.stdout,
            kernel_name="python3",
            cwd=str(source.parent),
        )
    except PapermillExecutionError as fault:
        raise ConfigError(f"notebook {source.name}: {fault.ename}: {fault.evalue}; see {target}") from None
    if plain:
        content = json.loads(target.read_text())
        target.write_text(json.dumps(plain_text(content), indent=1) + "\n")
    _tidy(target, _attribution(source.parent / str(parameters.get("tables", ""))))


def plain_text(content: dict[str, Any]) -> dict[str, Any]:
    """Return an executed notebook whose text has each glued value in its place, and the words of links alone."""
    glued = {}
    for cell in content["cells"]:
        for output in cell.get("outputs", []):
            kept = output.get("metadata", {}).get("scrapbook", {})
            if "name" in kept:
                text = "".join(output["data"].get(f"{kept['mime_prefix']}text/plain", ""))
                glued[kept["name"]] = ast.literal_eval(text) if text[:1] in ("'", '"') else text

    def words(role: re.Match[str]) -> str:
        kind, target = role.groups()
        if kind == "glue:text":
            return str(glued.get(target, "(not known)"))
        if kind.startswith("cite"):
            name = re.sub(r"(\d+)", r" \1", target).capitalize()
            return f"({name})" if kind.endswith(":p") else name
        return target.partition(" <")[0] if kind != "doc" or " <" in target else f"chapter {target.rpartition('/')[2]}"

    for cell in content["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = ROLE.sub(words, "".join(cell["source"]))
    return content


def _attribution(tables: Path) -> str:
    """Return where the data of the tables come from, for captions."""
    path = tables / "study.json"
    return str(json.loads(path.read_text())["attribution"]) if path.exists() else "this run"


def _words(outputs: Sequence[Mapping[str, Any]]) -> str:
    """Return what the pictures of a cell show: kernels say it in the outputs, pages take it from the cell."""
    pictures = (output.get("metadata", {}).get("image/png", {}) for output in outputs)
    return " ".join(picture["alt"] for picture in pictures if "alt" in picture)


def _tidy(path: Path, attribution: str) -> None:
    """Say what the parameters are, name data in captions, give pictures their words, drop what differs each time."""
    content = json.loads(path.read_text())
    content["metadata"].pop("papermill", None)
    for cell in content["cells"]:
        cell["metadata"].pop("papermill", None)
        figure = cell["metadata"].get("mystnb", {}).get("figure")
        if figure:
            figure["caption"] = figure["caption"].replace("{data}", attribution)
        alt = _words(cell.get("outputs", []))
        if alt:
            cell["metadata"].setdefault("mystnb", {})["image"] = {"alt": alt}
        if "injected-parameters" in cell["metadata"].get("tags", []):
            cell["source"] = "".join(cell["source"]).replace("# Parameters", INJECTED, 1).strip()
    path.write_text(json.dumps(content, indent=1) + "\n")
