# The two words of this house: `make test` and `make demo`; both set up what they need.
.PHONY: setup test demo lint bench
.DEFAULT_GOAL := test

PYTHON ?= python3

setup:
	@command -v $(PYTHON) >/dev/null || { echo "setup: $(PYTHON) is not on the PATH"; echo "hint: install Python 3 with pip"; exit 1; }
	@$(PYTHON) scripts/setup.py

# train, export, index, search and evaluate on Norwegian text in the repository
demo: setup
	cargo build --release --bin splade
	@scripts/demo.sh

# formatting, lints, docs, all tests, doc-tests
test: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	cargo test --workspace
