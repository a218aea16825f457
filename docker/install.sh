#!/usr/bin/env bash
# Installs the project and its frameworks into /venv of the image; run by the Dockerfile.
set -euo pipefail

case "$ACCELERATOR" in
  cpu) jax=jax ;;
  cuda) jax=cuda ;;
  *)
    echo "ACCELERATOR must be cpu or cuda; it is '$ACCELERATOR'." >&2
    exit 2
    ;;
esac

case "$FRAMEWORK" in
  jax) frameworks="$jax" ;;
  pytorch) frameworks=torch ;;
  both) frameworks="$jax,torch" ;;
  *)
    echo "FRAMEWORK must be jax, pytorch or both; it is '$FRAMEWORK'." >&2
    exit 2
    ;;
esac

python3 -m venv /venv
install=(/venv/bin/python -m pip install --no-cache-dir --constraint constraints.txt)
if [[ $FRAMEWORK != jax && -n $TORCH_INDEX ]]; then
  "${install[@]}" --index-url "$TORCH_INDEX" torch
fi
"${install[@]}" --editable ".[$frameworks,quick,audio,data,text,report,monitor]"
