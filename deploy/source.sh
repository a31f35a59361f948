#!/usr/bin/env bash
# A digest of everything that the image is built from, kept in its label org.masque.source.
#
#     deploy/source.sh                 print it
#     deploy/source.sh --built IMAGE   succeed if IMAGE was built from it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

digest() {
  find Dockerfile .dockerignore pyproject.toml README.md LICENSE masque services \
    deploy/{requirements.txt,requirements-build.txt,slim.py,pip.sh,service.sh} \
    -type f ! -name '*.pyc' ! -path '*/__pycache__/*' -print0 |
    LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16
}

if [ "${1:-}" = --built ]; then
  label='{{index .Config.Labels "org.masque.source"}}'
  [ "$(docker image inspect --format "$label" "$2" 2>/dev/null)" = "$(digest)" ]
else
  digest
fi
