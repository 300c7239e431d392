#!/usr/bin/env python3
"""Checks that every crate the workspace is built from has a licence that allows shipping it under ours.

Reads `cargo metadata`; a licence outside `ALLOWED` is an error that names the crate.
"""

import json
import re
import subprocess
import sys

# Permissive licences; `A OR B` needs one of the two, `A AND B` and `A WITH exception` need both.
ALLOWED = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CDLA-Permissive-2.0", "ISC",
    "LLVM-exception", "MIT", "MIT-0", "Unicode-3.0", "Unlicense", "Zlib",
}


def allowed(expression):
    """True if the SPDX expression can be met with allowed licences. `/` is the old spelling of OR."""
    expression = expression.replace("/", " OR ")
    while (inner := re.search(r"\(([^()]*)\)", expression)) is not None:
        expression = expression.replace(inner.group(0), "MIT" if allowed(inner.group(1)) else "refused")
    return any(
        all(part in ALLOWED for part in re.split(r" AND | WITH ", choice.strip())) for choice in expression.split(" OR ")
    )


def main():
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--quiet"]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    refused = [
        f"{package['name']} {package['version']}: {package['license'] or 'no licence stated'}"
        for package in metadata["packages"]
        if not (package["license"] and allowed(package["license"]))
    ]
    if refused:
        sys.exit("licences: not among those allowed in scripts/licences.py: " + "; ".join(refused))
    print(f"licences: {len(metadata['packages'])} crates, all allowed")


if __name__ == "__main__":
    main()
