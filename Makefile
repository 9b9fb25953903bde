# Everything a newcomer needs: `make run` and `make test`. Python 3.11 to 3.13, make and git are all it assumes.
SHELL := /bin/sh
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys, ensurepip, venv; sys.exit(not (3,11) <= sys.version_info[:2] <= (3,13))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8600
CONTROL_PORT ?= 8601
HOME_DIR ?= .groundplan
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# What is loaded is compiled once, not by every process again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup setup-dev run test check bench bench-knowledge soak screenshots lock clean

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

$(VENV)/.installed: requirements/run.txt pyproject.toml scripts/setup.sh
	@sh scripts/setup.sh "$(PYTHON)" $(VENV) requirements/run.txt && touch $@

$(VENV)/.installed-dev: requirements/dev.txt requirements/clients.txt pyproject.toml scripts/setup.sh scripts/clients.sh scripts/node.sh tests/node/package-lock.json
	@sh scripts/setup.sh "$(PYTHON)" $(VENV) requirements/dev.txt && $(BIN)/python scripts/models.py && sh scripts/clients.sh $(VENV) && sh scripts/node.sh $(VENV) && touch $@ $(VENV)/.installed

run: setup
	@exec $(BIN)/groundplan up --workspace examples/company --home $(HOME_DIR) --port $(PORT) --control-port $(CONTROL_PORT) --demo --tour

test: setup-dev
	@sh scripts/chromium.sh
	@$(BIN)/python -m pytest -q -n 6 --dist loadfile --no-loadscope-reorder -m "not soak"

check: setup-dev
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

# PEERS="--peer 'NAME=COMMAND' ..." measures other gateways beside ours; docs/performance.md has their commands.
bench: setup-dev
	$(BIN)/python benchmarks/gateway.py --all $(PEERS)
	$(BIN)/python benchmarks/audit_append.py
	$(BIN)/python benchmarks/policy.py
	$(BIN)/python benchmarks/governed_path.py
	$(BIN)/python benchmarks/guardrails.py
	$(BIN)/python benchmarks/revocation.py
	$(BIN)/python benchmarks/placement_scale.py --lose
	$(BIN)/python benchmarks/placement_random.py
	@$(MAKE) --no-print-directory bench-knowledge

# Short forms, a few minutes each; docs/performance.md has the long ones. CHUNKING=DIR measures that set too.
bench-knowledge: setup-dev
	$(BIN)/python benchmarks/knowledge_scale.py --asked 40 --seconds 4
	$(BIN)/python benchmarks/knowledge_leaks.py --seconds 60 --rounds 5
	-$(BIN)/python benchmarks/knowledge_side_channels.py --pairs 3000
	$(BIN)/python benchmarks/knowledge_ingest.py
	$(BIN)/python benchmarks/knowledge_duplicates.py
	$(BIN)/python benchmarks/knowledge_embedding.py --texts 48 --rounds 3 --batches 4 8 16
	$(BIN)/python benchmarks/knowledge_beir.py
	$(BIN)/python benchmarks/knowledge_citations.py
	$(if $(CHUNKING),$(BIN)/python benchmarks/knowledge_chunking.py $(CHUNKING))

soak: setup-dev
	$(BIN)/python -m pytest -q -m soak --timeout 7200

screenshots: setup-dev
	@sh scripts/chromium.sh
	$(BIN)/python -m groundplan.testing.screenshots docs/pictures

lock:
	@sh scripts/lock.sh

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
