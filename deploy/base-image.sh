#!/usr/bin/env bash
# Make the image that the Dockerfile starts from, where none can be pulled: Debian 12 with its
# Python 3.11, from Debian's packages. Needs root, a Docker engine, and a host with apt.
#
#     deploy/base-image.sh            unless an image of that name is there already
#     deploy/base-image.sh --replace  in any case
#
# It gets the name that the Dockerfile's BASE defaults to, so that the same file builds on it, and a
# label by which it can be told from a pulled one: org.masque.base.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

SUITE=bookworm
NAME=${BASE:-$(sed -n 's/^ARG BASE=//p' Dockerfile)}
DOCKER=${DOCKER:-docker}

say() { printf '== %s\n' "$1" >&2; }
fail() { printf 'error: %s\n' "$1" >&2; exit 1; }

if [ "${1:-}" != --replace ] && "$DOCKER" image inspect "$NAME" >/dev/null 2>&1; then
  say "$NAME is there already (--replace makes it anew)"
  exit 0
fi
"$DOCKER" version --format '{{.Server.Version}}' >/dev/null 2>&1 || fail "no Docker engine answers."
[ "$(id -u)" = 0 ] || fail "a root file system is made by root: run it with sudo, or pull $NAME."
command -v apt-get >/dev/null || fail "this host has no apt: pull $NAME, or make it on a Debian host."

work=$(mktemp -d)
trap 'umount "$work/root/proc" 2>/dev/null || true; rm -rf --one-file-system "$work"' EXIT

site() { # where this host takes a suite from, if it does
  apt-get indextargets --format '$(REPO_URI)' "Codename: $1" 2>/dev/null | sed -n 1p
}

debootstrap=$(command -v debootstrap || true)
if [ -z "$debootstrap" ]; then
  say "fetching debootstrap, into a directory of its own"
  (cd "$work" && { apt-get download -q debootstrap || { apt-get update -q && apt-get download -q debootstrap; }; } >&2)
  dpkg-deb -x "$work"/debootstrap_*.deb "$work/tool"
  export DEBOOTSTRAP_DIR="$work/tool/usr/share/debootstrap"
  debootstrap="$work/tool/usr/sbin/debootstrap"
fi

say "installing Debian $SUITE and its Python: a minute or two"
root="$work/root"
mirror=$(site "$SUITE")
"$debootstrap" --variant=minbase --include=python3 "$SUITE" "$root" ${mirror:+"$mirror"} >"$work/log" 2>&1 || {
  tail -n 20 "$work/log" >&2; fail "debootstrap failed."; }

security=$(site "$SUITE-security")
if [ -n "$security" ]; then
  say "taking up the security updates"
  printf 'deb %s %s-security main\n' "$security" "$SUITE" >"$root/etc/apt/sources.list.d/security.list"
  cp -L /etc/resolv.conf "$root/etc/resolv.conf"
  { chroot "$root" apt-get -q update && chroot "$root" apt-get -q -y upgrade; } >"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2; fail "the security updates could not be installed."; }
fi

say "removing what no container needs"
chroot "$root" apt-get clean
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/* "$root"/var/log/* "$root"/tmp/* "$root"/etc/resolv.conf
rm -rf "$root"/usr/share/{doc,man,info,locale,lintian,bug,common-licenses/GFDL*} "$root"/usr/share/doc-base
rm -rf "$root"/usr/lib/python3*/{test,idlelib,turtledemo,tkinter,lib2to3,pydoc_data}
find "$root" -name __pycache__ -path '*/usr/share/*' -prune -exec rm -rf {} +
mkdir -p "$root/var/cache/apt/archives/partial" "$root/var/log/apt"

python=$(chroot "$root" python3 -c 'import platform, ssl, sqlite3, venv; print(platform.python_version())')
tar -C "$root" --numeric-owner --one-file-system -c . | "$DOCKER" import \
  --change 'CMD ["python3"]' --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
  --change 'ENV LANG=C.UTF-8' --change "LABEL org.masque.base=$SUITE" \
  --message "Debian $SUITE with Python $python" - "$NAME" >/dev/null
size=$("$DOCKER" image inspect --format '{{.Size}}' "$NAME")
say "$NAME: Debian $SUITE, Python $python, $((size / 1000000)) MB"
