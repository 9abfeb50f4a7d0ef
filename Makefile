# make quickstart   a synthetic data set, a training of three minutes on two cores, an AP table and pictures
# make test         the test suite, under 15 minutes on two cores
# make test-all     that and the long runs: every matcher, sampler, loss and cascade swap trained to AP50 >= 80,
#                  and a small version of every component to AP50 >= 90 on the eight images it is trained on
# make test-floor   the test suite on the oldest torch and torchvision that are supported
# make lint         ruff and mypy

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test test-all test-floor lint clean

$(VENV)/.installed: setup.py
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "frcnn needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; choose one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

quickstart: $(VENV)/.installed
	$(BIN)/python tools/make_shapes.py --output datasets/shapes
	$(BIN)/python tools/train_net.py --config-file configs/quickstart.yaml

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "slow or not slow"

test-floor: setup.py
	test -d .venv-floor || $(PYTHON) -m venv .venv-floor
	.venv-floor/bin/python -m pip install --quiet "torch==2.11.*" "torchvision==0.26.*"
	.venv-floor/bin/python -m pip install --quiet --editable ".[dev]" "torch==2.11.*" "torchvision==0.26.*"
	.venv-floor/bin/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .venv-floor build dist *.egg-info
