# Every target makes .venv when it is missing; a fresh machine needs Python 3.11 and make, nothing else.
PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help run demo test check format bench bench-serving bench-engines bench-latents bench-training bench-prompts chaos-short chaos fuzz soak audit sbom resume-kills determinism serving-storm clean

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

.venv/installed-audit: .venv/installed-dev
	$(PIP) --editable '.[audit]'
	@touch $@

run: .venv/installed ## the studio on http://127.0.0.1:8000
	$(BIN)/ganvas up

demo: .venv/installed ## the whole story by itself: upload, train a minute, draw; sheets in demo-output/
	$(BIN)/ganvas demo

test: .venv/installed-dev ## the default tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

CHAOS_TESTS := $(BIN)/python -m pytest -q

chaos-short: .venv/installed-dev ## what Ganvas promises, broken on purpose a few times; CI runs it
	$(CHAOS_TESTS) tests/chaos

chaos: .venv/installed-dev ## the same as often as docs/reliability.md says; two hours or so
	CHAOS=full $(CHAOS_TESTS) tests/chaos --ignore tests/chaos/test_fuzz.py --ignore tests/chaos/test_soak.py

fuzz: .venv/installed-dev ## 20,000 requests made of the OpenAPI document
	CHAOS=full $(CHAOS_TESTS) tests/chaos/test_fuzz.py

soak: .venv/installed-dev ## half an hour of jobs and pictures, watched
	CHAOS=full $(CHAOS_TESTS) tests/chaos/test_soak.py

audit: .venv/installed-audit ## is anything known against what is installed; says so where that cannot be asked
	$(BIN)/python .ci/audit.py

sbom: .venv/installed-audit ## what Ganvas ships with, as CycloneDX in dist/sbom.json
	$(BIN)/python .ci/sbom.py dist/sbom.json

check: .venv/installed-dev ## ruff, mypy --strict, import contracts, docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/docs

format: .venv/installed-dev ## ruff's fixes and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed-dev ## start-up, pictures beside a training, and the training loop
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/beside_training.py
	$(BIN)/python benchmarks/loop_overhead.py

PURELIB := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
# LitServe and BentoML apart, for their pins are not ours; what they share with us, torch above all, is ours.
.venv-peers/installed: .venv/installed benchmarks/peers/requirements.txt
	test -x .venv-peers/bin/python || $(BIN)/python -m venv .venv-peers
	$(BIN)/python $(PURELIB) > "$$(.venv-peers/bin/python $(PURELIB))/ganvas.pth"
	.venv-peers/bin/pip --disable-pip-version-check install --quiet --requirement benchmarks/peers/requirements.txt
	@touch $@

bench-serving: .venv/installed-dev .venv-peers/installed ## Ganvas beside LitServe, BentoML and FastAPI; about an hour
	$(BIN)/python benchmarks/serving.py --markdown --plot docs/images/serving.png

bench-engines: .venv/installed-dev ## ways to run a pass, and ways to write a file
	$(BIN)/python benchmarks/engines.py --markdown
	$(BIN)/python benchmarks/encoders.py

bench-latents: .venv/installed-dev ## loops, ten thousand pictures in a zip, live frames, projection, files proved
	$(BIN)/python benchmarks/loops.py
	$(BIN)/python benchmarks/bulk.py
	$(BIN)/python benchmarks/live.py
	$(BIN)/python benchmarks/proofs.py
	$(BIN)/python benchmarks/projection.py

bench-training: .venv/installed-dev ## the line-up: every preset and a peer, ten minutes each
	$(BIN)/python benchmarks/training.py --minutes 10 --out benchmarks/results/line-up

bench-prompts: .venv/installed-dev ## prompts on coloured shapes, and on the bundled model
	$(BIN)/python benchmarks/shapes.py --minutes 15 --out benchmarks/results/shapes
	$(BIN)/python benchmarks/groups.py

resume-kills: .venv/installed-dev ## twenty kills, twenty equal hashes
	$(BIN)/python benchmarks/resume_kills.py

determinism: .venv/installed-dev ## 10,000 recipes under load, each byte for byte as alone
	$(BIN)/python benchmarks/determinism.py

serving-storm: .venv/installed-dev ## dropped requests, exceptions, deletions; then ten minutes of watched load
	$(BIN)/python benchmarks/serving_storm.py

clean: ## remove what make made; data/ and demo-output/ stay
	rm -rf .venv .venv-peers *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
