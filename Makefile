# `make run` starts the detector, `make test` checks it. `make help` lists everything.
# The targets that prepare (virtual environment, packages, .env) do so once and again only when their inputs change.

PYTHON ?= python3
# Not ?=: some shells keep this machine's name in the environment as HOST, and it would be open to the network.
HOST := 127.0.0.1
PORT ?= 8000
TRAIN_ARGS ?=
EVALUATE_ARGS ?=
BENCH_ARGS ?=
FUZZ_ARGS ?=
FAULTS ?=
LOCK_ARGS ?=
AUDIT_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
MANAGE := $(BIN)/python manage.py
# For this user alone where it makes the database: whoever reads that file has everybody's sessions and password hashes.
MIGRATE := umask 077 && $(MANAGE) migrate --no-input --verbosity 0
# Where Python may not keep what it compiles (PYTHONDONTWRITEBYTECODE, a folder of root's) it does so at each start, the
# packages' modules too. All that it compiles here lies in this folder.
export PYTHONDONTWRITEBYTECODE :=
COMPILE := $(BIN)/python -m compileall -q deepfake_site detector
PIP := $(BIN)/python -m pip --disable-pip-version-check

# The checks read no .env and touch no database: their result must not depend on one installation's settings.
CHECK_ENV := DEBUG=false SECRET_KEY=only-for-checks DATABASE_URL=sqlite://:memory:

.PHONY: help run test lint typecheck migrationcheck pytest admin train evaluate bench bench-review soak faults clean web s3 full lock audit fuzz

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

run: $(VENV)/.web .env  ## start the detector at http://127.0.0.1:8000 (HOST and PORT change that)
	@$(COMPILE)
	@$(MIGRATE)
	@$(MANAGE) collectstatic --no-input --verbosity 0
	@exec $(MANAGE) serve --host $(HOST) --port $(PORT)

test: lint typecheck migrationcheck pytest  ## lint, types, migrations and the test suite

lint: $(VENV)/.full  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(VENV)/.full  ## mypy, strict
	$(CHECK_ENV) $(BIN)/mypy

migrationcheck: $(VENV)/.full  ## fail if a model change has no migration
	$(CHECK_ENV) $(MANAGE) makemigrations --check --dry-run

pytest: $(VENV)/.full  ## the test suite
	$(BIN)/python -m pytest -m "not alone" --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
	$(BIN)/python -m pytest -m alone

admin: $(VENV)/.web .env  ## create an account for /admin/
	@$(MIGRATE)
	@$(MANAGE) createsuperuser

train: $(VENV)/.full  ## train the model from FACES_DIR (TRAIN_ARGS are passed on)
	$(BIN)/python -m training.train $(TRAIN_ARGS)

evaluate: $(VENV)/.full  ## print and store the model's figures (EVALUATE_ARGS are passed on)
	$(BIN)/python -m training.evaluate $(EVALUATE_ARGS)

bench: $(VENV)/.full  ## cost of a prediction and of a detection, against the original's way
	$(BIN)/python -m benchmarks.predictor $(BENCH_ARGS)
	$(BIN)/python -m benchmarks.web $(BENCH_ARGS)

soak: $(VENV)/.full  ## half an hour of load, after which no memory may be missing (BENCH_ARGS="--minutes 5")
	$(BIN)/python -m benchmarks.soak $(BENCH_ARGS)

faults: $(VENV)/.full  ## break a running site in several ways and print what is left (FAULTS="overload disk_full")
	$(BIN)/python -m benchmarks.faults $(FAULTS)

bench-review: $(VENV)/.full  ## cost of the admin's pages at up to a million detections (BENCH_ARGS="--database sqlite")
	$(BIN)/python -m benchmarks.review_scale $(BENCH_ARGS)

fuzz: $(VENV)/.full  ## mutated pictures against the decoder, 100,000 of them (FUZZ_ARGS="--inputs 1000000 --seed 2")
	$(BIN)/python -m detector.tests.hostile.fuzz $(FUZZ_ARGS)

clean:  ## remove the virtual environment and caches; data, uploads and .env stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache staticfiles
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

web: $(VENV)/.web  ## install what a server needs
s3: $(VENV)/.s3  ## install what pictures in S3-compatible storage need as well
full: $(VENV)/.full  ## install everything, with TensorFlow and the test tools

# Versions that are locked stay as long as they fit; LOCK_ARGS=--upgrade takes the newest.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --annotation-style line \
	--custom-compile-command 'make lock'

lock: $(VENV)/.full  ## write the lock files anew from requirements/*.in (LOCK_ARGS=--upgrade for newer versions)
	$(LOCK) $(LOCK_ARGS) --excludes requirements/web-excludes.in --output-file requirements-web.txt requirements/web.in
	$(LOCK) $(LOCK_ARGS) --excludes requirements/s3-excludes.in --constraint requirements-web.txt \
	--output-file requirements-s3.txt requirements/s3.in
	$(LOCK) $(LOCK_ARGS) --constraint requirements-web.txt --constraint requirements-s3.txt \
	--output-file requirements.txt requirements/full.in

# Needs the internet, so it is no part of `make test`; where the advisories cannot be asked it fails. requirements.txt
# holds the packages of the other two lock files as well.
audit: $(VENV)/.full  ## ask PyPI for known vulnerabilities of what is locked (AUDIT_ARGS="--vulnerability-service osv")
	@found=$$($(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement requirements.txt $(AUDIT_ARGS)) || \
	{ [ -z "$$found" ] || { echo "$$found"; exit 1; }; \
	echo 'make audit: nothing was audited: the advisories could not be asked, which needs the internet.' >&2; exit 2; }; \
	[ -z "$$found" ] || echo "$$found"

# An existing environment is kept: only a missing interpreter makes a new one. A half-made one is removed again.
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo 'There is no $(PYTHON). Name another: make run PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Python 3.11 or newer is needed; \
	$(PYTHON) is %d.%d. Name another: make run PYTHON=python3.12" % v[:2])'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	echo 'Python cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }

# The lock files are complete and every file in them has its hash: pip resolves nothing and takes nothing else.
# --no-compile: Python compiles the modules that are really imported, which is a small part and saves seconds here. Where
# it may not write (systemd's units), docs/operations.md has all compiled.
$(VENV)/.web: requirements-web.txt | $(BIN)/python
	@echo 'Installing what the server needs (once) ...'
	@$(PIP) install --quiet --no-deps --require-hashes --no-compile -r requirements-web.txt
	@touch $@

$(VENV)/.s3: requirements-s3.txt | $(VENV)/.web
	@$(PIP) install --quiet --no-deps --require-hashes --no-compile -r requirements-s3.txt
	@touch $@

$(VENV)/.full: requirements.txt requirements-web.txt | $(VENV)/.web
	@echo 'Installing TensorFlow and the test tools (once) ...'
	@$(PIP) install --quiet --no-deps --require-hashes -r requirements.txt
	@$(PIP) check
	@touch $@

.env: | $(VENV)/.web
	@umask 077 && key=$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(48))') && \
	sed "s|^SECRET_KEY=$$|SECRET_KEY=$$key|" .env.example > .env.new && mv .env.new .env
	@echo 'Wrote .env with a new SECRET_KEY; its comments say what can be set.'
