# Every target makes its own virtual environment and installs what it needs, from nothing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
LOWEST := $(VENV)-lowest
NEWEST := $(VENV)-newest
NEWEST_PYTHON ?= python3.13
NATIVE := $(wildcard ulfd/kernels/cpu/*pp ulfd/kernels/cpu/CMakeLists.txt)
# See reference_training/__init__.py; the tests deserve the same.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help environment run test test-lowest test-newest check format docs bench bench-compare bench-published test-gpu bench-gpu gpu package clean

help:    ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/:/'

run: $(VENV)/.train   ## the main job: train, evaluate and report on embedded images (ARGS="--help")
	$(BIN)/python -m reference_training.run $(ARGS)

test: $(VENV)/.test $(VENV)/.jax-lowering   ## all tests
	$(BIN)/python -m pytest -n auto $(ARGS)

test-lowest: $(LOWEST)/.installed $(LOWEST)-jax-gpu/.installed ## with the lowest versions that pyproject.toml promises
	$(LOWEST)/bin/python -m pytest -n auto $(ARGS) $(VERSION_TESTS)
	$(LOWEST)-jax-gpu/bin/python -m pytest $(ARGS) tests/ulfd_jax/test_triton.py

test-newest: $(NEWEST)/.installed ## with the newest versions there are (NEWEST_PYTHON=python3.13)
	$(NEWEST)/bin/python -m ulfd.env
	$(NEWEST)/bin/python -m pytest -n auto $(ARGS) $(VERSION_TESTS)

check: $(VENV)/.dev   ## style, formatting, types, the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## mends what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs   ## the documentation, build/docs/index.html; its code blocks are among the tests
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs

# Medians are printed; Min is what pytest-benchmark can sort by.
SUITE := -m pytest benchmarks --benchmark-columns=min,median,iqr,rounds

bench: $(VENV)/.bench ## the suite: each case beside its peers, saved in .benchmarks/ (ARGS=--everything)
	$(BIN)/python $(SUITE) --benchmark-sort=min --benchmark-autosave $(ARGS)

bench-compare: $(VENV)/.bench ## the suite again, with the ratio of each case to the last saved run
	$(BIN)/python $(SUITE) --benchmark-sort=name --benchmark-group-by=group,name \
		--benchmark-compare $(ARGS)

bench-published: $(VENV)/.bench ## the published measurement of the loss on this CPU, candidates by turns
	$(BIN)/python -m benchmarks.cpu --out runs/benchmarks/cpu.json $(ARGS)

test-gpu: $(VENV)/.test ## the tests that need a GPU
	$(BIN)/python -m pytest -m gpu $(ARGS)

bench-gpu: $(VENV)/.bench ## the published measurement of the fused kernels on this GPU
	$(BIN)/python -m benchmarks.gpu --out runs/benchmarks/gpu.json $(ARGS)

gpu: $(VENV)/.bench ## everything that a GPU can show, by phases, and a page of it (resumable; without a GPU its smallest form)
	$(BIN)/python -m benchmarks.gpu_page $(ARGS)

# The Pythons that the wheel is tried with, where they are here.
PYTHONS ?= python3.11 python3.12 python3.13 python3.14

package: $(VENV)/.dev  ## the sdist and the wheel, each installed and used, with the lowest NumPy and every Python here; and without a compiler
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	[ "$$(uname)" != Linux ] || $(BIN)/python tests/packaging/manylinux.py dist/*.whl
	$(BIN)/python -m twine check --strict dist/*
	$(PYTHON) -m venv dist/compiled
	$(PYTHON) tests/packaging/lowest.py > dist/lowest.txt
	dist/compiled/bin/pip install --quiet --disable-pip-version-check \
		--constraint dist/lowest.txt dist/*.whl
	cd dist && compiled/bin/python -P ../tests/packaging/smoke.py native
	for python in $(PYTHONS); do \
		$$python -c '' 2> /dev/null || { echo "There is no $$python here."; continue; }; \
		$$python -m venv dist/$$python && dist/$$python/bin/python -m pip install --quiet \
			--disable-pip-version-check dist/*.whl && \
			(cd dist && $$python/bin/python -P ../tests/packaging/smoke.py native) || exit 1; \
	done
	CXX=/bin/false $(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps \
		--wheel-dir dist/pure dist/*.tar.gz
	$(PYTHON) -m venv dist/interpreted
	dist/interpreted/bin/pip install --quiet --disable-pip-version-check dist/pure/*-any.whl
	cd dist && interpreted/bin/python -P ../tests/packaging/smoke.py composite

clean:   ## removes the environment and all that was made, except runs/
	rm -rf $(VENV) $(LOWEST) $(LOWEST)-jax-gpu $(NEWEST) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ulfd needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# What lowers JAX programs for CUDA without a GPU: 8 MB of the plugin. Its dependencies, 125 MB that
# talk to a driver, are left out, which an extra cannot say. Without it those tests are skipped.
$(VENV)/.jax-lowering: $(VENV)/.test
	[ "$$(uname)" != Linux ] || $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps "jax-cuda13-plugin==$$($(BIN)/python -c 'import jax; print(jax.__version__)')"
	@touch $@

# One stamp for each extra: what is installed is installed again when pyproject.toml or the native
# kernel changes.
$(VENV)/.%: pyproject.toml $(NATIVE) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

# All of them in one installation, for each builds the package: a minute and a half less in CI.
EXTRAS_HERE := test dev docs bench
environment: $(VENV)/.environment ## what check, docs, test and bench need, installed at once
$(VENV)/.environment: pyproject.toml $(NATIVE) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--editable ".[$$(echo $(EXTRAS_HERE) | tr ' ' ,)]"
	@touch $(EXTRAS_HERE:%=$(VENV)/.%) $@

# The lowest and the newest versions, in environments of their own. The Triton kernels in JAX need a
# newer Triton than the lowest torch is tied to, hence two of the lowest.
TOOLS := pytest pytest-xdist hypothesis array-api-strict scikit-image optax
VERSION_TESTS := tests/ulfd tests/ulfd_torch tests/ulfd_jax tests/conformance \
	tests/benchmarks/test_parity.py tests/test_imports.py tests/reference_training/training/test_checkpoint.py \
	tests/reference_training/corruptions/test_sheet.py
$(LOWEST)/.installed $(NEWEST)/.installed: EXTRAS := train,triton,timm,jax
$(LOWEST)-jax-gpu/.installed: EXTRAS := jax-gpu

$(LOWEST)/.installed $(LOWEST)-jax-gpu/.installed: pyproject.toml $(NATIVE) tests/packaging/lowest.py
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(PYTHON) tests/packaging/lowest.py $(EXTRAS) > $(@D)/lowest.txt
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint $(@D)/lowest.txt $(TOOLS) --editable '.[$(EXTRAS)]'
	[ "$$(uname)" != Linux ] || $(@D)/bin/python -m pip install --quiet --disable-pip-version-check \
		--no-deps "jax-cuda13-plugin==$$($(@D)/bin/python -c 'import jax; print(jax.__version__)')"
	@touch $@

$(NEWEST)/.installed: pyproject.toml $(NATIVE)
	@$(NEWEST_PYTHON) -c '' || { echo "There is no $(NEWEST_PYTHON) here; name another Python:" \
		"make test-newest NEWEST_PYTHON=python3.12"; exit 1; }
	rm -rf $(@D)
	$(NEWEST_PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check \
		$(TOOLS) --editable '.[$(EXTRAS)]'
	@touch $@
