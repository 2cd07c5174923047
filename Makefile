# On a fresh clone `make demo` trains a model, `make test` runs the tests; each sets up what it needs. `make help` lists all.
PYTHON ?= python3
VENV := .venv
# TORCH=cpu takes the build without CUDA from PyTorch's own index (0.2 GB; PyPI's for Linux comes with 2.5 GB of CUDA),
# TORCH=cu126, rocm6.4 ... the others there. Without it pip takes what it finds first.
TORCH ?=
TORCH_INDEX = $(if $(TORCH),--extra-index-url https://download.pytorch.org/whl/$(TORCH))
BIN := $(VENV)/bin

# Packages are compiled when they are first imported (see below), which has to last.
unexport PYTHONDONTWRITEBYTECODE

# A month's corpus, from the web and from Wikipedia, then a tokenizer and packed blocks for pretraining/run_mlm.py.
# Each stage goes on where it was stopped. CRAWL_URL and WIKI_URL may name a mirror or a folder. The Wikipedia dump comes
# whole, whatever RATIO is (enwiki: 25 GB; its size is said first); WIKI= leaves it out.
SNAPSHOT ?= CC-MAIN-2026-43
WIKI ?= enwiki-20261101
RATIO ?= 0.0001
LANGUAGES ?= en
VOCAB_SIZE ?= 30522
VALIDATION ?= 0.01
CORPUS ?= data/$(if $(INPUT),$(notdir $(firstword $(INPUT:/=)))_corpus,$(SNAPSHOT)$(if $(WIKI),-$(WIKI)))
CRAWL_URL ?= https://data.commoncrawl.org
WIKI_URL ?= https://dumps.wikimedia.org
STAGE = $(BIN)/python data_prep

# Documents to take in place of SNAPSHOT and WIKI: a folder of parquet, JSON lines or text, or several. As everywhere in
# make, spaces divide names: a folder with one in its name has to be renamed, or linked to.
INPUT ?=
# An update: the model of before; the text of before, part of which it reads again (rows with a date); the last day that it
# knows; tasks of run_benchmark.py for the gate (none: freshness alone), and more flags for it; more flags for run_mlm.py.
MODEL ?= pretraining/models/tiny
OLD_TEXT ?=
LAST ?=
MONTH ?= $(shell date +%Y-%m)
NAME ?= $(notdir $(MODEL:/=))-$(MONTH)
UPDATE ?= runs/$(NAME)
RECIPE ?= pretraining/recipes/update.yaml
WEIGHTS ?= 0.7 0.3
AVERAGE ?= 0.5
PERIOD ?= month
TASKS ?=
TASK_FLAGS ?=
FLAGS ?=
BEGUN = MODEL=$(MODEL) INPUT=$(INPUT) SNAPSHOT=$(SNAPSHOT) WIKI=$(WIKI) RATIO=$(RATIO) LANGUAGES=$(LANGUAGES) \
	OLD_TEXT=$(OLD_TEXT) LAST=$(LAST) MONTH=$(MONTH) NAME=$(NAME)
# What the gate measures of both models, looked at before there is the new one.
MEASURED = --cutoff $(LAST) $(MONTH) --input $(OLD_TEXT) "$(UPDATE)/corpus" --held_out $(VALIDATION) --period $(PERIOD) \
	--new_words none --output_dir "$(UPDATE)/results"

# What depends on RATIO; with a higher one the sample of the web grows, and this is set aside and made anew.
DERIVED = web web_filtered deduplicated corpus analysis tokenizer packed word-vectors

# Where the stages of a model of CORPUS lie.
STAGES ?= runs/$(notdir $(CORPUS:/=))

.PHONY: help install demo test test-faults test-cluster bench-gpu results check format clean text corpus model update

help: ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /: /'
	@echo 'Variables, given as NAME=value, with their defaults:'
	@sed -n 's/^\([A-Z_]*\) ?= *\(.*\)/  \1=\2/p' Makefile

install: $(VENV)/core ## the packages that the scripts need, in .venv; TORCH=cpu for the small build of torch

demo: $(VENV)/core ## train a model in 3 minutes on two CPU cores
	$(BIN)/accelerate launch pretraining/run_mlm.py
	@echo 'The model is in runs/demo. Next, on a CSV of yours with the columns text and label:'
	@echo '  $(BIN)/python finetuning/run_glue.py --model_name_or_path runs/demo --train_file mine.csv --validation_fraction 0.1 --text_column text --output_dir runs/mine'

# In two processes; for one file, .venv/bin/python -m pytest tests/shared/test_trainer.py.
test: $(VENV)/dev ## the tests
	$(BIN)/python -m pytest -n 2

test-faults: $(VENV)/dev ## the long form of the tests: most of an hour
	$(BIN)/python -m pytest -m faults
	$(BIN)/python tests/faults/training.py

test-cluster: $(VENV)/dev ## Slurm for real, started on this machine (Debian: apt-get install slurm-wlm munge)
	$(BIN)/python -m pytest -m cluster

bench-gpu: $(VENV)/dev ## what only a GPU can show: tables in runs/gpu, and the tests that need CUDA
	PATH="$(abspath $(BIN)):$$PATH" bash evaluation/gpu_report.sh runs/gpu

# The tables of the README files and the report, from the result files beside them.
results: $(VENV)/dev ## the tables of the README files and the report
	$(BIN)/python evaluation/readme_tables.py
	$(BIN)/python evaluation/make_report.py --config evaluation/recipes/results.yaml

# $(call set_aside,NAME,FOLDERS): where the corpus was made with another value of NAME than this one, move the folders that
# depend on it to name-VALUE, to be made anew. The value is kept in a file of its name; where there is none yet, the
# tokenizer and the blocks tell what they were made with. (With another RATIO the stages refuse what is there.)
define set_aside
@cd "$(CORPUS)" && name=$$(echo $(1) | tr A-Z a-z) && \
	before=$$(cat $$name 2>/dev/null || { $(or $(MADE_WITH_$(1)),echo $($(1))); }) && \
	if ! awk "BEGIN {exit !($$before == $($(1)))}"; then old=$$name-$$before && \
		while [ -e "$$old" ]; do old=$$old-before; done && \
		for folder in $(2); do [ ! -e $$folder ] || { mkdir -p "$$old" && mv $$folder "$$old/"; } || exit 1; done && \
		if [ -e "$$old" ]; then echo "$(1) was $$before: what was made with it is in $(CORPUS)/$$old"; fi; fi && \
		echo $($(1)) > $$name
endef
MADE_WITH_VOCAB_SIZE = if [ -e tokenizer ]; then "$(abspath $(BIN))/python" -c 'from tokenizers import Tokenizer; \
	print(Tokenizer.from_file("tokenizer/tokenizer.json").get_vocab_size())'; else echo $(VOCAB_SIZE); fi
MADE_WITH_VALIDATION = if [ -e packed ]; then "$(abspath $(BIN))/python" -c 'import json; \
	print(json.load(open("packed/manifest.json"))["validation_fraction"])'; else echo $(VALIDATION); fi

define check_last
@test -z "$(LAST)" || $(BIN)/python -c 'import datetime; assert str(datetime.date.fromisoformat("$(LAST)")) == "$(LAST)"' \
	2>/dev/null || { echo 'make: LAST=$(LAST) is no day; write it as YYYY-MM-DD' >&2; exit 2; }
endef

# The documents of a month, cleaned, without duplicates and without what OLD_TEXT has.
text: $(VENV)/core ## the documents alone
	$(check_last)
ifeq ($(INPUT),)
	$(STAGE)/fetch_common_crawl.py --snapshot $(SNAPSHOT) --sampling_ratio $(RATIO) --base_url "$(CRAWL_URL)" \
		--output_dir "$(CORPUS)/crawl"
	$(call set_aside,RATIO,$(DERIVED))
	$(STAGE)/extract_common_crawl.py --input "$(CORPUS)/crawl" --languages $(LANGUAGES) --output_dir "$(CORPUS)/web"
	$(STAGE)/filter_documents.py --config data_prep/recipes/filter_web.yaml --input "$(CORPUS)/web" \
		--output_dir "$(CORPUS)/web_filtered"
ifneq ($(WIKI),)
	$(STAGE)/extract_wikipedia.py --wiki $(firstword $(subst -, ,$(WIKI))) --date $(lastword $(subst -, ,$(WIKI))) \
		--base_url "$(WIKI_URL)" --dump_dir "$(CORPUS)/dump" --output_dir "$(CORPUS)/wikipedia"
	$(STAGE)/filter_documents.py --config data_prep/recipes/filter_wikipedia.yaml --input "$(CORPUS)/wikipedia" \
		--output_dir "$(CORPUS)/wikipedia_filtered"
endif
endif
	$(STAGE)/deduplicate.py --input $(if $(INPUT),$(INPUT),"$(CORPUS)/web_filtered" \
		$(if $(WIKI),"$(CORPUS)/wikipedia_filtered")) $(if $(OLD_TEXT),--against $(OLD_TEXT)) \
		--output_dir "$(CORPUS)/deduplicated"
	$(STAGE)/build_corpus.py --input "$(CORPUS)/deduplicated" $(if $(LAST),--documents_after $(LAST)) \
		--output_dir "$(CORPUS)/corpus"
	$(STAGE)/analyse_corpus.py --input "$(CORPUS)/corpus" $(if $(INPUT),--by year) --output_dir "$(CORPUS)/analysis"

corpus: text ## a month's text from the web and Wikipedia (or of INPUT), a tokenizer, packed blocks
	$(call set_aside,VOCAB_SIZE,tokenizer packed word-vectors)
	$(call set_aside,VALIDATION,packed word-vectors)
	test -d "$(CORPUS)/tokenizer" || $(STAGE)/train_tokenizer.py --input "$(CORPUS)/corpus" \
		--vocab_size $(VOCAB_SIZE) --output_dir "$(CORPUS)/tokenizer"
	test -d "$(CORPUS)/packed" || $(STAGE)/pack_dataset.py --input "$(CORPUS)/corpus" \
		--tokenizer_name "$(CORPUS)/tokenizer" --validation_fraction $(VALIDATION) --output_dir "$(CORPUS)/packed"

# The first two stages of pretraining/models/tiny.
model: corpus $(VENV)/embeddings ## a model of that corpus which fills masks and compares texts: 80 minutes of training on a CPU core
	test -d "$(CORPUS)/word-vectors" || $(STAGE)/train_word_vectors.py --packed_dataset "$(CORPUS)/packed" \
		--output_dir "$(CORPUS)/word-vectors"
	$(BIN)/accelerate launch pretraining/run_mlm.py --config pretraining/recipes/tiny_trunk.yaml \
		--word_vectors "$(CORPUS)/word-vectors" --packed_dataset "$(CORPUS)/packed" $(FLAGS) --output_dir "$(STAGES)/trunk"
	$(BIN)/accelerate launch pretraining/run_distillation.py --config pretraining/recipes/distil_words.yaml \
		--model_name_or_path "$(STAGES)/trunk" --teacher_name_or_path "$(CORPUS)/word-vectors" \
		--train_file "$(CORPUS)/corpus" --packed_dataset "$(CORPUS)/packed" $(FLAGS) --output_dir "$(STAGES)/model"
	@echo 'The model is in $(STAGES)/model. Next:'
	@echo '  $(BIN)/python finetuning/run_glue.py --config finetuning/recipes/stsb.yaml --model_name_or_path $(STAGES)/model'

# Everything of an update lies in UPDATE, and each step goes on where it was stopped; the last one is the gate.
update: override CORPUS = $(UPDATE)
update: $(VENV)/core ## last month's MODEL learns this month's text: better on it, and nowhere worse, or it fails
	@test -n "$(OLD_TEXT)" && test -n "$(LAST)" || { echo 'make update: name the text of before,' \
		'OLD_TEXT=data/october/corpus, and the last day that the model knows, LAST=2026-10-31' >&2; exit 2; }
	$(check_last)
	@test "$(NAME)" != "$(notdir $(MODEL:/=))" || { echo 'make update: NAME=$(NAME) is the name of the model of before;' \
		'give the new one another' >&2; exit 2; }
	@mkdir -p "$(UPDATE)"; test -f "$(UPDATE)/begun" || echo '$(BEGUN)' > "$(UPDATE)/begun"; \
		test "$$(cat "$(UPDATE)/begun")" = '$(BEGUN)' || { echo 'make update: $(UPDATE) was begun with' \
		"$$(cat "$(UPDATE)/begun"); give these again, or name another folder, UPDATE=runs/..." >&2; exit 2; }
	@$(MAKE) --no-print-directory -o "$(VENV)/core" text CORPUS="$(UPDATE)"  # what it needs is installed
	test -d "$(UPDATE)/$(NAME)" || $(BIN)/python evaluation/run_freshness.py --dry_run \
		--models "$(MODEL)" "$(NAME)=$(MODEL)" $(MEASURED)
	$(call set_aside,VALIDATION,tokenizer packed packed_old)
	test -d "$(UPDATE)/tokenizer" || $(STAGE)/extend_tokenizer.py --tokenizer_name "$(MODEL)" \
		--input "$(UPDATE)/corpus" --grow --validation_fraction $(VALIDATION) --output_dir "$(UPDATE)/tokenizer"
	test -d "$(UPDATE)/packed" || $(STAGE)/pack_dataset.py --input "$(UPDATE)/corpus" \
		--tokenizer_name "$(UPDATE)/tokenizer" --validation_fraction $(VALIDATION) --output_dir "$(UPDATE)/packed"
	test -d "$(UPDATE)/packed_old" || $(STAGE)/pack_dataset.py --input $(OLD_TEXT) \
		--tokenizer_name "$(UPDATE)/tokenizer" --validation_fraction $(VALIDATION) --output_dir "$(UPDATE)/packed_old"
	$(BIN)/accelerate launch pretraining/run_mlm.py --config $(RECIPE) --tokenizer_name "$(UPDATE)/tokenizer" \
		--model_name_or_path "$(MODEL)" $(if $(AVERAGE),--average_with "$(MODEL):$(AVERAGE)") \
		--packed_dataset "$(UPDATE)/packed" "$(UPDATE)/packed_old" --mixture_weights $(WEIGHTS) $(FLAGS) \
		--output_dir "$(UPDATE)/$(NAME)"
	$(BIN)/python evaluation/run_freshness.py --models "$(MODEL)" "$(UPDATE)/$(NAME)" $(MEASURED)
ifneq ($(TASKS),)
	$(BIN)/python evaluation/run_benchmark.py --models "$(MODEL)" "$(UPDATE)/$(NAME)" --tasks $(TASKS) \
		$(TASK_FLAGS) --output_dir "$(UPDATE)/results"
endif
	$(BIN)/python evaluation/make_report.py --pretraining "$(UPDATE)/$(NAME)" --freshness "$(UPDATE)/results" \
		$(if $(TASKS),--benchmark "$(UPDATE)/results") --months "$(UPDATE)" --data "$(UPDATE)/corpus" \
		--output_dir "$(UPDATE)/report"
	$(BIN)/python evaluation/compare_models.py --before "$(UPDATE)/results:$(notdir $(MODEL:/=))" \
		--after "$(UPDATE)/results:$(NAME)" --max_rise 0.01 --must_be_fresher --output_dir "$(UPDATE)/gate"
	@echo 'The model is in $(UPDATE)/$(NAME), what it can do in $(UPDATE)/report/report.html.'

check: $(VENV)/dev ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/dev ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the environment, so that the next command installs it anew
	rm -rf $(VENV) *.egg-info

# Marker files: an install is repeated when the requirements have changed. One make at a time installs; another waits for
# the lock, which ends with the process that has it, and looks again whether there is something to do. Python compiles what
# it imports, when it does; pip would compile all that it installs, in more than half of its time.
$(VENV)/core: requirements.txt pyproject.toml
$(VENV)/embeddings: requirements-embeddings.txt $(VENV)/core
$(VENV)/dev: requirements-dev.txt requirements-cluster.txt requirements-evaluation.txt requirements-embeddings.txt \
	requirements.txt pyproject.toml

ifndef ALONE
$(VENV)/core $(VENV)/embeddings $(VENV)/dev:
	@$(PYTHON) -c 'import fcntl, os, sys; lock = os.open("Makefile", os.O_RDWR); fcntl.flock(lock, fcntl.LOCK_EX); \
		os.set_inheritable(lock, True); os.execvp(sys.argv[1], sys.argv[1:])' $(MAKE) --no-print-directory ALONE=yes $@
else
$(VENV)/core $(VENV)/dev:
	$(PYTHON) -m venv $(VENV)
	@echo 'torch: $(if $(TORCH),the build $(TORCH),as pip finds it; with TORCH=cpu on Linux without 2.5 GB of CUDA)'
	$(BIN)/pip install --no-compile $(TORCH_INDEX) -r $<
	touch $(VENV)/core $@  # the core is among what the tests need

$(VENV)/embeddings:
	$(BIN)/pip install --no-compile $(TORCH_INDEX) -r $<
	touch $@
endif
