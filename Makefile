PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup run report test fault-test slurm-test soak test-fast lint clean

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

setup: $(READY)  ## .venv with the pinned requirements and this package

run: $(READY)  ## distil the quickstart: a real teacher on real text, in minutes
	@PATH="$(BIN):$$PATH" deepspeed launch/pretrain.py --deepspeed ds_config/zero1.json

RUN ?= runs/quickstart
report: export REPORTED = $(RUN)
report: $(READY)  ## one page of what make run came to, or of RUN=FOLDER, shown in a browser where there is a display
	@PATH="$(BIN):$$PATH"; export PATH; \
	  current() { [ "$$REPORTED/evaluations/$$1.json" -nt "$$REPORTED/results.json" ]; }; \
	  if [ -d "$$REPORTED/student" ] && [ -e "$$REPORTED/results.json" ]; then \
	    current guess || python launch/evaluate.py guess --run "$$REPORTED"; \
	    current speed || python launch/evaluate.py speed --run "$$REPORTED" --sequences 100 --batches 32; \
	  fi; \
	  python launch/report.py "$$REPORTED" --open

test: $(READY)  ## the tests, in minutes; those that kill and stop whole jobs are the next two
	@PATH="$(BIN):$$PATH" python -m pytest --durations=10 -m "not (faults or slurm or multihost)"

fault-test: $(READY)  ## whole jobs: every family stopped and resumed; kills, hangs, full disks, a cut wire (docs/reliability.md)
	@PATH="$(BIN):$$PATH" python -m pytest --durations=10 -m "faults or multihost"

test-fast: $(READY)  ## the tests that take seconds
	@PATH="$(BIN):$$PATH" python -m pytest -m "not (slow or faults or slurm or multihost)"

slurm-test: $(READY)  ## the batch scripts, on a SLURM cluster made for it (root; Debian's slurm-wlm and munge)
	@PATH="$(BIN):$$PATH" python -m pytest -m slurm --durations=10

SEEDS ?= 50
soak: $(READY)  ## kill real runs at random times; SEEDS=50 of them, most of an hour on 2 cores
	@PATH="$(BIN):$$PATH" python tests/faults/soak.py --seeds $(SEEDS)

lint: $(READY)  ## ruff, as CI runs it
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:  ## remove what is built and prepared; runs/ stays
	rm -rf $(VENV) .cache build *.egg-info

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; give another: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "error: $(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@touch $(READY)
