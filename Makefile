# Every target makes .venv when it is missing; a fresh machine needs Python 3.11 and make, nothing else.
PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help run demo test check format bench bench-training bench-prompts resume-kills clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.venv/installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is needed; or: make PYTHON=python3.12 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --editable '.[dev]'
	@touch $@

run: .venv/installed ## the studio on http://127.0.0.1:8000
	$(BIN)/ganvas up

demo: .venv/installed ## the whole story by itself: upload, train a minute, draw; sheets in demo-output/
	$(BIN)/ganvas demo

test: .venv/installed-dev ## the default tests
	$(BIN)/python -m pytest

check: .venv/installed-dev ## ruff, mypy --strict, import contracts, docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/docs

format: .venv/installed-dev ## ruff's fixes and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed-dev ## serving and training-loop ratios
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/loop_overhead.py

bench-training: .venv/installed-dev ## the line-up: every preset and a peer, ten minutes each
	$(BIN)/python benchmarks/training.py --minutes 10 --out benchmarks/results/line-up

bench-prompts: .venv/installed-dev ## prompts on coloured shapes, and on the bundled model
	$(BIN)/python benchmarks/shapes.py --minutes 15 --out benchmarks/results/shapes
	$(BIN)/python benchmarks/groups.py

resume-kills: .venv/installed-dev ## twenty kills, twenty equal hashes
	$(BIN)/python benchmarks/resume_kills.py

clean: ## remove what make made; data/ and demo-output/ stay
	rm -rf .venv *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
