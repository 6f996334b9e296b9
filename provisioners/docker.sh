#!/bin/sh
# Installs Docker Engine from Docker's own packages for Debian or Ubuntu. The key of the archive is
# fetched over HTTPS, and used only if it has the fingerprint that Docker publishes.
#
#   DOCKER_VERSION      version of docker-ce, as `apt-cache madison docker-ce` shows it; the newest if empty
#   DOCKER_FINGERPRINT  of the archive's key
#   DOCKER_CHANNEL      stable
set -eu
: "${DOCKER_VERSION=}"
: "${DOCKER_CHANNEL=stable}"
# The key `Docker Release (CE deb)`, as docs.docker.com names it.
: "${DOCKER_FINGERPRINT=9DC858229FC7DD38854AE2D88D81803C0EBFCD88}"

export DEBIAN_FRONTEND=noninteractive
# shellcheck source=/dev/null
. /etc/os-release
case ${ID:-} in
    debian | ubuntu) ;;
    *) echo "this is for Debian and Ubuntu, not for \`${ID:-unknown}\`" >&2; exit 1 ;;
esac
: "${VERSION_CODENAME:?/etc/os-release names no release}"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if ! command -v curl > /dev/null || ! command -v gpg > /dev/null; then
    apt-get -qq update
    apt-get -qq --yes --no-install-recommends install ca-certificates curl gpg
fi

base=https://download.docker.com/linux/$ID
curl --fail --silent --show-error --location --proto '=https' --output "$work/key" "$base/gpg"
# Every primary key in the file must be the one that is expected: apt would trust each of them.
mkdir -m 0700 "$work/gnupg"
found=$(gpg --homedir "$work/gnupg" --batch --with-colons --show-keys "$work/key" \
    | while IFS=: read -r kind _ _ _ _ _ _ _ _ print _; do
        case $kind in
            pub) primary=1 ;;
            fpr) [ -z "${primary-}" ] || echo "$print"; primary= ;;
        esac
    done)
if [ "$found" != "$DOCKER_FINGERPRINT" ]; then
    echo "the key of $base is \`$found\`, expected $DOCKER_FINGERPRINT" >&2
    exit 1
fi
install -d -m 0755 /etc/apt/keyrings
gpg --homedir "$work/gnupg" --batch --yes --dearmor --output "$work/docker.gpg" "$work/key"
install -m 0644 "$work/docker.gpg" /etc/apt/keyrings/docker.gpg
printf 'deb [arch=%s signed-by=/etc/apt/keyrings/docker.gpg] %s %s %s\n' \
    "$(dpkg --print-architecture)" "$base" "$VERSION_CODENAME" "$DOCKER_CHANNEL" \
    > /etc/apt/sources.list.d/docker.list

apt-get -qq update
if [ -n "$DOCKER_VERSION" ]; then
    set -- "docker-ce=$DOCKER_VERSION" "docker-ce-cli=$DOCKER_VERSION"
else
    set -- docker-ce docker-ce-cli
fi
apt-get -qq --yes --no-install-recommends install "$@" containerd.io docker-buildx-plugin docker-compose-plugin
systemctl enable docker.service containerd.service
docker --version
