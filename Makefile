# Every target makes and reuses one project-local environment and installs into it, from constraints.txt, what it needs.
# On the machine itself: Python 3.10 or later with venv, a C++20 compiler (g++ 12, clang 15) and make.
#
#   make test PYTHON=python3.12     another interpreter (make clean first, if an environment exists)

PYTHON ?= python3
VENV := $(CURDIR)/.venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --quiet
# Builds against the torch in .venv; without isolation pip refuses to hear of constraints for it.
# What a build needs to find Python's headers, asked for when the environment is there.
HEADERS = $(shell $(PY) tools/python_headers.py)
EDITABLE = $(HEADERS) PIP_BUILD_CONSTRAINT= $(PIP) install --no-build-isolation --editable

# One list of versions for every pip call, isolated builds included; pip 25.3 and later read the second name for those.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_BUILD_CONSTRAINT := $(PIP_CONSTRAINT)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
export VIRTUAL_ENV := $(VENV)
export PATH := $(VENV)/bin:$(PATH)

PARTS := lint python cpp cuda wheel abi asan tsan arm wasm browser
NATIVE := pyproject.toml CMakeLists.txt $(shell find cmake csrc -name '*.txt' -o -name '*.cmake' -o -name '*.h' -o -name '*.cpp')
.DEFAULT_GOAL := help
.PHONY: help demo test bench lint docs format wasm-package browser clean $(PARTS:%=test-%)

help:
	@echo 'make demo     sparsify a sentence encoder and run it faster; tables and figures in demo_output/'
	@echo '              make demo MODEL=recognizer: the same with a network that reads text'
	@echo 'make test     every test; one part alone: $(PARTS:%=test-%)'
	@echo 'make bench    kernels and layers beside their peers; results in benchmarks/results/'
	@echo 'make lint     ruff, mypy, clang-format; make format applies what they would change'
	@echo 'make docs     the documentation as a site in build/site/'
	@echo 'make wasm-package   the npm package, both WebAssembly builds in it, in build/npm/sparsecore/'
	@echo 'make browser  a page that runs sparse networks, in build/browser/'
	@echo 'make clean    remove everything the other targets made, the environment included'

# torch comes first and alone, by its pin: a later resolver then finds it there and never looks for another build.
$(VENV)/torch.stamp: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "sparsecore needs Python 3.10 or later, and $(PYTHON) is not. Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments. Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@c++ --version >/dev/null 2>&1 || $${CXX:-false} --version >/dev/null 2>&1 || \
	  { echo "No C++ compiler. Debian and Ubuntu: apt-get install g++ (12 or later)"; exit 1; }
	@echo 'environment: torch and tools into .venv'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PIP) install pip setuptools
	@$(PIP) install torch==$(shell sed -n 's/^torch==//p' constraints.txt)
	@touch $@

$(VENV)/tools.stamp: $(VENV)/torch.stamp pyproject.toml
	@$(PIP) install scikit-build-core pybind11 cmake ninja ruff mypy clang-format
	@touch $@

# Of rapidocr only the weights it ships are used, so nothing it depends on is installed.
# Editable: Python files are used where they lie, the compiled ones are rebuilt when a source below changed.
$(VENV)/package.stamp: $(VENV)/tools.stamp $(NATIVE)
	@echo 'package: build and install, editable'
	@$(EDITABLE) '.[test]'
	@$(PIP) install --no-deps rapidocr
	@touch $@

$(VENV)/demo.stamp: $(VENV)/package.stamp
	@$(EDITABLE) '.[demo]'
	@touch $@

$(VENV)/bench.stamp: $(VENV)/package.stamp
	@$(EDITABLE) '.[bench]'
	@touch $@

$(VENV)/wasm.stamp: $(VENV)/tools.stamp
	@$(PIP) install ziglang
	@touch $@

test: $(VENV)/package.stamp $(VENV)/wasm.stamp
	@$(HEADERS) $(PY) tools/test_parts.py $(PARTS)

$(filter-out test-lint test-python test-cuda test-wasm,$(PARTS:%=test-%)): $(VENV)/tools.stamp
	@$(HEADERS) $(PY) tools/test_parts.py $(@:test-%=%)

test-lint test-python test-cuda: $(VENV)/package.stamp
	@$(HEADERS) $(PY) tools/test_parts.py $(@:test-%=%)

test-wasm: $(VENV)/wasm.stamp
	@$(HEADERS) $(PY) tools/test_parts.py wasm

lint: test-lint

format: $(VENV)/tools.stamp
	@$(PY) tools/lint.py --fix

docs: $(VENV)/package.stamp
	@$(PY) -m mkdocs build --strict --site-dir build/site

# In the test presets' folders, so that what is built there is used; tests are not built.
wasm-package: $(VENV)/wasm.stamp
	@for preset in wasm wasm-relaxed; do \
	  cmake --preset $$preset -DSPARSECORE_TESTS=OFF >/dev/null && \
	  cmake --build --preset $$preset --target sparsecore_npm || exit 1; done

# The networks are made once: delete build/browser/networks for new ones.
BROWSER := build/browser
browser: wasm-package $(VENV)/package.stamp
	@mkdir -p $(BROWSER)/sparsecore
	@cp examples/browser/*.html examples/browser/*.css examples/browser/*.mjs $(BROWSER)
	@cp build/npm/sparsecore/sparsecore*.mjs build/npm/sparsecore/*.wasm $(BROWSER)/sparsecore
	@test -f $(BROWSER)/networks/networks.json || { $(PIP) install scikit-learn && \
	  $(PY) examples/browser/make_networks.py $(BROWSER)/networks; }
	@echo 'Open http://localhost:8000 after: $(PYTHON) -m http.server --directory $(BROWSER)'

demo: $(VENV)/demo.stamp
	@$(PY) -m sparsecore.demo $(MODEL)

bench: $(VENV)/bench.stamp
	@$(PY) benchmarks/run.py

clean:
	rm -rf .venv .cache build dist demo_output .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
