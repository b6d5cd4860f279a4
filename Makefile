# make walkthrough   execute the notebooks in order and make them a book (CHECKPOINT=... picks another model, AUDIO=... your voice)
# make book          the book of the committed notebooks, executing nothing
# make translations  the catalogues of the translated pages, with the messages of today (BEGIN=00_hear_it begins a page's)
# make test          the tests, in six minutes on two cores; a push runs this and the walkthrough
# make test-all      all tests, those that take long too; CI runs it at night
# make mutations     faults put into the core one at a time: each must turn the tests red
# make lab           JupyterLab on the notebooks, at the exercises and how far you are with them
# make setup         the environment alone
# make page          the lab in a browser: builds the page and serves it (needs npm)
# make serve         a Triton server with the demo's decoder, on this machine (Linux on x86)
# make upstream      upstream's own package beside the project, in build/upstream, for the tests that run it
# make lint          style, types, the order of imports, and the pairs of notebooks
# make oldest        the core's tests with the oldest packages that are allowed, in an environment of their own
# make notebooks     execute the committed notebooks again, after a change in a .py
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
TRITON := build/triton/.installed
UPSTREAM := build/upstream/.installed
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
PAGES := build/walkthrough
EXECUTED := $(NOTEBOOKS:notebooks/%=$(PAGES)/%)
# A kernel would warn that it listens on an unencrypted port of this machine.
CONVERT := $(BIN)/jupyter nbconvert --log-level ERROR --ExecutePreprocessor.extra_arguments=--IPKernelApp.log_level=40
BOOK := $(BIN)/python -m qwen3_codec.course.book --lab build/page
GRAPH := build/onnx_export/qwen3_tts_decoder_stateful.onnx
# The core's tests need no more than [cpu,export], pytest and hypothesis. The workflow reads this line too.
CORE := tests/core

export QWEN3_CODEC_BUILD := $(CURDIR)/build
ifdef CHECKPOINT
# A folder is seen from here; the notebooks run in their own.
export QWEN3_CODEC_CHECKPOINT := $(shell cd "$(CHECKPOINT)" 2>/dev/null && pwd || printf %s "$(CHECKPOINT)")
endif
ifdef AUDIO
# A recording whose codes the notebooks take; seen from here too.
export QWEN3_CODEC_AUDIO := $(shell realpath -- "$(AUDIO)" 2>/dev/null || printf %s "$(AUDIO)")
endif

.PHONY: setup walkthrough book test test-all mutations lab page serve upstream style lint oldest notebooks translations FORCE

setup: $(INSTALLED)

# An environment that does not run, has no pip (as uv makes them), was moved, or runs another Python, is made anew: its pip
# is a script that names the interpreter by its path, so that it runs where all of the environment does.
PIP := $(BIN)/pip --disable-pip-version-check
RUNS := $(shell $(BIN)/python -c '' 2>/dev/null && $(PIP) --version 2>/dev/null)
VERSION := -c 'import sys; print(sys.version)'

$(INSTALLED): requirements.txt pyproject.toml $(if $(RUNS),,FORCE)
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info[:2] <= (3, 14) or sys.exit("This needs Python 3.11 to 3.14 (ONNX Runtime 1.32 has no wheel for a newer one); $(PYTHON) is %d.%d. Name another one: make setup PYTHON=python3.12" % sys.version_info[:2])'
	@test "$(if $(RUNS),$$($(BIN)/python $(VERSION)))" = "$$($(PYTHON) $(VERSION))" || $(PYTHON) -m venv --clear .venv
	$(PIP) install -r requirements.txt
	@touch $@

# Where pip cannot have the server's wheel, what needs it is skipped and says so.
$(TRITON): requirements-server.txt | setup
	@$(PIP) install --quiet --no-deps --upgrade --target $(@D) -r $< && touch $@ || \
		echo "no Triton server here: what needs one is skipped"

# An environment that sees the packages of .venv behind its own, so that upstream's transformers comes before the
# project's; it is made anew when .venv is. An empty file stands for the part of torchaudio that the 25 Hz tokenizer
# loads, which nothing here runs.
PURELIB := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
$(UPSTREAM): requirements-upstream.txt $(INSTALLED)
	@$(BIN)/python -m venv --clear --without-pip $(@D) && \
		site=$$($(@D)/bin/python $(PURELIB)) && $(BIN)/python $(PURELIB) > $$site/project.pth && \
		mkdir -p $$site/torchaudio/compliance && touch $$site/torchaudio/compliance/kaldi.py && \
		$(PIP) --python $(@D)/bin/python install --quiet --no-deps -r $< && touch $@ || \
		echo "no qwen-tts here: what needs upstream's package is skipped"

