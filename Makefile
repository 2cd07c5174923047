# Two commands on a fresh clone: `make demo` trains a model, `make test` runs the tests. Each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# A month's corpus, from the web and from Wikipedia, then a tokenizer and packed blocks for pretraining/run_mlm.py.
# Each stage goes on where it was stopped. CRAWL_URL and WIKI_URL may name a mirror or a folder.
SNAPSHOT ?= CC-MAIN-2026-43
WIKI ?= enwiki-20261101
RATIO ?= 0.0001
LANGUAGES ?= en
VOCAB_SIZE ?= 30522
VALIDATION ?= 0.01
CORPUS ?= data/$(SNAPSHOT)-$(WIKI)
CRAWL_URL ?= https://data.commoncrawl.org
WIKI_URL ?= https://dumps.wikimedia.org
STAGE = $(BIN)/python data_prep

.PHONY: demo test test-faults results check format clean corpus

demo: $(VENV)/core
	$(BIN)/accelerate launch pretraining/run_mlm.py

# In two processes; for one file, .venv/bin/python -m pytest tests/test_trainer.py.
test: $(VENV)/dev
	$(BIN)/python -m pytest -n 2

# The long form of the resume tests: most of an hour.
test-faults: $(VENV)/dev
	$(BIN)/python -m pytest -m faults
	$(BIN)/python tests/faults.py

# The tables of the README files and the report, from the result files beside them.
results: $(VENV)/dev
	$(BIN)/python evaluation/readme_tables.py
	$(BIN)/python evaluation/make_report.py --config evaluation/recipes/results.yaml

corpus: $(VENV)/core
	$(STAGE)/fetch_common_crawl.py --snapshot $(SNAPSHOT) --sampling_ratio $(RATIO) --base_url $(CRAWL_URL) \
		--output_dir $(CORPUS)/crawl
	$(STAGE)/extract_common_crawl.py --input $(CORPUS)/crawl --languages $(LANGUAGES) --output_dir $(CORPUS)/web
	$(STAGE)/filter_documents.py --config data_prep/recipes/filter_web.yaml --input $(CORPUS)/web \
		--output_dir $(CORPUS)/web_filtered
	$(STAGE)/extract_wikipedia.py --wiki $(firstword $(subst -, ,$(WIKI))) --date $(lastword $(subst -, ,$(WIKI))) \
		--base_url $(WIKI_URL) --dump_dir $(CORPUS)/dump --output_dir $(CORPUS)/wikipedia
	$(STAGE)/filter_documents.py --config data_prep/recipes/filter_wikipedia.yaml --input $(CORPUS)/wikipedia \
		--output_dir $(CORPUS)/wikipedia_filtered
	$(STAGE)/deduplicate.py --input $(CORPUS)/web_filtered $(CORPUS)/wikipedia_filtered \
		--output_dir $(CORPUS)/deduplicated
	$(STAGE)/build_corpus.py --input $(CORPUS)/deduplicated --output_dir $(CORPUS)/corpus
	$(STAGE)/analyse_corpus.py --input $(CORPUS)/corpus --output_dir $(CORPUS)/analysis
	test -d $(CORPUS)/tokenizer || $(STAGE)/train_tokenizer.py --input $(CORPUS)/corpus --vocab_size $(VOCAB_SIZE) \
		--output_dir $(CORPUS)/tokenizer
	test -d $(CORPUS)/packed || $(STAGE)/pack_dataset.py --input $(CORPUS)/corpus \
		--tokenizer_name $(CORPUS)/tokenizer --validation_fraction $(VALIDATION) --output_dir $(CORPUS)/packed

check: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) *.egg-info

# Marker files: an install is repeated when the requirements have changed.
$(VENV)/core: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -r requirements.txt
	touch $@

$(VENV)/dev: requirements-dev.txt requirements-cluster.txt requirements-evaluation.txt requirements-embeddings.txt $(VENV)/core
	$(BIN)/pip install -r requirements-dev.txt
	touch $@
