"""pyproject.toml, requirements.lock and environment.yml name the same packages in the same versions."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK_TEXT = (ROOT / "requirements.lock").read_text()
#: Extras that live in environments of their own; benchmarks/peers.txt pins what the tests take of them.
NOT_LOCKED = ("nnunet",)
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def declared() -> dict[str, Requirement]:
    """What pyproject.toml asks for, locked extras included, by normalised name."""
    extras = {name: lines for name, lines in PROJECT["optional-dependencies"].items() if name not in NOT_LOCKED}
    lines = [*PROJECT["dependencies"], *(line for extra in extras.values() for line in extra)]
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, lines)}


def pins(lines: list[str]) -> dict[str, str]:
    """Exact versions by normalised name; a line that is no exact pin fails."""
    found: dict[str, str] = {}
    for line in lines:
        name, _, version = line.partition("==")
        assert version, f"not an exact pin: {line}"
        assert canonicalize_name(name) not in found, f"pinned twice: {name}"
        found[canonicalize_name(name)] = version
    return found


LOCK_LINES = [line for line in (line.split("#")[0].strip() for line in LOCK_TEXT.splitlines()) if line]
LOCKED = pins(LOCK_LINES)
CONDA_PIP = next(entry["pip"] for entry in CONDA if isinstance(entry, dict))


@pytest.mark.parametrize("name", sorted(declared()))
def test_every_dependency_is_locked_within_its_range(name: str) -> None:
    """A name in pyproject.toml has a pin in requirements.lock that its range admits."""
    assert name in LOCKED, f"{name} is not in requirements.lock; run: make lock"
    assert LOCKED[name] in declared()[name].specifier


def test_environment_yml_pins_what_pyproject_names() -> None:
    """The pip section of environment.yml has pyproject's names with the lock's versions, no more and no less."""
    found = pins([line for line in CONDA_PIP if not line.startswith("--")])
    assert found == {name: LOCKED[name] for name in declared()}


@pytest.mark.parametrize("name", NOT_LOCKED)
def test_extras_that_are_not_locked_are_pinned_among_the_peers(name: str) -> None:
    found = pins([line for line in (ROOT / "benchmarks" / "peers.txt").read_text().splitlines() if line[0] != "#"])
    for requirement in map(Requirement, PROJECT["optional-dependencies"][name]):
        assert found[canonicalize_name(requirement.name)] in requirement.specifier


def test_environment_yml_takes_the_rest_from_the_lock() -> None:
    """Packages that others bring are held by the same lock, and the library itself is installed."""
    assert "--constraint requirements.lock" in CONDA_PIP
    assert "--editable ." in CONDA_PIP


def test_python_versions_agree() -> None:
    """Python of environment.yml and the oldest Python that the tools check for are what pyproject asks for."""
    python = next(entry for entry in CONDA if isinstance(entry, str) and entry.startswith("python=")).partition("=")[2]
    asked = SpecifierSet(PROJECT["requires-python"])
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    oldest = settings["mypy"]["python_version"]
    assert f"{python}.0" in asked
    assert settings["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    assert asked == SpecifierSet(f">={oldest}")


def test_lock_names_no_place_and_no_build() -> None:
    """The lock installs anywhere: every line is a plain pin, without index, folder, URL or a build such as +cpu."""
    assert not [line for line in LOCK_LINES if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    assert not re.search(r"://|(?<!\w)/\w", LOCK_TEXT), "a comment names a place"


def test_version_is_said_once_in_every_place() -> None:
    """The citation file and the changelog know the version of pyproject.toml."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["Unreleased", f"{PROJECT['version']} - {citation['date-released']}"]
