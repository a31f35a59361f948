# Masque: every chore of the project. `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
WORKERS ?= 2
NAME ?= masque
IMAGE ?= masque
PARTIES ?=
PORT ?=
WHERE ?= local
FUZZ ?= 1000000
BUILD ?= yes
KILLS ?= 200
SEEDS ?= 2000
SEED ?=
JOBS ?= 100
AT_ONCE ?= 10

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Progress goes to standard error, so that `make demo ARGS=--json` leaves clean JSON on output.
say = printf '== %s\n' "$(1)" >&2

.PHONY: help setup protos docs check test fuzz simulate kills soak test-deploy sbom bench demo lock clean
.PHONY: up down logs ps image base-image wheels

help: ## list the targets
	@printf 'Masque. Targets:\n\n'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'
	@printf '\nVariables: PYTHON=python3.12 (to build .venv with), ARGS="..." (for demo, test, bench, down, logs and ps).\n'
	@printf 'Of containers: NAME=masque (several can run side by side), PARTIES=3, PORT=7000 (the first), IMAGE=masque.\n'

# ---- setting up -------------------------------------------------------------------------------

setup: $(VENV)/.ready ## make .venv with the locked dependencies, stubs and warm kernels
	@:

$(VENV)/.locked: requirements/lock.txt
	@found=$$(command -v "$(PYTHON)") || { \
	  echo "error: $(PYTHON) is not installed. Install Python 3.11 or newer" \
	       "(Debian, Ubuntu: apt install python3 python3-venv), or name one: make setup PYTHON=python3.12" >&2; exit 1; }; \
	"$$found" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $$found is $$("$$found" -V 2>&1), and Masque needs 3.11 or newer." \
	       "Name a newer one: make setup PYTHON=python3.12" >&2; exit 1; }; \
	"$$found" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $$found cannot make virtual environments: its venv module is missing." \
	       "Debian, Ubuntu: apt install python3-venv" >&2; exit 1; }; \
	if [ -e $(VENV) ] && ! $(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  $(call say,$(VENV) is broken or too old: making it anew); rm -rf $(VENV); fi; \
	if [ ! -e $(VENV) ]; then $(call say,making $(VENV) with $$("$$found" -V)); "$$found" -m venv $(VENV); fi
	@$(call say,installing the locked dependencies: a minute or two)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input \
	  --only-binary :all: --require-hashes -r requirements/lock.txt >&2
	@touch $@

$(VENV)/.installed: $(VENV)/.locked pyproject.toml
	@$(call say,installing masque itself)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input \
	  --no-deps --no-build-isolation -e . >&2
	@touch $@

$(VENV)/.stubs: $(VENV)/.installed protos/generate.py $(wildcard protos/masque/v1/*.proto)
	@$(call say,generating the stubs)
	@$(BIN)/python protos/generate.py >&2
	@touch $@

$(VENV)/.ready: $(VENV)/.stubs $(wildcard masque/mpc/*.py masque/mpc/*/*.py)
	@$(call say,warming the kernels)
	@$(BIN)/python -m masque.mpc.warm >&2
	@touch $@

protos: $(VENV)/.installed ## generate masque/v1 from protos/masque/v1
	@$(BIN)/python protos/generate.py >&2

docs: $(VENV)/.installed ## list the modules in docs/modules.md
	@$(BIN)/python docs/modules.py >&2

lock: ## resolve requirements/lock.txt anew from pyproject.toml (needs the network)
	@$(call say,resolving requirements/lock.txt)
	@[ -x build/lock/bin/uv ] || { $(PYTHON) -m venv build/lock && build/lock/bin/pip install --quiet uv >&2; }
	@build/lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras \
	  --generate-hashes --no-emit-index-url --no-annotate --no-header -o build/lock.txt pyproject.toml
	@{ echo '# Everything `make setup` installs, pinned with hashes. Written by `make lock`; do not edit.'; \
	   echo; cat build/lock.txt; } > requirements/lock.txt
	@$(MAKE) setup && $(BIN)/python -m deploy.requirements

# ---- working ----------------------------------------------------------------------------------

check: setup ## lint, format, types, floors, freshness of stubs and lists
	@$(call say,ruff check); $(BIN)/ruff check .
	@$(call say,ruff format); $(BIN)/ruff format --check .
	@$(call say,mypy --strict); $(BIN)/mypy
	@$(call say,floors); $(BIN)/lint-imports
	@$(call say,stubs); $(BIN)/python protos/generate.py --check
	@$(call say,list of modules); $(BIN)/python docs/modules.py --check
	@$(call say,packages of the image); $(BIN)/python -m deploy.requirements --check

test: setup ## run the tests (ARGS="-k name" narrows them, WORKERS=0 runs them serially)
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadscope -m "not engine" $(ARGS)

fuzz: setup ## damaged inputs for every decoder (FUZZ=1000000 in all) and every call (a tenth of it)
	@FUZZ=$(FUZZ) $(BIN)/python -m pytest -q -n $(WORKERS) tests/hostile $(ARGS)

simulate: setup ## run the whole system on a simulated network, clock and disk (SEEDS=2000, 17-99; SEED=17 replays)
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),$(SEEDS)) $(ARGS)

