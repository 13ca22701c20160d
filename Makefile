# The front door. Every verb is one call; the work is described in Snakefile and in the hnlib command.
#
#   make book                                   the whole study on the phantom, then the book
#   make book DATASET=openkbp DATA_ROOT=~/open-kbp/provided-data PROFILE=laptop
#   make test                                   every test that this machine can run

PY ?= python3
DATASET ?= phantom
PROFILE ?= $(if $(filter phantom,$(DATASET)),phantom,laptop)
DATA_ROOT ?=
DATA := $(patsubst ~/%,$(HOME)/%,$(DATA_ROOT))
CORES ?= $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
# Run folders and checkpoints live outside the checkout, so that they survive it.
HNLIB_RUNS ?= $(HOME)/.cache/hnlib/runs
export HNLIB_RUNS

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Peers of the benchmarks, in a folder of their own: they are no part of the environment.
PEERS := $(VENV)/peers
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Snakemake's own lock outlives a kill and then refuses to start; flock's ends with the process that held it.
FLOCK := $(if $(shell command -v flock 2>/dev/null),flock --nonblock --conflict-exit-code 75 build/.lock)
NBSTRIPOUT := nbstripout --keep-id --extra-keys "metadata.papermill cell.metadata.papermill metadata.language_info.version"

# $(call workflow,TARGET,CONFIG): run the rules that lead to TARGET, then say where the book is.
define workflow
@mkdir -p build
$(FLOCK) $(BIN)/snakemake $(1) --workflow-profile workflow/profile --cores $(CORES) $(if $(FLOCK),--nolock) \
	--config $(2) || { status=$$?; \
	[ $$status -ne 75 ] || echo "another make is building the book in this checkout; wait for it or stop it" >&2; \
	exit $$status; }
@echo "The book: $(CURDIR)/build/site/_build/html/index.html"
endef

.DEFAULT_GOAL := help
.PHONY: help setup book site test lint format peers bench lab publish check-published lock clean

help: ## list these verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make the virtual environment with the locked packages and this library

$(READY): requirements.lock pyproject.toml
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "hnlib needs Python 3.11 or newer; say which with: make setup PY=/path/to/python3.11" >&2; exit 1; }
	$(PY) -m venv $(VENV)
	@echo "Installing the locked packages: some minutes and about 2 GB"
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

book: $(READY) ## run the study (DATASET, PROFILE, DATA_ROOT), then build the book from its tables
	$(call workflow,book,dataset=$(DATASET) profile=$(PROFILE) $(if $(ARMS),"arms=$(ARMS)") $(if $(DATA),"data_root=$(DATA)"))

site: DATASET = openkbp
site: $(READY) ## build the book from the published tables, without training
	$(call workflow,site,dataset=$(DATASET) tables=results/published)

test: $(READY) ## run the tests; HNLIB_FULL=1 adds the browser, kill, wheel and multi-process tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadgroup $(ARGS)

lint: $(READY) ## check format, style, types and notebooks
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/$(NBSTRIPOUT) --verify notebooks/*.ipynb

format: $(READY) ## put code and notebooks into their committed form
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	$(BIN)/$(NBSTRIPOUT) notebooks/*.ipynb

peers: $(PEERS)/.ready ## install nnU-Net for make bench and for the tests of its command line, beside the environment

$(PEERS)/.ready: benchmarks/peers.txt | $(READY)
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(PEERS) --requirement benchmarks/peers.txt
	@touch $@

bench: $(READY) ## time the costly steps beside their peers (ARGS="scan loading" takes two of the groups)
	@$(MAKE) --silent peers || echo "nnU-Net cannot be installed here; the rows that compare with it will say so" >&2
	HNLIB_PEERS=$(PEERS) $(BIN)/python -m benchmarks $(ARGS)

lab: $(READY) ## open the notebooks in JupyterLab with the kernel "hnlib"
	$(BIN)/python -m ipykernel install --sys-prefix --name hnlib --display-name hnlib
	$(BIN)/jupyter lab notebooks

publish: $(READY) ## copy the finished runs of DATASET and PROFILE to results/published
	$(BIN)/hnlib publish results/$(DATASET)/$(PROFILE)/study.json

check-published: $(READY) ## say which published tables are stale (ACCEPT="why they still hold" records that they are not)
	$(BIN)/hnlib check-published $(if $(ACCEPT),--accept "$(ACCEPT)")

lock: $(READY) ## renew requirements.lock from pyproject.toml, keeping what still fits (ARGS=--upgrade to move on)
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --extra dicom --extra atlas --extra book --extra slurm --extra dev --strip-extras --allow-unsafe \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --annotation-style line \
		--output-file requirements.lock $(ARGS) pyproject.toml
	@sed -i.bak -E 's/^(torch==[0-9.]+)\+[a-z0-9]+ */\1             /' requirements.lock && rm requirements.lock.bak

clean: ## remove what was built; keeps .venv, the cache, the runs and results/
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
