# `make test` and `make demo`: each sets up what it needs.
.PHONY: setup demo lint check test test-engines
.DEFAULT_GOAL := test

PYTHON ?= python3

# ONNX Runtime's library, the protobuf compiler and the spell checker, into the work tree
setup:
	@command -v $(PYTHON) >/dev/null || { echo "setup: $(PYTHON) is not on the PATH"; echo "hint: install Python 3 with pip"; exit 1; }
	@$(PYTHON) scripts/setup.py

# train, export, index, search and evaluate on Norwegian text in the repository
demo: setup
	cargo build --release --bin splade
	@scripts/demo.sh

# formatting, lints and docs, all with warnings denied
lint: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# each crate alone, features, oldest Rust, spelling, licences
check: setup
	@PYTHON=$(PYTHON) scripts/check.sh

# lints, all tests and doc-tests, then the other checks
test: lint
	cargo test --workspace
	@PYTHON=$(PYTHON) scripts/check.sh

# tests against real engines and clusters: each is set up in .engines/, or skipped with the reason; within ENGINES_MINUTES, 18 by default
test-engines: setup
	@$(PYTHON) scripts/test_engines.py
