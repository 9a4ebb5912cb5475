# Needs Python 3.11 or newer with pip and venv, git and make; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
PACKAGES := .venv/.packages
PROTOS := .build/googleapis/google/rpc/status.proto

.PHONY: demo test test-fast sim soak fuzz mutants mutation run install kernel-sanitize wheels lint types generate check bench bench-history bench-market

demo: $(INSTALLED)
	@$(BIN)/chronobook-server demo

# Tests of modules open no socket and await no time, so they run side by side. ARGS="tests/fuzz" runs only these.
PARALLEL := --numprocesses 2 --dist loadfile
test: $(INSTALLED)
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	$(BIN)/python -m pytest $(PARALLEL) tests/unit
	$(BIN)/python -m pytest --ignore tests/unit
endif

# Tests of modules and of the contract, without those that are marked slow.
SLOW := fuzz integration simulation soak
test-fast: $(INSTALLED)
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow" $(SLOW:%=--ignore tests/%) $(ARGS)

# Bad days from their seeds: ARGS="--seeds 0 50000", or ARGS="--seed 7" to see one. After Ctrl+C, add --resume.
sim: $(INSTALLED)
	$(BIN)/python -m tests.simulation.run $(ARGS)

# Ten minutes of everything at once through the edge: memory stays flat, and every answer is right.
soak: $(INSTALLED)
	$(BIN)/python -m tests.soak.run $(ARGS)

# Made-up bytes for whatever reads some, for longer than in the tests: ARGS="frames --seconds 600".
fuzz: $(INSTALLED)
	$(BIN)/python -m tests.fuzz.run $(ARGS)

# Faults made by hand in the core, each of which the tests must catch.
mutants: $(INSTALLED)
	$(BIN)/python tools/mutants.py $(ARGS)

# Faults made mechanically by mutmut: ARGS="history" for one group. It takes long, and goes on after Ctrl+C.
mutation: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --requirement tools/mutation.txt
	$(BIN)/python tools/mutation.py $(ARGS)

run: $(INSTALLED)
	@$(BIN)/chronobook-server run

install: $(INSTALLED)

# The compiled kernel is built anew after a change of its sources. Without a compiler the Python path serves.
$(INSTALLED): $(PACKAGES) $(wildcard kernel/*.[ch]) kernel/build.py
	@$(BIN)/python kernel/build.py
	@touch $@

$(PACKAGES): pyproject.toml clients/python/pyproject.toml constraints.txt kernel/hatch_build.py
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "chronobook needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable clients/python --editable '.[dev]'
	@touch $@

# Checks of memory and of undefined behaviour while the kernel's tests run.
kernel-sanitize: $(INSTALLED)
	@$(BIN)/python kernel/build.py --sanitize

# Wheels of the server with the compiled kernel for each platform, and one without, in dist/.
wheels: $(INSTALLED)
	$(BIN)/python kernel/build.py --wheels dist

# The google protos that the contract imports come out of the installed wheel.
$(PROTOS): $(INSTALLED)
	@$(BIN)/python tools/generate.py --check

lint: $(INSTALLED) $(PROTOS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/english.py --check
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf breaking proto --against proto/released.binpb

types: $(INSTALLED)
	$(BIN)/mypy

generate: $(INSTALLED)
	$(BIN)/python tools/generate.py

check: lint types kernel-sanitize
	$(BIN)/python tools/generate.py --check
	$(BIN)/python tools/licences.py --check

# Every benchmark in turn, and a summary of the missed limits: ARGS="cold unary" for some.
bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.run $(ARGS)

# The whole market at ordinary rates; ARGS="--crash" for the day of a crash.
bench-market: $(INSTALLED)
	$(BIN)/python -m benchmarks.whole_market $(ARGS)

bench-history: $(INSTALLED)
	$(BIN)/python -m benchmarks.history $(ARGS)
