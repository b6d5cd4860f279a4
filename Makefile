# make walkthrough   execute the notebooks in order and keep them as pages (CHECKPOINT=... picks another model)
# make test          all that CI runs
# make lab           JupyterLab on the notebooks
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
PAGES := build/walkthrough
CONVERT := $(BIN)/jupyter nbconvert --log-level ERROR
GRAPH := build/onnx_export/qwen3_tts_decoder_stateful.onnx

export QWEN3_CODEC_BUILD := $(CURDIR)/build
ifdef CHECKPOINT
export QWEN3_CODEC_CHECKPOINT := $(CHECKPOINT)
endif

.PHONY: setup walkthrough test lab lint notebooks

setup: $(INSTALLED)

$(INSTALLED): requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -r requirements.txt
	@touch $@

# Executed first, converted second: a progress bar's many updates can only be folded into one line afterwards.
walkthrough: setup
	@mkdir -p $(PAGES)
	@set -e; for notebook in $(NOTEBOOKS); do \
		echo "executing $$notebook"; \
		$(CONVERT) --to notebook --execute --output-dir $(PAGES) $$notebook; \
		$(CONVERT) --to html --CoalesceStreamsPreprocessor.enabled=True $(PAGES)/$$(basename $$notebook); \
	done
	@echo "The pages:"; ls $(PAGES)/*.html; echo "The graph:"; ls $(GRAPH)

# The export at the official dimensions is left to the walkthrough: it takes as long as all other notebooks.
test: export QWEN3_CODEC_SKIP_OFFICIAL := 1
test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=600 --durations=10 tests notebooks

lab: setup
	$(BIN)/jupyter lab --notebook-dir notebooks

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest tests/test_notebooks.py

# Take the .py sources over into the .ipynb files and execute those in place; for whoever edits a notebook.
notebooks: export QWEN3_CODEC_OFFICIAL := 1
notebooks: setup
	$(BIN)/jupytext --quiet --to ipynb --update notebooks/*.py
	$(CONVERT) --to notebook --inplace --execute notebooks/*.ipynb
	$(CONVERT) --to notebook --inplace --coalesce-streams notebooks/*.ipynb
	cp build/per_chunk_error.png notebooks/