upstream: $(UPSTREAM)

# Two notebooks at a time, with one thread each: threads of two processes that share a core wait for each other.
walkthrough: export OMP_NUM_THREADS := 1
walkthrough: setup
	@$(if $(QWEN3_CODEC_CHECKPOINT)$(QWEN3_CODEC_AUDIO),$(BIN)/python -m qwen3_codec.course.given)
	@mkdir -p $(PAGES)
	@$(MAKE) --no-print-directory -j 2 $(EXECUTED)
	@$(BOOK) --pages $(PAGES) --output $(PAGES)
	@echo "The book:"; ls $(PAGES)/index.html; echo "The graph:"; ls $(GRAPH)

book: setup
	@$(BOOK) --output build/book
	@echo "The book: build/book/index.html; with the lab on its first page: $(BIN)/python -m http.server --directory build/book"

translations: setup
	$(BIN)/python -m qwen3_codec.course.book.translation $(BEGIN)

$(PAGES)/%.ipynb: notebooks/%.ipynb FORCE
	@echo "executing $<"
	@$(CONVERT) --to notebook --execute --output-dir $(PAGES) $<

# It reads the graph that page 4 writes.
$(PAGES)/05_verify_onnxruntime.ipynb: $(PAGES)/04_export_onnx.ipynb

# One process more than there are cores, with one thread each, for those that wait: for a kernel, a browser, a server.
# Files that take long are handed out first, so that no core waits for the other at the end. The walkthrough has the
# export at the official dimensions, and the pages on the demo.
WORKERS = $(shell $(BIN)/python -c 'import os; print((os.cpu_count() or 1) + 1)')
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --nbmake --nbmake-timeout=600 \
	--durations=10 tests/course/test_odd_checkpoint.py notebooks tests/course/test_pitfalls.py \
	tests/core/test_workbench.py tests/core/test_bits.py tests/serving tests/course tests/cli tests/core
test test-all: export QWEN3_CODEC_SKIP_OFFICIAL := 1
test test-all mutations: export OMP_NUM_THREADS := 1
test: $(TRITON) $(UPSTREAM)
	$(PYTEST) -m "not slow"

test-all: $(TRITON) $(UPSTREAM)
	$(PYTEST)

mutations: setup
	$(BIN)/python tests/mutations.py

lab: setup
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) --notebook-dir notebooks notebooks/12_capstones.ipynb

page: setup
	@command -v npm >/dev/null || { echo "npm is not here, which brings ONNX Runtime Web: install Node.js (Debian: apt-get install npm)"; exit 1; }
	$(BIN)/python -m qwen3_codec page --output build/page --serve 8000

serve: setup $(TRITON)
	$(BIN)/python -m qwen3_codec export --checkpoint $(or $(CHECKPOINT),demo) --output build/serve/decoder.onnx
	$(BIN)/python -m qwen3_codec triton build/serve/decoder.onnx --output build/model_repository
	$(BIN)/python -m qwen3_codec.serving.server build/model_repository

style: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lint: style
	$(BIN)/python -m pytest tests/course/test_notebooks.py

# Tests of opsets that a runtime of that age does not know are left out.
oldest: export OMP_NUM_THREADS := 1
oldest:
	$(PYTHON) -m venv --clear build/oldest
	build/oldest/bin/pip install --disable-pip-version-check -c requirements-oldest.txt '.[cpu,export]' pytest hypothesis
	build/oldest/bin/python -m pytest -k "not other_opsets" $(patsubst %,$(CORE)/test_%.py,export runtime reference changes)

# Take the .py sources over into the .ipynb files and execute those in place; for whoever edits a notebook.
notebooks: export QWEN3_CODEC_OFFICIAL := 1
notebooks: setup $(TRITON)
	$(BIN)/jupytext --quiet --to ipynb --update notebooks/[0-9]*.py
	for notebook in $(NOTEBOOKS); do $(CONVERT) --to notebook --inplace --execute $$notebook || exit 1; done
	$(CONVERT) --to notebook --inplace --coalesce-streams $(NOTEBOOKS)
	cp build/per_chunk_error.png notebooks/
