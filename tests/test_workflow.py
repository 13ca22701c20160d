"""The workflow on a cluster: Snakemake's own executor gets one job a run, with the resources of the profile."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hnlib.experiments import load_profile

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = "snakemake_executor_plugin_slurm"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return what a dry run on a cluster would do with the smallest study, rule by rule."""
    if importlib.util.find_spec(PLUGIN) is None:
        pytest.skip(f"{PLUGIN} is not installed; pip install 'hnlib[slurm]'")
    folder = tmp_path_factory.mktemp("cluster")
    for name in ("Snakefile", "notebooks", "book", "workflow"):
        (folder / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "snakemake", "book", "--dry-run", "--nocolor"]
    command += ["--workflow-profile", "workflow/profiles/slurm", "--config", "dataset=phantom", "profile=tiny"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return re.split(r"\n(?=(?:local)?rule )", done.stdout + done.stderr)


def test_every_run_of_the_sweep_is_a_job(planned: list[str]) -> None:
    """Experiments x seeds: each is trained and measured by a job of its own."""
    profile = load_profile("tiny")
    expected = {f"{experiment}-seed{seed}" for experiment in profile.study for seed in profile.seeds_for(experiment)}
    for rule in ("train", "measure"):
        jobs = [job for job in planned if job.startswith(f"rule {rule}:")]
        found = {Path(out).stem for job in jobs for out in re.findall(r"output: (\S+\.json)", job)}
        assert found == expected
        assert len(jobs) == len(expected)


@pytest.mark.parametrize(("rule", "minutes"), [("train", 720), ("measure", 240)])
def test_a_job_asks_for_what_the_profile_says(planned: list[str], rule: str, minutes: int) -> None:
    """Time, memory, one GPU and threads come from the profile and not from the machine that submits."""
    for job in (job for job in planned if job.startswith(f"rule {rule}:")):
        assert "threads: 8" in job
        resources = re.search(r"resources: (.*)", job)
        assert resources is not None
        asked = dict(part.split("=") for part in resources[1].split(", "))
        assert (asked["mem_mb"], asked["gpu"], asked["runtime"]) == ("16000", "1", str(minutes))


def test_no_job_is_without_limits(planned: list[str]) -> None:
    """What is not named in the profile has its default memory and time; only the targets stay on the login node."""
    jobs = [job for job in planned if job.startswith("rule ")]
    assert {job.split(":")[0] for job in jobs} > {"rule tables", "rule chapter", "rule pages"}
    assert all("runtime=" in job and "mem_mb=" in job for job in jobs)
