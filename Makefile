# Everything runs in .venv. The first call of any target makes it; a later one starts at once.
PYTHON ?= python3
PYTEST_WORKERS ?= auto
DEMO_OUT ?= demo-out

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
PEERS := .venv-peers
LOG := $(VENV)/install.log

# litdata lists torchvision for image data. Its usual wheel is built for CUDA; beside a CPU build of torch
# it fails to load and takes `import lightning` down with it. Nothing here reads images: then it goes.
FIT_TORCHVISION := $(BIN)/python -c 'import torchvision' || $(BIN)/python -m pip uninstall -y torchvision

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-slow sensitivity test-kills test-slurm test-ray bench-plan bench-mix peers bench-gaussian calibration lint format clean test-s3 bench-build bench-verify

help:
	@echo "make setup      make .venv and install mixctl with everything it needs"
	@echo "make demo       plant two experiments, train with and without them, score (under 10 minutes)"
	@echo "make test       the tests, but for the slow ones"
	@echo "make test-slow  the slow tests"
	@echo "make test-browser  the report and the pages in a headless Chromium (as root on Debian it installs one)"
	@echo "make test-slurm builds on a Slurm cluster of one node, made for it (installs Debian's packages, as root)"
	@echo "make test-ray   builds on a Ray cluster of this machine (installs the extra ray)"
	@echo "make test-kills twenty builds, and twenty amendments, killed at random moments and continued"
	@echo "make test-control  a closed loop for real: facts acquired along the set point, five kills (10 minutes)"
	@echo "make test-cpdt  five matrices of dependence tests: the planted pair is found, no other (15 minutes)"
	@echo "make sensitivity  train the example with every kind and see that what was planted is found"
	@echo "make fuzz       10,000 broken inputs for everything that is parsed (FUZZ='corpora --count 500': some)"
	@echo "make faults     250 faults while mixctl writes: full disk, no permission, SIGKILL, flipped bits, ..."
	@echo "make audit      ask an advisory database about the pinned dependencies (needs a network that reaches one)"
	@echo "make test-s3    corpus and build on an S3 server of this machine (installs the extra s3, and moto)"
	@echo "make test-wandb results logged to W&B, offline (installs the extra wandb)"
	@echo "make bench-plan time and memory of the plan of the reference mix"
	@echo "make bench-mix  planning, the training order, the base order and mixing, beside cp and litdata"
	@echo "make bench-verify  verify of a paper-size build, and --full beside cat"
	@echo "make bench-build corpus to sealed shards, against litdata and datatrove"
	@echo "make bench-relayout  a build laid out for other devices, beside cp"
	@echo "make bench-memory  memory of a build of 1 GB and of 10 GB (40 GB of disk)"
	@echo "make bench      bench-build, bench-mix, bench-relayout, bench-verify, bench-memory"
	@echo "make peers      make .venv-peers: lm-evaluation-harness and transformers beside mixctl"
	@echo "make bench-gaussian  training speed with the noise of Gaussian marks, against stock LitData"
	@echo "make test-peers the same numbers as transformers and lm-evaluation-harness, in .venv-peers"
	@echo "make bench-eval speed of evals beside the bare model and lm-evaluation-harness"
	@echo "make calibration  every test and interval where the truth is known (docs/calibration.md)"
	@echo "make docs       the documentation as a site in build/site, broken links refused (installs the extra docs)"
	@echo "make lint       ruff and mypy"
	@echo "make format     let ruff rewrite what make lint would complain about"
	@echo "make clean      remove .venv, caches and build leftovers"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "mixctl needs Python 3.10 or newer: make PYTHON=python3.11 ..." >&2; exit 2; }
	@echo "installing into $(VENV) (some minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q -q --no-input \
	  -c constraints.txt -e '.[demo,dev]' > $(LOG) 2>&1 \
	  || { cat $(LOG) >&2; echo "the installation failed: $(LOG)" >&2; exit 1; }
	@{ $(FIT_TORCHVISION); } >> $(LOG) 2>&1
	@mkdir -p $(VENV)/types && ln -sfn ../.. $(VENV)/types/mixctl
	@touch $@

demo: $(STAMP)
	@$(BIN)/mixctl demo --out $(DEMO_OUT)

test: $(STAMP)
	@$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --maxprocesses 8 \
	  -m "not slow and not browser and not slurm and not ray and not s3"

test-slow: $(STAMP)
	@$(BIN)/python -m pytest -m slow

.PHONY: test-browser chromium
test-browser: $(STAMP) chromium
	@$(BIN)/python -m pytest -m browser tests/evals tests/pipeline

# Debian's own package: nothing else is downloaded.
chromium: $(STAMP)
	@command -v chromium > /dev/null || { test "$$(id -u)" = 0 && command -v apt-get > /dev/null; } \
	  || { echo "the pages' tests need chromium: apt-get install chromium" >&2; exit 2; }
	@command -v chromium > /dev/null || { echo "installing chromium" && apt-get -qq update \
	  && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium; } \
	  > $(VENV)/chromium.log 2>&1 || { cat $(VENV)/chromium.log >&2; exit 1; }

test-slurm: $(STAMP)
	@command -v sbatch munged > /dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	  apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge; }
	@$(BIN)/python -m pytest -n 0 -m slurm

