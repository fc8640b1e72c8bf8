# Each target sets itself up on a fresh machine with Python 3.11 or later: `make demo`, `make test`;
# with another Python than the first found: `make test PYTHON=python3.13`.
SHELL := /bin/bash
# Without bytecode each process would spend six seconds on compiling its imports.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
COMMA := ,
SPACE := $(subst ,, )

.PHONY: demo test mutants faults soak fuzz aot throughput processes pod bench beam site lint lock clean

# One claim of each paper, at sizes that decide it in a minute or two. Where a setting is not that of
# `cpu`, the report says so. Two parts run at a time, long ones first.
DEMO := markov lexinvariant equal_info visual_unicode mixture tokenizers byte_exact transplant hierarchy
PARTS := equal_info mixture markov tokenizers transplant visual_unicode lexinvariant byte_exact hierarchy
demo: $(INSTALLED)  ## A finding of each paper, and a page that opens with them.
	@echo '$(words $(PARTS)) papers, two at a time: a few minutes'
	@$(MAKE) --no-print-directory --jobs=2 $(addprefix demo/,$(PARTS))
	@$(BIN)/python -m experiments.reproduce --workdir=runs/demo \
	  --gather=$(subst $(SPACE),$(COMMA),$(addprefix runs/demo/,$(DEMO)))
demo/equal_info: TABLES = ratio
demo/equal_info: FLAGS = --config.m1.steps=450 --config.m1.length=64 \
  --config.m1.evaluate_every=450 --config.ratio.examples=32 --config.ratio.length=768 \
  '--config.ratio.token_bits=(16,)' \
  '--config.ratio.methods=("static_ac","greedy16","greedy24","greedy32","greedy64","greedy128","ac")'
demo/mixture: TABLES = domains
demo/mixture: FLAGS = --config.domains.mixtures=4 \
  --config.domains.train_bytes=200000 '--config.domains.sample_bytes=(50000,300000)' \
  '--config.domains.merges=(30,300)' --config.domains.trials=2 --config.domains.own_tokenizers=6
demo/markov: TABLES = transformer
demo/markov: FLAGS = '--config.orders=(2,)' \
  '--config.transformer.rates=(2e-3,)' --config.transformer.batch_size=8 \
  --config.transformer.steps=200 --config.transformer.validation_documents=64 \
  --config.transformer.evaluate_every=40 --config.transformer.ngram_chars=100000
demo/tokenizers: TABLES = compression
demo/tokenizers: FLAGS = '--config.compression.texts=("stdlib/prose","stdlib/source")' '--config.compression.vocab_sizes=(1024,8192)' \
  --config.compression.train_bytes=2000000 --config.compression.test_bytes=300000
demo/transplant: TABLES = transplant
demo/transplant: FLAGS = --config.base.steps=100 \
  '--config.transplant.new_tokenizers=(("larger","bpe",2048,"stdlib/prose"),)' \
  '--config.transplant.methods=("random","mean","parts")' '--config.transplant.short=()' \
  '--config.transplant.long=()' --config.held_out.bytes=16000
demo/visual_unicode: TABLES = loss
demo/visual_unicode: FLAGS = --config.loss.steps=40 \
  --config.loss.seeds=3 --config.loss.evaluate_every=20 '--config.loss.rates=(0.05,)' \
  --config.loss.validation=16 --config.loss.test=64 --config.loss.length=64 \
  '--config.loss.arms=("glyph","equal")' '--config.loss.references=("equal",)'
demo/lexinvariant: TABLES = theory
demo/byte_exact: TABLES = bias
demo/hierarchy: TABLES = causality
demo/hierarchy: FLAGS = '--config.causality.arms=("hnet","byte_transformer")'
demo/%:
	@echo '$*: starts'
	@set -o pipefail; $(BIN)/python -m experiments.$* --workdir=runs/demo/$* \
	  --config=configs/$*.py:cpu,tables=$(TABLES) $(FLAGS) 2>&1 >/dev/null | sed --unbuffered 's/^/$*: /'

test: $(INSTALLED)  ## Everything, in under ten minutes on two cores; TESTS=tests/tokenizers/test_bpe.py for a part.
	$(BIN)/python -m pytest -n 2 --dist loadfile $(TESTS)

mutants: $(INSTALLED)  ## Ten changes at random places, and the test that catches each; SEED=1 COUNT=3 MINUTES=10.
	$(BIN)/python -m tests.mutants

