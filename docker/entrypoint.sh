#!/usr/bin/env bash
# Everything after the image's name goes to algoeff, whose exit code is the container's.
set -euo pipefail
exec algoeff "$@"
