# make demo    the main job against a practice VM on this machine
# make test    lint, types and all tests
# make check   the same without the slow tests
# make faults  what is broken on purpose, at many points
# make bench   measurements
# make scale   a thousand runs on a cluster of eight nodes: what they take, and that none is lost
# make money   the ledger against the clouds' bills, in many simulated sessions
# make cluster a Slurm cluster on this machine, to try `engine: slurm` by hand
# make pictures  the README's, from an invented session
# make clean   remove what the others made

PYTHON ?= python3
BIN := .venv/bin
EXTRAS := grade,practice,aws,gcp,tensorboard,mlflow,sweep,dev

.PHONY: demo test check lint types fmt lock faults calibrate models bench scale money cluster pictures clean setup programs

demo: setup
	$(BIN)/python -m orchestrator.demo .demo

test: setup programs lint types
	$(BIN)/python -m pytest -n 4 --dist loadgroup

check: setup lint types
	$(BIN)/python -m pytest -n 4 --dist loadgroup -m "not tf"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

fmt: setup
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

setup: .venv/installed

.venv/installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $$($(PYTHON) --version) is too old; trainshed needs 3.11 or newer"; \
	    echo "fix:   make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv .venv || \
	  { echo "error: $(PYTHON) cannot make a virtual environment"; \
	    echo "fix:   on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check \
	  --constraint requirements.lock --config-settings editable_mode=compat \
	  --editable '.[$(EXTRAS)]'
	@touch $@

# The tests need a real OpenSSH server to start on loopback, a cron, namespaces with networks, a clock
# that can be put wrong, a file system with quotas, a Slurm, a browser. No service of the system is touched.
programs:
	@.ci/need sshd openssh-server "so the tests over OpenSSH are skipped"
	@.ci/need faketime faketime "so the tests of wrong clocks are skipped"
	@.ci/need mkfs.btrfs btrfs-progs "so the tests of quotas are skipped"
	@.ci/need cron cron "so the tests of the guard after a reboot are skipped"
	@.ci/need tmux tmux "so the test of the live view in a terminal is skipped"
	@.ci/need ip iproute2 "so the tests of clouds' metadata are skipped"
	@.ci/need slurmctld slurm-wlm "so the tests of clusters are skipped"
	@.ci/need munged munge "so the tests of clusters are skipped"
	@.ci/need chromium chromium "so the tests of the report in a browser are skipped"

# What CI installs, to the version; made anew from what pip resolves today.
lock:
	rm -rf .venv && $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --editable '.[$(EXTRAS)]'
	$(BIN)/python -m pip freeze --all --exclude pip --exclude-editable > requirements.lock

# What `make test` breaks at a few points, at as many as TRAINSHED_FAULT_POINTS says; the fuzzers go on
# for as many seconds each. 16 take about an hour on two idle cores, and a gigabyte of disk for a while;
# more find more: make faults TRAINSHED_FAULT_POINTS=100. What held, and what did not, is written
# into docs/reliability.md.
TRAINSHED_FAULT_POINTS ?= 16
faults: export TRAINSHED_FAULT_POINTS := $(TRAINSHED_FAULT_POINTS)
faults: export TRAINSHED_FAULT_REPORT := build/faults.jsonl
faults: setup programs
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet atheris || \
	  echo "atheris cannot be installed here, so the fuzzers are skipped"
	@mkdir -p build && rm -f $(TRAINSHED_FAULT_REPORT)
	$(BIN)/python -m pytest -n 4 --dist loadgroup -m faults tests/faults; held=$$?; \
	[ $$held -le 1 ] || exit $$held; \
	$(BIN)/python -m tests.faults.reliability $(TRAINSHED_FAULT_REPORT) docs/reliability.md && \
	exit $$held

# The problems' table of points: five baselines over ten seeds. Goes on where it was stopped.
calibrate: setup
	$(BIN)/python jobs/calibrate.py

# The table of loaders in docs/models.md. The files it loads are made by tests/models/make.py, with
# each old TensorFlow's own Python.
models: setup
	$(BIN)/python -m tests.models.table

bench: setup programs
	@.ci/need rsync rsync "so there is nothing to measure against"
	$(BIN)/python -m bench

# The tables are in bench/scale.md. It takes ten minutes, and Slurm.
scale: setup programs
	$(BIN)/python -m bench.scale

# The table is in bench/money.md.
money: setup
	$(BIN)/python -m tests.money.simulation --write bench/money.md

cluster: setup programs
	$(BIN)/python -m tests.clusters

pictures: setup programs
	$(BIN)/python -m tests.pictures.report docs/pictures
	$(BIN)/python -m tests.pictures.watch docs/pictures/watch.svg

clean:
	rm -rf .venv .demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
