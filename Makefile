# `make` alone says what there is. Everything is installed into .venv, and only there.

PYTHON ?= python3
ARGS ?=

STAMP := .venv/installed
names = $(sort $(basename $(notdir $(wildcard experiments/$(1)/*.yaml))))

# Every variable of the command line, apart from this file's own, is a word for run.py. They are
# quoted one by one: a value may hold brackets, blanks or quotes, and a key may hold dots.
OURS := PYTHON ARGS
GIVEN = $(foreach V,$(sort $(.VARIABLES)),$(if $(filter command,$(origin $(V))),$(V)))
WORDS = $(foreach V,$(filter-out $(OURS),$(GIVEN)),$(call quote,$(V)=$(value $(V))))
quote = '$(subst ','\'',$(1))'

.PHONY: help run test bench docs soak
.SUFFIXES:

help:
	@echo 'make run grid=NAME [scale=NAME] [seeds=[0,1,2]] [list=true] [key=value ...]'
	@echo '    Trains what is missing of a study, measures it and writes its table and figures.'
	@echo '    grids:  $(call names,grids)'
	@echo '    scales: $(call names,scales)'
	@echo '    All keys: make run (with none). In zsh, quote brackets: "seeds=[0,1,2]"'
	@echo 'make test [ARGS="-k schedule"]'
	@echo '    Runs the tests, files side by side on up to 4 cores; ARGS are for pytest.'
	@echo '    ARGS="-m slow" runs the long ones, which are left out otherwise.'
	@echo 'make bench [ARGS="training short=true"]'
	@echo '    Measures speed and memory, beside two peers, and writes results/reference/benchmarks/.'
	@echo 'make soak [ARGS="hours=2"]'
	@echo '    Interrupts small grids, 200 times or for so long, and sees that nothing is lost.'
	@echo 'make docs'
	@echo '    Builds the documentation site into site/; open site/index.html.'
	@echo 'All first install the versions of requirements.lock into .venv, once.'
	@echo 'PYTHON=python3.12 makes it with another Python, 3.11 or newer.'

run: $(STAMP)
	@exec .venv/bin/python experiments/run.py $(WORDS)

test: $(STAMP)
	@exec .venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
	    $(ARGS)

bench: .venv/peers/installed
	@exec .venv/bin/python -m benchmarks $(ARGS)

soak: $(STAMP)
	@exec .venv/bin/python tests/faults $(ARGS)

.venv/peers/installed: benchmarks/peers.lock $(STAMP)
	@echo 'Installing the peers that the suite is compared with ...'
	@.venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps --upgrade \
	    --target .venv/peers -r benchmarks/peers.lock
	@touch $@

# The variable leaves out a banner about versions that docs/requirements.lock does not have.
docs: .venv/docs-installed
	@NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict

.venv/docs-installed: docs/requirements.lock $(STAMP)
	@echo 'Installing what the documentation site is made with ...'
	@.venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps \
	    -r docs/requirements.lock
	@touch $@

# .venv/unfinished is there until everything is installed, and then becomes the stamp. An
# environment that was left unfinished, or that is of an old Python, is made afresh.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python 3.11 or newer is \
	needed, and $(PYTHON) is %d.%d; name another one: make PYTHON=python3.11 ..." % sys.version_info[:2])'
	@echo 'Installing into .venv what requirements.lock lists: once, a few minutes ...'
	@if [ -e .venv/unfinished ] || \
	    ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	then rm -rf .venv; fi
	@mkdir -p .venv && rm -f $@ && touch .venv/unfinished
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install -qq --disable-pip-version-check -r requirements.lock
	@.venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@mv .venv/unfinished $@