faults: $(INSTALLED)  ## Runs that are killed and stopped at random moments, in minutes (docs/faults.md).
	$(BIN)/python -m pytest -s tests/faults.py

soak: $(INSTALLED)  ## The same with 200 kills.
	KILLS=200 $(BIN)/python -m pytest -s tests/faults.py

fuzz: $(INSTALLED)  ## Mutated input for every reader; SECONDS_EACH=600 for longer.
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --target .cache/atheris 'atheris==3.0.0'
	PYTHONPATH=.cache/atheris $(BIN)/python -m tests.fuzz

aot: $(INSTALLED) .cache/libtpu  ## Kernels compiled for TPUs that are not attached.
	JAX_DISABLE_MOST_OPTIMIZATIONS=false PYTHONPATH=.cache/libtpu $(BIN)/python -m pytest tests/kernels/test_aot.py

check: $(INSTALLED)  ## The kernels of this accelerator compared with their references.
	$(BIN)/python -m pallas_kernels.bench.check

bench: $(INSTALLED) .cache/libtpu  ## The kernels timed on this accelerator, or compiled for TPUs.
	PYTHONPATH=.cache/libtpu $(BIN)/python -m pallas_kernels.bench

throughput: $(INSTALLED) .cache/torch  ## A decoder's training step compared with PyTorch's, on the CPU.
	PYTHONPATH=.cache/torch $(BIN)/python -m pytest tests/tools/test_throughput.py
	JAX_PLATFORMS=cpu PYTHONPATH=.cache/torch $(BIN)/python -m experiments.tools.throughput --peer

# uv takes the wheel for CPUs; UV_FIND_LINKS=DIR TORCH_FROM= takes one that is there already.
TORCH_FROM ?= --index https://download.pytorch.org/whl/cpu
.cache/torch: $(INSTALLED)
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --target $@ $(TORCH_FROM) 'torch==2.13.0'
	touch $@

processes: $(INSTALLED)  ## Two and four processes on this machine have the losses of one.
	POD=1 $(BIN)/python -m pytest tests/parallel/test_processes.py

pod: processes .cache/libtpu  ## Tests of what a pod needs, without a pod, in minutes: docs/pod.md.
	POD=1 PYTHONPATH=.cache/libtpu $(BIN)/python -m pytest -n 2 tests/tools/test_pod.py

# The libtpu that the installed JAX names in its extra `tpu`.
LIBTPU := from importlib.metadata import requires; \
  print(*(line.split(";")[0] for line in requires("jax") if line.startswith("libtpu")))
.cache/libtpu: $(INSTALLED)
	rm -rf $@
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --target $@ "$$($(BIN)/python -c '$(LIBTPU)')"
	touch $@

beam: $(INSTALLED)  ## The corpus runner on Apache Beam, which does not fit the lock (protobuf < 7).
	test -x .cache/beam/bin/python || $(BIN)/python -m venv --without-pip .cache/beam
	grep -E '^(absl-py|array-record|importlib-resources|numba|pytest|tensorflow-datasets|tqdm)==' \
	  requirements.lock > .cache/beam/requirements.txt
	VIRTUAL_ENV=.cache/beam $(BIN)/uv pip install --quiet 'apache-beam==2.77.0' -r .cache/beam/requirements.txt
	.cache/beam/bin/python -m pytest --noconftest tests/tools/test_corpus_beam.py

site: $(INSTALLED)  ## The documents as a site in .cache/site; any warning stops it.
	test -x .cache/docs/bin/python || $(BIN)/python -m venv --without-pip .cache/docs
	VIRTUAL_ENV=.cache/docs $(BIN)/uv pip install --quiet 'mkdocs-material==9.8.2' 'mkdocstrings[python]==1.0.8' \
	  'mkdocstrings-python==2.0.11' 'mkdocs==1.6.1'
	NO_MKDOCS_2_WARNING=1 .cache/docs/bin/mkdocs build

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: $(INSTALLED)  ## The tested versions of setup.py for every Python; versions that fit are kept.
	$(BIN)/uv pip compile --quiet --no-annotate --no-header --extra dev --universal \
	  --python-version 3.11 setup.py -o requirements.lock

$(INSTALLED): setup.py requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 …")'
	@echo 'Installing the tested versions into $(VENV) (about 1.3 GB, packages only) …'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet -r requirements.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps -e .
	touch $@

clean:  ## Deletes everything that was installed or cached, but no runs.
	rm -rf $(VENV) .cache .*_cache .hypothesis *.egg-info
