#!/bin/sh
# Install Debian packages that are missing: scripts/debian_packages.sh NAME...
set -eu
missing=
for name in "$@"; do
    status=$(dpkg-query --show --showformat='${db:Status-Abbrev}' "$name" 2>/dev/null) || status=
    [ "$status" = "ii " ] || missing="$missing $name"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "these Debian packages are missing:$missing; install them: sudo apt-get install$missing" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null
