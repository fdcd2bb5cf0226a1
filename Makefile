# Everything here uses .venv of this folder and makes it when it is missing; see tools/setup.sh for the options.
#   make setup [GPU=1]   the environment
#   make setup SITE=1    the same beside the site's own MPI, TensorFlow and Horovod (modules, conda), used as they are
#   make demo            the environment, 24,000 events, a training on two ranks, score, samples, report
#   make notebooks       the environment with Jupyter, and JupyterLab in the folder of the notebooks
#   make test            the environment, the linters, Chromium where there is no browser, all tests but those of the next line
#   make coverage      those tests with the lines that they reach, in the terminal and coverage.xml: a fifth more time
#   make docs          the site of the documentation in site/; a warning or a broken link is an error
#   make test-slurm      the tests on a real Slurm of four nodes, which it installs where it can
#   make test-matrix     the tests without those of whole jobs, on each TensorFlow that is supported; or on those of
#                        TENSORFLOW="2.18.1 2.21.0"
#   make test-container  the image of containers/, built by its recipe's steps in a root file system of its own: slow, as root
#   make test-faults     all tests of faults, all variants of all others, ten times as many examples: some hours
SHELL := /bin/bash
# Paths may have spaces, which make's own functions take for several words: the shell is given them in quotes.
VENV ?= $(or $(HPCGAN_VENV),.venv)
PY := "$(VENV)/bin/python"
GPU ?= 0
SITE ?= $(or $(HPCGAN_SITE),$(shell [ ! -d "$(VENV)/setup-site" ] || echo 1))  # as it was made
TRAIN := $(if $(filter 1,$(GPU)),gpu,train)
# What needs a real Slurm, which `make test-slurm` installs.
ON_SLURM := $(addprefix tests/integration/,test_slurm_jobs.py test_slurm_clusters.py test_staging_jobs.py)
export HPCGAN_VENV := $(if $(filter /%,$(firstword $(VENV))),$(VENV),$(CURDIR)/$(VENV))
export HPCGAN_GPU := $(GPU)
export HPCGAN_SITE := $(if $(filter 1,$(SITE)),1,0)
unexport PYTHONDONTWRITEBYTECODE  # or each of the many processes of the tests would compile them anew

.PHONY: setup setup-dev demo notebooks test test-slurm test-container test-faults test-matrix coverage docs lint format clean

setup:
	@tools/setup.sh $(TRAIN)

setup-dev:
	@tools/setup.sh $(TRAIN) dev

demo: setup
	@tools/demo.sh

notebooks:
	@tools/setup.sh $(TRAIN) sweep interactive serve
	"$(VENV)/bin/jupyter" lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/

test: setup-dev
	@tools/browser.sh
	@tools/test.sh $(ON_SLURM:%=--ignore=%)

coverage: setup-dev
	@tools/test.sh $(ON_SLURM:%=--ignore=%) -p pytest_cov --cov --cov-report=term --cov-report=xml

# In an environment of its own, which needs neither TensorFlow nor MPI.
docs:
	@HPCGAN_VENV="$(CURDIR)/.venv-docs" tools/setup.sh docs
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict --site-dir site

test-slurm: setup-dev
	@tools/slurm.sh
	$(PY) -m pytest -n 2 --dist loadfile $(ON_SLURM) tests/single/test_slurm.py

# The image of containers/ in a root file system that debootstrap makes.
test-container: setup-dev
	@tools/debootstrap.sh
	$(PY) -m pytest tests/container

test-faults: setup-dev
	@tools/slurm.sh
	$(PY) -m pytest --faults tests/integration/test_faults.py tests/integration/test_slurm_jobs.py tests/integration/test_chaos.py \
		tests/integration/test_serve.py tests/integration/test_sweep.py tests/integration/test_trackers.py \
		tests/integration/test_train_command.py \
		tests/parallel tests/single

# Each in an environment of its own, in .venvs.
test-matrix:
	@tools/matrix.sh $(TENSORFLOW)

lint: setup-dev
	@tools/lint.sh

format: setup-dev
	$(PY) -m ruff check --fix-only --quiet .
	$(PY) -m ruff format .

clean:
	rm -rf build dist site coverage.xml .coverage* *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path "./.venv*" -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