kills: setup ## kill services at random while jobs train, and see that all end right (KILLS=200)
	@$(BIN)/python -m tests.survival kills --kills $(KILLS) $(ARGS)

soak: setup ## run jobs, some at once, and see that nothing leaks (JOBS=100 AT_ONCE=10)
	@$(BIN)/python -m tests.survival soak --jobs $(JOBS) --at-once $(AT_ONCE) $(ARGS)

test-deploy: setup ## run the tests that need a Docker engine: minutes, and an image when there is none
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadscope -m engine tests/deploy $(ARGS)

sbom: setup ## list everything that is installed, with hashes, in build/sbom.json (CycloneDX)
	@$(BIN)/python -m deploy.sbom build/sbom.json
	@$(call say,build/sbom.json)

bench: setup ## measure speed, rounds and bytes
	@$(BIN)/python -m benchmarks $(ARGS)

demo: setup ## two hospitals train one classifier without showing each other a patient
	@$(BIN)/masque demo $(ARGS)

# ---- containers -------------------------------------------------------------------------------

ONEHOST = $(BIN)/python -m deploy.onehost --name "$(NAME)" --base "$(WHERE)"

up: setup ## start dealer, parties (PARTIES=3) and coordinator in containers; build what is missing
	@[ "$(BUILD)" = no ] || deploy/source.sh --built "$(IMAGE)" || $(MAKE) image
	@$(ONEHOST) up --image "$(IMAGE)" $(if $(PARTIES),--parties $(PARTIES)) $(if $(PORT),--port $(PORT)) $(ARGS)

down: setup ## stop them; data stays for the next `make up` (ARGS=--wipe removes it)
	@$(ONEHOST) down $(ARGS)

logs: setup ## what they say (ARGS="-f party-1" follows one)
	@$(ONEHOST) logs $(ARGS)

ps: setup ## how they are
	@$(ONEHOST) ps $(ARGS)

image: wheels base-image ## build the image of the services
	@$(call say,building $(IMAGE))
	@docker build --quiet --network none --tag "$(IMAGE)" --build-arg SOURCE="$$(deploy/source.sh)" \
	  --build-arg VERSION="$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' masque/version.py)" \
	  --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" . >/dev/null
	@docker image inspect --format '== {{.RepoTags}} {{.Size}} bytes' "$(IMAGE)" >&2

base-image: ## have the image that the Dockerfile starts from: pulled, or made from Debian's packages
	@base=$$(sed -n 's/^ARG BASE=//p' Dockerfile | head -n 1); \
	docker image inspect "$$base" >/dev/null 2>&1 || docker pull --quiet "$$base" >/dev/null 2>&1 || deploy/base-image.sh

wheels: deploy/wheels/.ready ## download the packages of the image, checked by their hashes
	@:

deploy/wheels/.ready: deploy/requirements.txt deploy/requirements-build.txt deploy/requirements.py
	@$(MAKE) setup
	@$(call say,downloading the packages of the image)
	@rm -f deploy/wheels/*.whl
	@$(BIN)/python -m deploy.requirements --wheels deploy/wheels
	@touch $@

clean: ## remove .venv, caches and build products; stubs and local data stay
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
