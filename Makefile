# make run     the reconciler in the foreground on a throwaway demo tree; no root, no containerd
# make test    everything; as root it installs the Debian packages the end-to-end tests need
# make lint    ruff, format, types, import contracts, shape of the tree
# make bench   figures beside containerd and find
# make versions  the crash matrix, debris, rounds and churn on containerd 1.7 and 2, which it fetches from other
#                suites of Debian; the tree of sandboxes on 2; and what dockerd leaves
# make soak    the slow tests
# make explore  properties with other examples than those of make test, ten times as many
# make faults  the tests that show faults, and from their report tests/safety/README.md
# make pictures  the pictures and transcripts of README.md, from real runs; as root
# make wheel   dist/*.whl, and dist/constraints.txt with the versions that were tested
# make image   the container image, by docker or another IMAGER, on BASE: a slim Python
# make sdist   dist/*.tar.gz, the sources as a Python package
# make wheelhouse  dist/wheelhouse, with all that an installation without internet takes
# make pyz     dist/*.pyz, all of it in one file, for the version of Python that makes it
# make deb     dist/*.deb, for Debian and the version of Python that makes it
# make clean   remove what the targets above made
#
# ARGS is handed on: make test ARGS='tests/decide -x', make run ARGS='--help'

PYTHON ?= python3
ARGS ?=

# What the tests run besides Python; installed by `make test` when it runs as root on Debian.
PACKAGES := chromium containerd crun runc busybox-static strace util-linux e2fsprogs fuse3 systemd prometheus \
    mandoc zsh fish

# What is run on other versions of containerd. What containerd itself leaves is told first, for all else builds on it.
VERSIONS := versions crash_matrix debris rounds churn

IMAGER ?= docker
BASE ?= python:$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')-slim
IMAGE ?= containerd-reconciler:$(shell sed -n 's/^__version__.*"\(.*\)"/\1/p' reconciler/__init__.py)

VENV := .venv
DIST := dist
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet -c .ci/constraints.txt
WHEEL := $(BIN)/python -m pip --disable-pip-version-check --no-input wheel --quiet

.DEFAULT_GOAL := help
.PHONY: help run test lint bench versions soak explore faults pictures wheel sdist wheelhouse pyz deb image packages clean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

run: $(VENV)/.run
	@exec $(BIN)/containerd-reconciler demo $(ARGS)

test: $(VENV)/.dev $(VENV)/.kubernetes packages
	$(BIN)/python -m tests $(ARGS)

soak: $(VENV)/.dev $(VENV)/.kubernetes packages
	$(BIN)/python -m pytest -m slow $(ARGS)

# As root on Debian 12.
versions: $(VENV)/.dev packages
	@.ci/packages docker.io
	@for suite in trixie sid; do \
	    .ci/containerd $$suite build/containerd-$$suite && \
	    RECONCILER_E2E_CONTAINERD=$$PWD/build/containerd-$$suite \
	    $(BIN)/python -m pytest $(VERSIONS:%=tests/e2e/test_%.py) $(ARGS) || exit; \
	done
	RECONCILER_E2E_CONTAINERD=$$PWD/build/containerd-sid $(BIN)/python -m pytest tests/e2e/test_sandboxes.py $(ARGS)
	$(BIN)/python -m pytest tests/e2e/test_docker.py $(ARGS)

# Each run of the tests draws the same examples, so that none fails by luck (tests/conftest.py).
explore: $(VENV)/.dev
	$(BIN)/python -m pytest -m 'hypothesis and not bench' --hypothesis-profile=explore --timeout=1800 $(ARGS)

faults: $(VENV)/.dev $(VENV)/.kubernetes packages
	mkdir -p build
	$(BIN)/python -m pytest -m 'fault and not bench and not slow' --junitxml=build/faults.xml $(ARGS)
	$(BIN)/python -m tests.safety.table --write build/faults.xml $(HISTORIES)

pictures: $(VENV)/.dev
	@.ci/packages chromium containerd runc busybox-static prometheus
	$(BIN)/python -m tests.pictures
	$(BIN)/python -m tests.fleet.picture
	$(BIN)/python -m tests.minute

bench: $(VENV)/.dev packages
	$(BIN)/python -m tests.bench $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/tree.py

# pip builds in an environment of its own, so nothing needs to be installed for it.
wheel: $(VENV)/.made
	rm -rf $(DIST)
	$(WHEEL) --no-deps --wheel-dir $(DIST) .
	cp .ci/constraints.txt $(DIST)/constraints.txt

# Beside the wheel, not before it: that one empties the directory.
sdist: wheel
	$(PIP) build
	$(BIN)/python -m build --sdist --outdir $(DIST) .

wheelhouse: wheel
	$(WHEEL) -c $(DIST)/constraints.txt --wheel-dir $(DIST)/wheelhouse $(DIST)/*.whl

pyz: wheelhouse
	$(PIP) --no-deps click shiv
	contrib/pyz/build $(BIN)/python $(DIST)/wheelhouse $(DIST)

deb: wheelhouse
	@.ci/packages binutils
	contrib/debian/build $(BIN)/python $(DIST)/wheelhouse $(DIST)

# The wheels are for one version of Python, so the base has the same.
image: wheelhouse
	$(IMAGER) build -f contrib/container/Dockerfile --build-arg BASE=$(BASE) -t $(IMAGE) $(DIST)

packages:
	@.ci/packages $(PACKAGES)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find reconciler tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps live inside the environment, so that removing it removes them. An environment that was
# half made has no stamp and is made afresh.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.13" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || .ci/packages python3-venv
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	    || { echo "$(PYTHON) cannot make environments: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.made pyproject.toml .ci/constraints.txt
	$(PIP) -e .
	@touch $@

$(VENV)/.kubernetes: $(VENV)/.made .ci/kubernetes
	@.ci/kubernetes $(BIN)
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml .ci/constraints.txt
	$(PIP) -e '.[dev]'
	@touch $(VENV)/.run $@
