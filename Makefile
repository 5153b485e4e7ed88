## make reproduce   the study: set-up, data, simulations, figures, claims, report
## make test        the tests
## make smoke       a miniature of the whole study, in build/smoke
## make slurm-test  the miniature through a Slurm that it installs (as root, by apt-get), starts and stops
## make chaos       faults done to the pipeline, and what becomes of it (as root: all of them)
## make lint        style, types, the workflow's own checks, known vulnerabilities
## make bench       speed and memory against the named alternatives
## make lock        requirements.lock from pyproject.toml (needs uv)
## make clean       remove .venv, build and caches; results stay
## Options: CORES=2 PYTHON=python3; REQUIRED=1: slurm-test and chaos fail where they cannot test
##          SEED=1 KILLS=20 FAULTS=kill,disk: of chaos

CORES ?= 2
PYTHON ?= python3
UV ?= uv

SNAKEMAKE = .venv/bin/snakemake --cores $(CORES)

.PHONY: help reproduce test smoke slurm-test chaos lint bench lock clean python

help:
	@sed -n 's/^## //p' Makefile

reproduce: .venv/.installed
	$(SNAKEMAKE)

test: .venv/.installed
	.venv/bin/pytest

smoke: .venv/.installed
	$(SNAKEMAKE) --configfile config/smoke.yaml --directory build/smoke

slurm-test: .venv/.installed
	.venv/bin/python tests/system/slurm.py $(if $(REQUIRED),--required)

chaos: .venv/.installed
	$(SNAKEMAKE) results/data/mnist.nc results/data/fashion_mnist.nc results/data/cifar10.nc
	.venv/bin/python tests/system/chaos.py $(if $(SEED),--seed $(SEED)) $(if $(KILLS),--kills $(KILLS)) $(if $(FAULTS),--faults $(FAULTS)) $(if $(REQUIRED),--required)

lint: .venv/.installed
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/snakefmt --check Snakefile workflow
	.venv/bin/mypy
	.venv/bin/snakemake --lint
	.venv/bin/python tests/system/audit.py

bench: .venv/.installed build/bench-venv/.installed
	$(SNAKEMAKE) results/data/mnist.nc results/data/fashion_mnist.nc results/data/cifar10.nc
	.venv/bin/python benchmarks/function_space.py
	.venv/bin/python benchmarks/linear_regression.py
	.venv/bin/python benchmarks/splitting.py
	.venv/bin/python benchmarks/noise_strength.py
	.venv/bin/python benchmarks/training_step.py
	.venv/bin/python benchmarks/spectrum.py

# What builds the package is locked too, so that installing it fetches nothing unpinned.
lock:
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	| $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --python-version 3.11 --extra test --extra slurm --custom-compile-command "make lock" -o requirements.lock pyproject.toml -

clean:
	rm -rf .venv build .cache .pytest_cache .mypy_cache .ruff_cache src/*.egg-info

# The stamp comes last and --clear removes it first: an interrupted set-up starts afresh.
.venv/.installed: requirements.lock pyproject.toml | python
	@echo "Installing into .venv: about a minute, and 1 GB of disk"
	$(PYTHON) -m venv --clear .venv
	.venv/bin/pip install --quiet --require-hashes -r requirements.lock
	.venv/bin/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# The versions stand in this file.
build/bench-venv/.installed: Makefile | python
	$(PYTHON) -m venv --clear build/bench-venv
	build/bench-venv/bin/pip install --quiet numpy \
		torch==2.13.0 torchvision==0.28.0 backpack-for-pytorch==1.7.1
	@touch $@

python:
	@$(PYTHON) -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "error: needed is Python 3.11 or newer with its venv module, but '$(PYTHON)' is not that." \
	"On Debian and Ubuntu: apt-get install python3-venv. Another one: make PYTHON=python3.12" >&2; exit 1; }
