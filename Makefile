# `make run` starts the detector, `make test` checks it. `make help` lists everything.
# The targets that prepare (virtual environment, packages, .env) do so once and again only when their inputs change.

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
TRAIN_ARGS ?=
EVALUATE_ARGS ?=
BENCH_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
MANAGE := $(BIN)/python manage.py
PIP := $(BIN)/python -m pip --disable-pip-version-check

# The checks read no .env and touch no database: their result must not depend on one installation's settings.
CHECK_ENV := DEBUG=false SECRET_KEY=only-for-checks DATABASE_URL=sqlite://:memory:

.PHONY: help run test lint typecheck migrationcheck pytest admin train evaluate bench bench-review clean web full

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | awk -F '\t' '{ printf "  make %-16s %s\n", $$1, $$2 }'

run: $(VENV)/.web .env  ## start the detector at http://127.0.0.1:8000 (HOST and PORT change that)
	@$(MANAGE) migrate --no-input --verbosity 0
	@$(MANAGE) collectstatic --no-input --verbosity 0
	@exec $(MANAGE) serve --host $(HOST) --port $(PORT)

test: lint typecheck migrationcheck pytest  ## lint, types, migrations and the test suite

lint: $(VENV)/.full  ## ruff
	$(BIN)/ruff check .

typecheck: $(VENV)/.full  ## mypy, strict
	$(CHECK_ENV) $(BIN)/mypy

migrationcheck: $(VENV)/.full  ## fail if a model change has no migration
	$(CHECK_ENV) $(MANAGE) makemigrations --check --dry-run

pytest: $(VENV)/.full  ## the test suite
	$(BIN)/python -m pytest

admin: $(VENV)/.web .env  ## create an account for /admin/
	@$(MANAGE) migrate --no-input --verbosity 0
	@$(MANAGE) createsuperuser

train: $(VENV)/.full  ## train the model from FACES_DIR (TRAIN_ARGS are passed on)
	$(BIN)/python -m training.train $(TRAIN_ARGS)

evaluate: $(VENV)/.full  ## print and store the model's figures (EVALUATE_ARGS are passed on)
	$(BIN)/python -m training.evaluate $(EVALUATE_ARGS)

bench: $(VENV)/.full  ## cost of a prediction and of a detection, against the original's way
	$(BIN)/python -m benchmarks.predictor $(BENCH_ARGS)

bench-review: $(VENV)/.full  ## cost of the admin's pages at up to a million detections (BENCH_ARGS="--database sqlite")
	$(BIN)/python -m benchmarks.review_scale $(BENCH_ARGS)

clean:  ## remove the virtual environment and caches; data, uploads and .env stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache staticfiles
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

web: $(VENV)/.web  ## install what a server needs
full: $(VENV)/.full  ## install everything, with TensorFlow and the test tools

# An existing environment is kept: only a missing interpreter makes a new one. A half-made one is removed again.
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo 'There is no $(PYTHON). Name another: make run PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Python 3.11 or newer is needed; \
	$(PYTHON) is %d.%d. Name another: make run PYTHON=python3.12" % v[:2])'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	echo 'Python cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }

# --no-compile: Python compiles the modules that are really imported, which is a small part and saves seconds here.
$(VENV)/.web: requirements-web.txt | $(BIN)/python
	@echo 'Installing what the server needs (once) ...'
	@$(PIP) install --quiet --no-deps --no-compile -r requirements-web.txt
	@touch $@

# The extra packages of the full set are resolved by pip (what they need differs between systems), then checked.
$(VENV)/.full: requirements.txt requirements-web.txt | $(VENV)/.web
	@echo 'Installing TensorFlow and the test tools (once) ...'
	@$(PIP) install --quiet -r requirements.txt
	@$(PIP) check
	@touch $@

.env: | $(VENV)/.web
	@umask 077 && key=$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(48))') && \
	sed "s|^SECRET_KEY=$$|SECRET_KEY=$$key|" .env.example > .env.new && mv .env.new .env
	@echo 'Wrote .env with a new SECRET_KEY; its comments say what can be set.'
