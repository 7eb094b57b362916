# Short names for what ./run and CI do. The tools come from `./run install dev`.
PY := .venv/bin/python
CLANG_FORMAT := clang-format-14
CLANG := clang-14
C_FILES = $(shell find bpf bench -path bpf/shim/generated -prune -o -name '*.[ch]' -print)
# -target bpf knows no multiarch folder by itself.
MULTIARCH = $(firstword $(wildcard /usr/include/*-linux-gnu))

.PHONY: lint ruff ruff-format mypy imports clang-format abi-check bpf-compile shell format abi test unit oracle accuracy bench fuzz vm clean

# Each is a target of its own, so that `make -j` runs them side by side.
lint: ruff ruff-format mypy imports clang-format abi-check bpf-compile shell

ruff:
	$(PY) -m ruff check --quiet .

ruff-format:
	$(PY) -m ruff format --quiet --check .

mypy:
	$(PY) -m mypy --no-error-summary

imports:
	.venv/bin/lint-imports --no-logo

clang-format:
	$(CLANG_FORMAT) --dry-run -Werror $(C_FILES)

abi-check:
	$(PY) -m fastpath.abi_gen --check

# The same source without bcc: its rewriter hides warnings that plain clang gives.
bpf-compile:
	@if [ -e bpf/gateway.c ]; then set -x; \
		$(CLANG) -target bpf -g -O2 -Wall -Werror -DMS_PLAIN_CLANG -Ibpf -I$(MULTIARCH) -c bpf/gateway.c -o /dev/null; fi

shell:
	bash -n run
	bash -n .ci/run
	bash -n tests/vm/run

format:
	$(PY) -m ruff check --quiet --fix . || true
	$(PY) -m ruff format --quiet .
	$(CLANG_FORMAT) -i $(C_FILES)

abi:
	$(PY) -m fastpath.abi_gen
	$(PY) -m slowpath.rules.schema >configs/rules.schema.json
	$(PY) -m slowpath.rules.schema patterns >configs/patterns.schema.json

test:
	./run test

unit:
	$(PY) -m pytest -m 'not root'

# Policies that CI does not try: so many, of another seed each time.
oracle:
	MICROSEG_ORACLE=$(or $(POLICIES),20000) $(PY) -m pytest -s tests/unit/fastpath/policy/test_oracle.py

# Identification over the shared captures, as Markdown: the confusion matrix and the evasion table.
accuracy:
	$(PY) -m tests.captures.accuracy

bench:
	$(PY) -m bench $(ONLY)

# The BPF tests on Debian 12's own kernel, emulated.
# One parser for so many seconds: make fuzz PARSER=dns TIME=120
fuzz:
	.venv/bin/python -m pip install --quiet --editable '.[fuzz]'
	$(PY) -m tests.fuzz $(PARSER) -max_total_time=$(or $(TIME),120)

vm:
	./run install vm
	tests/vm/run

clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache bpf/shim/generated
