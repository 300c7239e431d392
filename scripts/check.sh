#!/usr/bin/env bash
# Further checks of `make test`: each crate alone, no default features, the oldest Rust, spelling, licences. A check that
# cannot run prints SKIPPED with the reason.
set -euo pipefail
cd "$(dirname "$0")/.."

for crate in splade-core splade-files splade-encode splade-eval splade-index splade-trainer splade-export; do
  echo "check: $crate alone"
  cargo check --quiet -p "$crate"
done
echo 'check: no default features'
cargo check --quiet -p splade --no-default-features
cargo check --quiet -p splade-core --no-default-features --features wasm

# Crates that another crate must not depend on (ARCHITECTURE.md).
without() { # crate, features, pattern of forbidden crates
  if found=$(cargo tree --prefix none -e normal,build -p "$1" $2 | grep -E "^($3) v"); then
    echo "check: $1 is built from $(echo "$found" | tr '\n' ' ')"
    exit 1
  fi
}
without splade-trainer '' 'tantivy|ort|ureq|clap'
without splade-index '' 'ort|candle-core|ureq|clap'
without splade-core '' 'tantivy|ort|candle-core|memmap2|ureq'
without splade-core '--no-default-features --features wasm' 'onig|onig_sys|cc|memmap2|zstd-sys'
echo 'check: the trainer is built without tantivy and ort, splade-core without C for WebAssembly'

oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
toolchain=$(rustup toolchain list 2>/dev/null | grep -oE "^$oldest(\.[0-9]+)?-[^ ]+" | head -n 1 || true)
if [ -n "$toolchain" ]; then
  echo "check: Rust $oldest ($toolchain)"
  cargo +"$toolchain" check --quiet --workspace --all-targets
else
  echo "check: SKIPPED the oldest Rust, $oldest: not installed (rustup toolchain install $oldest)"
fi

if [ -x .typos/bin/typos ]; then
  .typos/bin/typos
  echo 'check: spelling'
else
  echo 'check: SKIPPED spelling: there is no .typos/bin/typos (make setup fetches it)'
fi
${PYTHON:-python3} scripts/licences.py
