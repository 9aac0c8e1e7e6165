# `make demo` and `make test` set everything up by themselves; they need Python 3.11 or newer, make, and a package index.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin

# A machine with an NVIDIA GPU gets vLLM's own build, any other its CPU build, of the versions that were tested.
ifneq ($(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null),)
ENGINE ?= gpu
else
ENGINE ?= cpu
endif
# torch for the CPU comes from the folder that pip is told to look in, where there is one, and else from PyTorch's own index.
FIND_LINKS := $(or $(UV_FIND_LINKS),$(PIP_FIND_LINKS))
ifeq ($(ENGINE),cpu)
INSTALL_OPTIONS := --constraints constraints.txt --overrides overrides-cpu.txt $(if $(FIND_LINKS),,--torch-backend cpu)
else
INSTALL_OPTIONS := --torch-backend auto
endif

.PHONY: demo test tests tests-without-bf16 check cluster docs format package bounds bench chaos engines fuzz harness peers scale server systems formats clean
.DELETE_ON_ERROR:

$(VENV)/ready-$(ENGINE): pyproject.toml constraints.txt overrides-cpu.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "llmbatch needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(if $(FIND_LINKS),UV_FIND_LINKS="$(FIND_LINKS)") $(BIN)/uv pip install --quiet --python $(BIN)/python $(INSTALL_OPTIONS) --editable '.[dev,$(ENGINE)]'
	touch $@

demo: $(VENV)/ready-$(ENGINE)  ## run the main job for real: translate and extract a small corpus with the model that comes along
	rm -rf demo-output
	$(BIN)/llmbatch demo --output demo-output

# Python keeps what it compiles in the environment that was made here, even where it is set not to: a few tests start processes
# that import vLLM, and compiling its modules and torch's anew takes each of them as long again.
test: $(VENV)/ready-$(ENGINE)  ## linters, types and every test, those of the real vLLM engine among them
	$(MAKE) --no-print-directory --jobs 2 check tests

# Collected once by one process before: several that begin together would each compile all of what the tests import.
tests: $(VENV)/ready-$(ENGINE)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --collect-only --quiet > $(VENV)/collected 2>&1 || (cat $(VENV)/collected; false)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# As root. What reads /proc/cpuinfo then sees no bf16: engines compute in float32, as on older processors.
tests-without-bf16: $(VENV)/ready-$(ENGINE)  ## every test on a processor that has bf16 as if it had not
	sed -E 's/ (avx512_bf16|amx_bf16|avx_ne_convert|bf16)\b//g' /proc/cpuinfo > $(VENV)/cpuinfo-without-bf16
	unshare --mount sh -c 'mount --bind $(VENV)/cpuinfo-without-bf16 /proc/cpuinfo && exec $(MAKE) --no-print-directory tests'

cluster: $(VENV)/ready-$(ENGINE)  ## the tests on Ray clusters of several nodes, which take minutes
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -m cluster

