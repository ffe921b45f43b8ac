# Every target makes its own virtual environment and installs what it needs, from nothing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
# See reference_training/__init__.py; the tests deserve the same.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help run test check format bench test-gpu bench-gpu clean

help:    ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/:/'

run: $(VENV)/.train   ## the main job: train, evaluate and report on embedded images (ARGS="--help")
	$(BIN)/python -m reference_training.run $(ARGS)

test: $(VENV)/.test   ## all tests
	$(BIN)/python -m pytest -n auto $(ARGS)

check: $(VENV)/.dev   ## style, formatting, types, the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## mends what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench ## the loss on this CPU against torch eager, torch.compile and NumPy
	$(BIN)/python -m benchmarks.cpu --out runs/benchmarks/cpu.json $(ARGS)

test-gpu: $(VENV)/.test ## the tests that need a GPU
	$(BIN)/python -m pytest -m gpu $(ARGS)

bench-gpu: $(VENV)/.bench ## the fused kernels on this GPU
	$(BIN)/python -m benchmarks.gpu --out runs/benchmarks/gpu.json $(ARGS)

clean:   ## removes the environment and all that was made, except runs/
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ulfd needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp for each extra: what is installed is installed again when pyproject.toml changes.
$(VENV)/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
