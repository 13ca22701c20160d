# The study as a graph of files. `make` is its front door; every rule calls one hnlib command.
#
#   prepare - describe - train and measure (one run each) - tables - chapters - site
#
# A run is found again in HNLIB_RUNS by the digest of all that moves its result, so a rule that
# starts anew continues a killed run and returns a finished one at once.

import glob
import os
import sys

from hnlib.errors import HnlibError
from hnlib.experiments import load_profile

DATASET = config.get("dataset", "phantom")
PROFILE = config.get("profile", "phantom")
DATA_ROOT = config.get("data_root", "")
ARMS = config.get("arms", "")
PUBLISHED = config.get("tables", "")

try:
    SETTINGS = load_profile(PROFILE)
    EXPERIMENTS = SETTINGS.runs_with(ARMS)
except HnlibError as fault:
    sys.exit(f"hnlib: {fault}")

STUDY = f"results/{DATASET}/{PROFILE}/study.json"
RUNS = [f"{experiment}-seed{seed}" for experiment in EXPERIMENTS for seed in SETTINGS.seeds_for(experiment)]
TABLES = f"{PUBLISHED}/{DATASET}" if PUBLISHED else f"results/{DATASET}"
# What any chapter may read beside the tables of its study.
SHARED = [
    "book/claims.yaml",
    *sorted(glob.glob("src/hnlib/chapters/*.py") + glob.glob("src/hnlib/plotting/*.py")),
    *sorted(path for path in glob.glob("results/published/**/*.*", recursive=True) if not path.endswith("status.json")),
]
CHAPTERS = sorted(os.path.splitext(name)[0] for name in os.listdir("notebooks") if name.endswith(".ipynb"))
SITE = "build/site/_build/html/index.html"


localrules:
    book,
    site,


rule book:
    input:
        SITE,


rule site:
    input:
        SITE,


rule prepare:
    output:
        STUDY,
    threads: 2
    shell:
        "hnlib prepare {DATASET} {PROFILE} --data-root '{DATA_ROOT}' --out {output}"
        " && hnlib estimate {output} --arms '{ARMS}'"


rule describe:
    input:
        STUDY,
    output:
        [f"results/{DATASET}/{name}" for name in ("dataset.csv", "imbalance.csv", "landscape.csv", "landscape_classes.csv", "study.json")],
    threads: 2
    shell:
        "OMP_NUM_THREADS=1 hnlib describe {input} --out results/{DATASET}"


rule train:
    input:
        study=STUDY,
        notebook="notebooks/08_training.ipynb",
    output:
        f"results/{DATASET}/{PROFILE}/trained/{{experiment}}-seed{{seed}}.json",
    log:
        notebook=f"build/runs/{DATASET}-{PROFILE}-{{experiment}}-seed{{seed}}.ipynb",
    threads: workflow.cores
    resources:
        mem_mb=8000,
        gpu=1,
    shell:
        "OMP_NUM_THREADS={threads} hnlib notebook {input.notebook} {log.notebook} -p study=$PWD/{input.study}"
        " -p experiment={wildcards.experiment} -p seed={wildcards.seed} -p record=$PWD/{output}"


rule measure:
    input:
        study=STUDY,
        trained=rules.train.output,
    output:
        f"results/{DATASET}/{PROFILE}/measured/{{experiment}}-seed{{seed}}.json",
    threads: workflow.cores
    resources:
        mem_mb=8000,
        gpu=1,
    shell:
        "OMP_NUM_THREADS={threads} hnlib measure {input.study} {wildcards.experiment} {wildcards.seed} --out {output}"


rule tables:
    input:
        study=STUDY,
        described=rules.describe.output,
        runs=expand(f"results/{DATASET}/{PROFILE}/measured/{{run}}.json", run=RUNS),
    output:
        [
            f"results/{DATASET}/{name}.csv"
            for name in ("metrics", "confidence", "confidence_quantiles", "history", "runs")
        ],
    shell:
        "hnlib tables {input.study} --out results/{DATASET}"


rule chapter:
    input:
        notebook="notebooks/{chapter}.ipynb",
        tables=[] if PUBLISHED else [*rules.describe.output, *rules.tables.output],
        shared=SHARED,
    output:
        "build/chapters/" + TABLES.replace("/", "-") + "/{chapter}.ipynb",
    log:
        notebook="build/executed/" + TABLES.replace("/", "-") + "/{chapter}.ipynb",
    threads: 1
    shell:
        "OMP_NUM_THREADS=1 hnlib notebook {input.notebook} {log.notebook} -p tables=../{TABLES}"
        " && cp {log.notebook} {output}"


rule scripts:
    # Scripts from npm that the site carries along and its tests use; without node the still pictures stay.
    input:
        "book/package-lock.json",
    output:
        touch("build/node/.ready"),
    shell:
        "cp book/package.json {input} build/node/ && (cd build/node && npm ci --ignore-scripts --silent)"
        " || echo 'the scripts from npm cannot be installed here; viewers of scans will be still pictures' >&2"


rule pages:
    input:
        scripts=rules.scripts.output,
        chapters=expand("build/chapters/" + TABLES.replace("/", "-") + "/{chapter}.ipynb", chapter=CHAPTERS),
        pages=[os.path.join(folder, name) for folder, _, names in os.walk("book") for name in names],
        status=glob.glob("results/published/status.json"),
    output:
        SITE,
    log:
        "build/site.log",
    shell:
        "rm -rf build/book_src && cp -r book build/book_src && mkdir -p build/book_src/executed"
        " && cp {input.chapters} build/book_src/executed/"
        " && (jupyter-book build build/book_src --path-output build/site --all -W -n --keep-going > {log} 2>&1"
        " || (tail -40 {log} && exit 1))"
