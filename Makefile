# `make report` and `make test`, each alone, do everything on a fresh machine: they make the environment they need.

PYTHON ?= python3
VENV ?= .venv
READY := $(VENV)/ready
export OMP_NUM_THREADS ?= 1
unexport PYTHONDONTWRITEBYTECODE  # or each of the hundreds of processes that the tests start would compile our packages anew

.PHONY: report test lint docs score calibrate nightly libraries picture

report: $(READY)  ## verify and measure all that is built in; the page is runs/<id>/report.html
	$(VENV)/bin/veriformer report

test: $(READY)  ## every property on every implementation, and the suite's tests of itself
	-@$(VENV)/bin/python -c 'from optimized import tuned; tuned.missing() or tuned.load()'  # or each worker would compile it for itself
	$(VENV)/bin/pytest properties tests --numprocesses=logical --dist=worksteal --durations=25

lint: $(READY)  ## style, types, and who may import whom
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/lint-imports
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

docs: $(READY)  ## the documentation, in build/docs; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

score: $(READY)  ## how many of the re-created real bugs are caught
	$(VENV)/bin/veriformer score

calibrate: $(READY)  ## false positives, and the smallest fault each budget sees
	$(VENV)/bin/veriformer calibrate

libraries: $(READY)  ## what of its attention each library passes, as the table of docs/libraries.md; installs them
	$(VENV)/bin/pip install --quiet -c constraints.txt -e '.[libraries]'
	$(VENV)/bin/veriformer libraries

picture: $(READY)  ## the picture of the committed page that README.md shows; installs a browser
	$(VENV)/bin/pip install --quiet -c constraints.txt -e '.[picture]'
	$(VENV)/bin/python docs/figures/report.py

nightly: $(READY)  ## many more examples, drawn at random; what failed once is tried first the next time; and the long tests
	$(VENV)/bin/pytest properties --hypothesis-profile=nightly --numprocesses=logical --dist=worksteal --timeout=7200
	$(VENV)/bin/veriformer verify optimized.inner_product optimized.convolution --dtype float32
	$(VENV)/bin/pytest tests -m long --numprocesses=logical --dist=worksteal

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -c constraints.txt -e '.[lint,docs]'
	touch $@
