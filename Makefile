# make demo   sets up and runs the press line on embedded servers
# make test   sets up and passes the tests
# make services   a real Kafka and an MQTT broker on loopback, until Ctrl-C
PYTHON ?= $(shell for p in python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] < (3, 13))' >/dev/null 2>&1 \
	&& echo $$p && break; done)
STAMP := .venv/.ready

.PHONY: setup demo services test check format lock fuzz warm clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# make/make/p' Makefile

setup: $(STAMP)

$(STAMP): requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Penstock needs Python 3.11 or 3.12 on the PATH" >&2; exit 1; }
	@echo "[1/3] a virtual environment with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv
	@echo "[2/3] the locked packages (about 400 MB, hashes checked)"
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/setup.txt
	@.venv/bin/uv pip install --python .venv/bin/python --require-hashes -r requirements/dev.txt
	@.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
	@echo "[3/3] kernels compiled once and kept on disk"
	@.venv/bin/python -m operators.jit
	@touch $(STAMP)

# a dozen processes start: without compiled modules on disk each would compile all of its own anew
unexport PYTHONDONTWRITEBYTECODE

demo: setup
	@.venv/bin/penstock demo

services: setup
	@.venv/bin/python -m tests.services

# files side by side, because most of them wait for processes; WORKERS=0 runs one after the other
test: setup
	@.venv/bin/python -m pytest -n $(or $(WORKERS),3) --dist loadfile

check: setup
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

format: setup
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

lock:
	.venv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 --extra dev pyproject.toml -o requirements/dev.txt
	.venv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 pyproject.toml -o requirements/run.txt
	.venv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 --extra fuzz pyproject.toml -o requirements/fuzz.txt
	.venv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 requirements/setup.in -o requirements/setup.txt

# make fuzz   an hour of libFuzzer over every decoder (SECONDS=60 for a minute)
fuzz: setup
	@.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements/fuzz.txt
	@.venv/bin/python -m tests.fuzz --engine atheris --seconds $(or $(SECONDS),3600)

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
