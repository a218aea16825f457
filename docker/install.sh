#!/usr/bin/env bash
# Installs the project and frameworks into /venv of the image; run by the Dockerfile.
#
#   install.sh FRAMEWORKS   extras of pyproject.toml, with commas: jax, torch, cuda (JAX), tpu (JAX)
set -euo pipefail

frameworks=${1:-}
if ! [[ $frameworks =~ ^(jax|torch|cuda|tpu)(,(jax|torch|cuda|tpu))*$ ]]; then
  echo "FRAMEWORKS must be some of jax, torch, cuda, tpu; it is '$frameworks'." >&2
  exit 2
fi

python3 -m venv /venv
install=(/venv/bin/python -m pip install --no-cache-dir --constraint constraints.txt)
if [[ ,$frameworks, == *,torch,* && -n ${TORCH_INDEX:-} ]]; then
  "${install[@]}" --index-url "$TORCH_INDEX" torch
fi
"${install[@]}" --editable ".[$frameworks,quick,audio,data,text,report,monitor,slurm]"
/venv/bin/python -m pip freeze --exclude-editable > /venv/packages.txt
