#!/bin/sh
# Installs Debian packages that are not installed yet.
#
#   PACKAGES   their names, separated by spaces
set -eu
: "${PACKAGES:?set PACKAGES to the names of packages}"

missing=
for name in $PACKAGES; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$name" 2> /dev/null || true)
    [ "$status" = installed ] || missing="$missing $name"
done
if [ -z "$missing" ]; then
    echo "already installed: $PACKAGES"
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
# shellcheck disable=SC2086 # several names are several words
apt-get -qq --yes --no-install-recommends install $missing
echo "installed:$missing"
