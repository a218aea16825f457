#!/usr/bin/env bash
# Builds an image of the files that git tracks, with labels that say which code and packages it holds.
#
#   docker/build.sh STAGE TAG [OPTION...]   options go to the engine: --build-arg BASE=...
#
# ENGINE   the command before the options: 'docker build', 'podman build' or 'buildah build'
set -euo pipefail

if (($# < 2)); then
  echo 'usage: docker/build.sh cpu|jax-gpu|torch-gpu|tpu TAG [OPTION...]' >&2
  exit 2
fi
stage=$1 tag=$2
shift 2
read -ra engine <<< "${ENGINE:-docker build}"

cd "$(dirname "$0")/.."
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
git ls-files -z | tar --create --null --files-from=- | tar --extract --directory "$context"
commit=$(git rev-parse HEAD)$(git diff --quiet HEAD || echo -dirty)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
packages=$(grep -E '^(jax|flax|optax|torch|numpy)[=<]' constraints.txt | sed 's/ *; */;/' | tr '\n' ' ')

"${engine[@]}" --target "$stage" --tag "$tag" --file "$context/docker/Dockerfile" \
  --build-arg "COMMIT=$commit" \
  --build-arg "VERSION=$version" \
  --build-arg "PACKAGES=${packages% }" \
  --build-arg "CODE_SHA256=$(cd "$context" && docker/checksum.sh)" \
  --build-arg "CONSTRAINTS_SHA256=$(sha256sum < constraints.txt | cut -d ' ' -f 1)" \
  "$@" "$context"
