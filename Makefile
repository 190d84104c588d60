# Every target has a `##` line, which is what `make` alone prints. Recipes are one line; what is
# longer is a file in tools/.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash
# `python -m` finds the packages of this folder, and tools their plugins, without activation.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

PY := .venv/bin/python
DEV := .venv/.dev
IMAGE := examples/counter/image/index.json

.PHONY: help dev runsc demo test matrix e2e check proto-check docs-check lint types bench bench-quick \
	proto docs fmt clean

help: ## print the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

$(DEV): pyproject.toml tools/dev tools/setup
	@tools/dev $@

$(IMAGE): $(DEV) $(wildcard examples/counter/*.py)
	@$(PY) examples/counter/build_image.py

dev: $(DEV) $(IMAGE) ## Python environment in .venv, with the command `ate`, and the demo's image

runsc: ## build the pinned runsc, once, into the user's cache; print its path (RUNSC=PATH: use that)
	@python3 tools/runsc/build.py

demo: ## the story on this machine with real sandboxes (root; sets up all that it needs)
	@tools/demo

test: dev ## all tests but e2e
	@$(PY) -m pytest -rs --ignore=tests/e2e $(ARGS)

matrix: dev ## every case of the matrix of failures; `make test` runs a quarter of them
	@MATRIX=all $(PY) -m pytest tests/system/test_matrix.py $(ARGS)

e2e: ## the tests with a real runsc (root)
	@tools/e2e $(ARGS)

check: proto-check docs-check lint types ## generated files in sync, lint, types

proto-check: $(DEV) ## generated code in atepb/ is what proto/ says
	@$(PY) tools/gen_protos.py --check

docs-check: $(DEV) ## generated parts of docs/ are what the code says
	@$(PY) -m tools.gen_docs --check

lint: $(DEV) ## ruff and the import contracts
	@ruff check . && ruff format --check . && lint-imports

types: $(DEV) ## mypy and pyright
	@mypy && pyright

bench: dev ## figures of the control service and of real activations (root), in minutes
	@$(PY) -m bench $(ARGS)

bench-quick: dev ## the same, coarser, in under a minute
	@$(PY) -m bench --quick $(ARGS)

proto: $(DEV) ## generate atepb/ from proto/
	@$(PY) tools/gen_protos.py

docs: $(DEV) ## generate docs/errors.md, docs/failpoints.md and the state diagram
	@$(PY) -m tools.gen_docs

fmt: $(DEV) ## format and mend what can be mended
	@ruff check --fix-only . ; ruff format .

clean: ## remove the environment, caches and outputs (not the cached runsc)
	@tools/clean
