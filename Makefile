# Two commands to know: `make demo` and `make test`. Both need nothing but Python 3.11 or newer and make.
# All that they install goes into .venv; pip keeps the downloads, so that a second install needs no network.

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
UV_VERSION := 0.13.9
UV := .cache/uv-$(UV_VERSION)/bin/uv
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test test-faults chaos check fix bench screenshots lock clean

help: ## print this
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

install: $(INSTALLED) ## put everything that the project needs into .venv (PYTHON=… chooses the Python)

demo: $(INSTALLED) ## Kafka, made-up shoppers, a worker and a page to look at (ARGS="--seconds 60")
	$(BIN)/streamer demo $(ARGS)

test: $(INSTALLED) ## the tests (ARGS="-k late -x")
	$(BIN)/pytest $(ARGS)

test-faults: $(INSTALLED) ## the long rounds of faults, a control and a soak (ARGS="--rounds 5 --soak-minutes 60")
	$(BIN)/pytest -m slow $(ARGS)

chaos: $(INSTALLED) ## kills, freezes and a broker away, watched by Prometheus; graphs in chaos/ (ARGS="--minutes 30")
	$(BIN)/pytest -m slow tests/test_chaos.py --pictures chaos $(ARGS)

check: $(INSTALLED) ## all that CI checks besides the tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m streamer.tools.schemas check
	$(BIN)/python -m streamer.tools.dashboard.grafana check

fix: RULE = deploy/kubernetes/prometheus/prometheusrule.yaml
fix: $(INSTALLED) ## format, mend what can be mended, write schemas, dashboard and Kubernetes' copy of the rules anew
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	$(BIN)/python -m streamer.tools.schemas write
	$(BIN)/python -m streamer.tools.dashboard.grafana write
	{ sed '/^spec:/q' $(RULE); sed -n '/^groups:/,$${s/^./  &/;p;}' deploy/prometheus/rules.yml; } > $(RULE).new
	mv $(RULE).new $(RULE)

bench: $(INSTALLED) ## a worker beside its peers, its latency and what size costs (ARGS="--report deploy")
	$(BIN)/streamer bench $(ARGS)

screenshots: $(INSTALLED) ## the README's pictures of the page, taken of a demo (needs Chromium, as Debian packages it)
	$(BIN)/python -m tests.screenshots deploy/images

lock: $(UV) ## resolve pyproject.toml into requirements/*.lock (ARGS=--upgrade takes newer versions)
	$(COMPILE) --extra dev --output-file requirements/dev.lock $(ARGS) pyproject.toml
	$(COMPILE) --extra otel --excludes requirements/worker-excludes.txt --constraints requirements/dev.lock --output-file requirements/worker.lock $(ARGS) pyproject.toml
	$(COMPILE) --group build --constraints requirements/dev.lock --output-file requirements/build.lock $(ARGS)
	echo 'quixstreams==3.28.1' | $(COMPILE) --output-file streamer/tools/bench/quix_streams.lock $(ARGS) -

clean: ## remove what the targets above made, except the data of workers
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist

# A virtual environment survives neither a move nor the loss of its Python: install again if this one met either.
ifneq ($(shell $(BIN)/python -c 'print(open("$(INSTALLED)").read())' 2>/dev/null),$(CURDIR))
.PHONY: $(INSTALLED)
UNUSABLE := yes
endif

# The marker is removed first and written last: an install that was cut short starts afresh, from what pip has kept.
$(INSTALLED): requirements/dev.lock pyproject.toml
	@$(if $(UNUSABLE),$(MAKE_VENV),:)
	@rm -f $@
	@echo 'Installing into .venv …'
	@$(PIP) install --require-hashes --requirement requirements/dev.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@printf '%s\n' '$(CURDIR)' > $@

define MAKE_VENV
for python in $(PYTHON) python3.13 python3.12 python3.11; do \
	if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
done; \
if [ -z "$$found" ]; then \
	echo "streamer needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo missing)." >&2; \
	echo "Install one, or say where it is: make PYTHON=/path/to/python3 …" >&2; exit 1; \
fi; \
if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
	echo "$$found cannot make virtual environments: on Debian and Ubuntu, apt-get install python3-venv." >&2; exit 1; \
fi; \
"$$found" -m venv --clear .venv
endef

$(UV):
	$(PYTHON) -m venv .cache/uv-$(UV_VERSION)
	.cache/uv-$(UV_VERSION)/bin/pip --disable-pip-version-check --quiet install uv==$(UV_VERSION)