check: $(VENV)/ready-$(ENGINE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/ready-$(ENGINE)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/ready-$(ENGINE)  ## the site, with every link checked: build/site/index.html
	$(BIN)/python eval/docs/site/figures.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bounds: $(VENV)/ready-$(ENGINE)  ## the lowest versions that pyproject.toml allows, tried: one environment an extra
	$(BIN)/python eval/package/bounds.py

package: $(VENV)/ready-$(ENGINE)  ## wheel and source distribution, looked at, and tried in an empty environment; all extras resolved
	$(BIN)/python eval/package/package.py --extras

# Ray Data LLM, a peer in the benchmark, has dependencies of its own.
BENCH_VENV ?= .venv-bench
$(BENCH_VENV)/ready-$(ENGINE): pyproject.toml constraints.txt overrides-cpu.txt | $(VENV)/ready-$(ENGINE)
	$(PYTHON) -m venv $(BENCH_VENV)
	$(if $(FIND_LINKS),UV_FIND_LINKS="$(FIND_LINKS)") $(BIN)/uv pip install --quiet --python $(BENCH_VENV)/bin/python $(INSTALL_OPTIONS) --editable '.[$(ENGINE)]' 'ray[data]>=2.60,<3'
	touch $@

# `make bench BENCH="--shapes neutral --arms ours,chat"` measures only that again; see eval/bench/bench.py --help.
bench: $(VENV)/ready-$(ENGINE) $(BENCH_VENV)/ready-$(ENGINE) .venv-datatrove/ready .venv-daft/ready  ## every shape of corpus against every peer: eval/bench/RESULTS.md
	$(BIN)/python eval/bench/bench.py $(BENCH)
	for part in idle autotune; do $(BIN)/python eval/bench/$$part.py || exit 1; done
	for part in hits real scale; do $(BIN)/python eval/bench/corpus.py $$part || exit 1; done
	$(BIN)/python eval/bench/report.py

# `make fuzz FUZZ_SECONDS=600` for ten minutes a parser
FUZZ_SECONDS ?= 60
fuzz: $(VENV)/ready-$(ENGINE)  ## every parser of outside data under a coverage-guided fuzzer, hostile rows in bulk: eval/fuzz/RESULTS.md
	$(BIN)/uv pip install --quiet --python $(BIN)/python 'atheris>=3'
	$(BIN)/python eval/fuzz/run.py --seconds $(FUZZ_SECONDS)

chaos: $(VENV)/ready-$(ENGINE)  ## runs killed, stopped and starved of disk on purpose: eval/reliability/RESULTS.md
	$(BIN)/python eval/reliability/chaos.py --write

harness: $(VENV)/ready-$(ENGINE)  ## what intervals hold, and llmbatch beneath lm-evaluation-harness: eval/harness/RESULTS.md
	$(BIN)/python eval/harness/coverage.py --write
	$(BIN)/python eval/harness/lm_eval_backends.py
	$(BIN)/python eval/harness/shared_context.py --write

scale: $(VENV)/ready-$(ENGINE) $(BENCH_VENV)/ready-$(ENGINE)  ## what one driver feeds, on a machine that does nothing else: eval/scale/RESULTS.md
	$(BIN)/python eval/scale/scale.py --write

-include eval/peers/peers.mk  # a source distribution has no eval/
peers: $(PEERS:%=.venv-%/ready)  ## environments with real servers and programs of others that we are tried against

# `make engines ENGINES=kserve_servers` measures only that again; see eval/engines/run.py --help.
engines: $(VENV)/ready-$(ENGINE) .venv-datatrove/ready .venv-triton/ready .venv-mlserver/ready  ## every engine against the real servers and libraries that it speaks to: eval/engines/RESULTS.md
	$(BIN)/python eval/engines/run.py $(ENGINES)

# `make systems SYSTEMS=spark` tries only that part again; see eval/systems/run.py --help. What has no environment is not shown, and says so.
systems: $(VENV)/ready-$(ENGINE) peers  ## what is claimed of the eight systems, against the real things: eval/systems/RESULTS.md
	$(BIN)/python eval/systems/run.py $(SYSTEMS)

# `make formats FORMATS="bedrock --rows 100000"` measures only that again; see eval/systems/formats.py --help.
formats: $(VENV)/ready-$(ENGINE)  ## how fast other systems' files go in and out, on a machine that does nothing else: eval/systems/FORMATS.md
	$(BIN)/python eval/systems/formats.py $(FORMATS)

# `make server SERVER=polling` measures only that again; see eval/server/run.py --help.
server: $(VENV)/ready-$(ENGINE)  ## the server under load, on a machine that does nothing else: eval/server/RESULTS.md
	$(BIN)/python eval/server/run.py $(SERVER)

clean:
	rm -rf $(VENV) $(BENCH_VENV) $(PEERS:%=.venv-%) demo-output .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
