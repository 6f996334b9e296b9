#!/bin/sh
# Installs a release of Consul from HashiCorp. Its checksums are used only if HashiCorp's key has signed
# them, and the key only if it has the fingerprint that HashiCorp publishes.
#
#   CONSUL_VERSION       such as 1.20.1
#   CONSUL_FINGERPRINT   of HashiCorp's key
set -eu
: "${CONSUL_VERSION:?set CONSUL_VERSION to a version of releases.hashicorp.com/consul}"
# www.hashicorp.com/security, "Secure Communications".
: "${CONSUL_FINGERPRINT=C874011F0AB405110D02105534365D9472D7468F}"

case $(uname -m) in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) echo "no build of Consul is known for $(uname -m)" >&2; exit 1 ;;
esac
if [ "$(consul version 2> /dev/null | head -n 1)" = "Consul v$CONSUL_VERSION" ]; then
    echo "already installed: Consul $CONSUL_VERSION"
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export DEBIAN_FRONTEND=noninteractive
if ! { command -v curl && command -v gpg && command -v unzip; } > /dev/null; then
    apt-get -qq update
    apt-get -qq --yes --no-install-recommends install ca-certificates curl gpg unzip
fi
fetch() {
    curl --fail --silent --show-error --location --proto '=https' --output "$work/$2" "$1"
}

zip=consul_${CONSUL_VERSION}_linux_$arch.zip
sums=consul_${CONSUL_VERSION}_SHA256SUMS
base=https://releases.hashicorp.com/consul/$CONSUL_VERSION
fetch https://www.hashicorp.com/.well-known/pgp-key.txt key
fetch "$base/$sums" "$sums"
fetch "$base/$sums.sig" "$sums.sig"
fetch "$base/$zip" "$zip"

mkdir -m 0700 "$work/gnupg"
gpg --homedir "$work/gnupg" --batch --quiet --import "$work/key"
# By its status lines: a good signature of another key in the file is none.
gpg --homedir "$work/gnupg" --batch --status-fd 1 --verify "$work/$sums.sig" "$work/$sums" \
    > "$work/status" 2> "$work/said" || { cat "$work/said" >&2; exit 1; }
if ! grep -q "^\[GNUPG:\] VALIDSIG .* $CONSUL_FINGERPRINT\$" "$work/status"; then
    echo "$sums is not signed by $CONSUL_FINGERPRINT" >&2
    cat "$work/said" >&2
    exit 1
fi
grep " $zip\$" "$work/$sums" > "$work/sum" || { echo "$sums does not list $zip" >&2; exit 1; }
(cd "$work" && sha256sum --check --quiet sum)

unzip -q -o "$work/$zip" consul -d "$work"
install -m 0755 "$work/consul" /usr/local/bin/consul
getent passwd consul > /dev/null \
    || useradd --system --home-dir /var/lib/consul --shell /usr/sbin/nologin --user-group consul
install -d -m 0750 -o consul -g consul /var/lib/consul
install -d -m 0755 /etc/consul.d
cat > /etc/systemd/system/consul.service << 'UNIT'
[Unit]
Description=Consul
Documentation=https://developer.hashicorp.com/consul/docs
Wants=network-online.target
After=network-online.target
# An image has none: what a node joins is said at its first boot.
ConditionDirectoryNotEmpty=/etc/consul.d

[Service]
Type=notify
User=consul
ExecStart=/usr/local/bin/consul agent -config-dir=/etc/consul.d -data-dir=/var/lib/consul
ExecReload=/bin/kill -HUP $MAINPID
KillSignal=SIGINT
Restart=on-failure
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
UNIT
systemctl enable consul.service
consul version
