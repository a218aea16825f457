#!/usr/bin/env bash
# Prints one SHA-256 over the names and contents of all files in the current directory.
set -euo pipefail
export LC_ALL=C
find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -d ' ' -f 1
