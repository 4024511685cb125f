# Nearfeed by name. `make demo` and `make test` need nothing but the prerequisites (infra/prerequisites.sh).

SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python

# What our tools keep for themselves stays inside the checkout.
export TMPDIR := $(CURDIR)/var/tmp
export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/var/cache/hypothesis
export MPLCONFIGDIR := $(CURDIR)/var/cache/matplotlib

.PHONY: help setup lock protos protos-check format lint test faults bench demo demo-city up clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## the virtual environment and the Kafka jars are what the lock files say
	@mkdir -p $(TMPDIR)
	@infra/setup.sh

lock: ## after a change of dependencies: pin them anew, with their sums
	.venv/bin/uv pip compile --quiet --generate-hashes --custom-compile-command 'make lock' \
		--extra train --extra dev pyproject.toml --output-file requirements/all.txt
	cp requirements/all.txt requirements/bench.txt # the same versions, but where a library of the bench forbids one
	.venv/bin/uv pip compile --quiet --generate-hashes --custom-compile-command 'make lock' \
		--extra bench pyproject.toml --output-file requirements/bench.txt
	echo uv | .venv/bin/uv pip compile --quiet --generate-hashes --custom-compile-command 'make lock' \
		--constraint requirements/all.txt - --output-file requirements/uv.txt
	infra/kafka/fetch.sh --lock

protos: setup ## write the generated protobuf code anew
	@$(PYTHON) -m infra.protos

protos-check: setup ## fail unless the generated protobuf code is current
	@$(PYTHON) -m infra.protos --check

format: setup ## rewrite the code in the house's form
	@.venv/bin/ruff format
	@.venv/bin/ruff check --fix

lint: setup ## ruff, mypy --strict and the layers; changes nothing
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports --cache-dir var/cache/imports

test: setup protos-check ## every test, those against real Kafka and PostgreSQL included
	$(PYTHON) -m pytest

faults: setup ## the long runs that kill servers and workers
	$(PYTHON) -m pytest -m faults -s

bench: setup ## speed of the stream workers beside other libraries; BENCH='--help' shows what else it takes
	@[ -x var/bench-venv/bin/python ] || .venv/bin/uv venv --quiet --python .venv/bin/python var/bench-venv
	@.venv/bin/uv pip sync --quiet --require-hashes --python var/bench-venv/bin/python requirements/bench.txt
	@var/bench-venv/bin/python -m benchmarks.speed.streams $(BENCH)

demo: setup protos-check ## the whole loop on recorded days; writes var/demo/report.html
	@.venv/bin/nearfeed demo

demo-city: setup protos-check ## the same loop in a synthetic city, where the nearby changes
	@.venv/bin/nearfeed demo-city

up: setup protos-check ## the platform, until Ctrl-C
	@.venv/bin/nearfeed up

clean: ## remove all that the targets above have made
	rm -rf .venv var
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
