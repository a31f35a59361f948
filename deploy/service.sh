#!/bin/sh
# What a container runs: the service that SERVICE names, with the configuration that CONFIG names.
#
#     masque-service             the service, until SIGTERM
#     masque-service probe       whether it serves: the container's health
#     masque-service check-config   what is wrong with its configuration, if anything
#     masque-service doctor      whether it is ready for jobs, and what to do where it is not
#     masque-service COMMAND...  something else in its place, such as `masque version`
set -eu
image=/opt/masque
state=/var/lib/masque

# numba writes where it reads its kernels, and compiles anew for another kind of processor than the
# image was built on: so they are kept in the state volume, apart for each version of their sources.
kernels() {
  id=$(cat "$image/kernels/id")
  NUMBA_CACHE_DIR="$state/kernels/$id"
  export NUMBA_CACHE_DIR
  [ -d "$NUMBA_CACHE_DIR" ] && return
  if ! rm -rf "$state/kernels" 2>/dev/null || ! mkdir -p "$state/kernels" 2>/dev/null; then
    echo "error: $state cannot be written by user $(id -u). Mount a volume there that belongs to it." >&2
    exit 3
  fi
  cp -a "$image/kernels" "$state/kernels/new"
  mv "$state/kernels/new" "$NUMBA_CACHE_DIR"
}

case "${1:-}" in
"" | probe | check-config | doctor) ;;
*) exec "$@" ;;
esac
case "${SERVICE:-}" in
dealer | party | coordinator) ;;
*)
  echo "error: SERVICE is '${SERVICE:-}'. Set it to dealer, party or coordinator." >&2
  exit 3
  ;;
esac
config=${CONFIG:-/etc/masque/$SERVICE.yaml}
if [ "${1:-}" = probe ]; then
  exec python -m masque.wire.probe "$SERVICE" "$config"
fi
if [ "${1:-}" = check-config ]; then
  shift
  exec python -m "services.$SERVICE" check-config --config "$config" "$@"
fi
if [ "${1:-}" = doctor ]; then
  shift
  export NUMBA_CACHE_DIR=/tmp/doctor # not in the volume that it looks at
  exec masque doctor --config "$config" "$@"
fi
kernels
exec python -m "services.$SERVICE" --config "$config"