test-ray: $(STAMP)
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[ray]'
	@{ $(FIT_TORCHVISION); } >> $(LOG) 2>&1
	@$(BIN)/python -m pytest -n 0 -m ray

test-kills: $(STAMP)
	@$(BIN)/python -m pytest -n 0 tests/pipeline/test_kills.py tests/pipeline/test_amend_kills.py

.PHONY: test-control
test-control: $(STAMP)
	@$(BIN)/python -m pytest -n 0 -m slow tests/pipeline/test_control.py tests/pipeline/test_control_demo.py

.PHONY: test-cpdt
test-cpdt: $(STAMP)
	@$(BIN)/python benchmarks/cpdt.py

# `make audit AUDIT=` says loudly that no database was reached, and ends well all the same.
AUDIT ?= --required
.PHONY: audit
audit: $(STAMP)
	@$(BIN)/python -m pip install -q -c constraints.txt pip-audit > $(VENV)/audit.log 2>&1 || true
	@$(BIN)/python .ci/audit.py $(AUDIT)

.PHONY: faults
faults: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults $(FAULTS)

.PHONY: fuzz
fuzz: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz $(FUZZ)

sensitivity: $(STAMP)
	@$(BIN)/python benchmarks/sensitivity.py

test-s3: $(STAMP)
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[s3]' 'moto[server]>=5'
	@{ $(FIT_TORCHVISION); } >> $(LOG) 2>&1
	@$(BIN)/python -m pytest -n 0 -m s3

.PHONY: test-wandb
test-wandb: $(STAMP)
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[wandb]'
	@{ $(FIT_TORCHVISION); } >> $(LOG) 2>&1
	@$(BIN)/python -m pytest -n 0 tests/evals/test_loggers.py

bench-plan: $(STAMP)
	@$(BIN)/python benchmarks/plan_reference.py

# Everything in docs/performance.md, beside the peers in one run: two hours, and 40 GB of disk.
# Corpora are kept in out/bench, results are written to out/bench/results.
BENCH := out/bench
.PHONY: bench bench-relayout bench-memory
bench: bench-build bench-mix bench-relayout bench-verify bench-memory

bench-mix: $(STAMP)
	@mkdir -p $(BENCH)/results
	@for one in plan_speed order_speed shuffle_quality mix_speed; do \
	  $(BIN)/python benchmarks/$$one.py --json $(BENCH)/results/$$one.json || exit 1; done

bench-relayout: $(STAMP)
	@mkdir -p $(BENCH)/results
	@$(BIN)/python benchmarks/relayout_speed.py --json $(BENCH)/results/relayout_speed.json

bench-verify: $(STAMP)
	@mkdir -p $(BENCH)/results
	@$(BIN)/python benchmarks/verify_speed.py --json $(BENCH)/results/verify_speed.json

bench-memory: $(STAMP)
	@mkdir -p $(BENCH)/results
	@$(BIN)/python benchmarks/build_memory.py --json $(BENCH)/results/build_memory.json

bench-build: $(STAMP)
	@mkdir -p $(BENCH)/results
	@$(BIN)/python benchmarks/build_speed.py --results $(BENCH)/results

peers: $(PEERS)/installed

# The releases of transformers and datasets that fit LitGPT want older tokenizers and fsspec.
$(PEERS)/installed: pyproject.toml constraints.txt constraints-peers.txt
	@echo "installing into $(PEERS) (some minutes, once)"
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@grep -vE '^(fsspec|tokenizers)==' constraints.txt > $(PEERS)/constraints.txt
	@$(PEERS)/bin/python -m pip install -q -q --no-input -c $(PEERS)/constraints.txt \
	  -c constraints-peers.txt -e '.[dev,peers]' > $(PEERS)/install.log 2>&1 \
	  || { cat $(PEERS)/install.log >&2; echo "the installation failed" >&2; exit 1; }
	@$(PEERS)/bin/python -c 'import torchvision' 2> /dev/null \
	  || $(PEERS)/bin/python -m pip uninstall -q -y torchvision
	@touch $@

bench-gaussian: $(STAMP)
	@$(BIN)/python benchmarks/gaussian_speed.py

test-peers: $(PEERS)/installed
	@$(PEERS)/bin/python -m pytest tests/evals/test_peers.py tests/pipeline/test_lm_eval_peer.py

bench-eval: $(PEERS)/installed
	@$(PEERS)/bin/python benchmarks/eval_speed.py $(BENCH_EVAL)

# Without the real model, which the peers' environment makes: make calibration REAL=
REAL ?= build/real/SmolLM2-135M-Instruct
calibration: $(STAMP) $(if $(REAL),$(REAL)/lit_model.pth)
	@$(BIN)/python -m benchmarks.calibration $(if $(REAL),--real $(REAL))

# Made once; the environment that makes it is not needed again.
build/real/SmolLM2-135M-Instruct/lit_model.pth:
	@$(MAKE) --no-print-directory peers
	@$(PEERS)/bin/python benchmarks/real_model.py build/real

.PHONY: docs
docs: $(STAMP)
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	@{ $(FIT_TORCHVISION); } >> $(LOG) 2>&1
	@$(BIN)/python docs/make_reference.py
	@$(BIN)/python docs/make_architecture.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(PEERS) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
