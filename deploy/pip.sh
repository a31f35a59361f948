#!/bin/sh
# pip for a virtual environment without one, while the image is built: `pip-for VENV install ...`.
# Packages come from wheels/ alone if `make wheels` filled it, otherwise from the network.
set -eu
environment=$1
shift
python="$(cd "$environment" && pwd)/bin/python"
set -- --python "$python" --quiet "$@"
wheel=$(ls wheels/pip-*.whl 2>/dev/null | head -n 1)
if [ -n "$wheel" ]; then
  export PIP_NO_INDEX=1 PIP_FIND_LINKS="$PWD/wheels" PYTHONPATH="$PWD/$wheel"
elif ! python3 -c 'import pip' 2>/dev/null; then
  echo "error: this base image has no pip, and there are no wheels: run \`make wheels\` first." >&2
  exit 1
fi
exec python3 -m pip "$@"
