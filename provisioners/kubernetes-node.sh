#!/bin/sh
# Makes a Kubernetes node of a Debian: containerd from Debian, kubelet and kubeadm from the project's own
# packages. It joins nothing; that is for the first boot of each machine. The key of the archive is
# fetched over HTTPS, and used only if it has the fingerprint below.
#
#   KUBERNETES_MINOR        such as 1.31
#   KUBERNETES_FINGERPRINT  of the archive's key
set -eu
: "${KUBERNETES_MINOR:?set KUBERNETES_MINOR to a minor version, such as 1.31}"
# The key of pkgs.k8s.io, as users of 1.30 to 1.36 pin it.
: "${KUBERNETES_FINGERPRINT=DE15B14486CD377B9E876E1A234654DA9A296436}"
case $KUBERNETES_MINOR in
    *[!0-9.]* | *.*.* | .* | *.) echo "KUBERNETES_MINOR is \`$KUBERNETES_MINOR\`, expected something like 1.31" >&2; exit 1 ;;
    *.*) ;;
    *) echo "KUBERNETES_MINOR is \`$KUBERNETES_MINOR\`, expected something like 1.31" >&2; exit 1 ;;
esac

export DEBIAN_FRONTEND=noninteractive
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
apt-get -qq update
apt-get -qq --yes --no-install-recommends install ca-certificates curl gpg containerd conntrack \
    ebtables ethtool iproute2 iptables socat

base=https://pkgs.k8s.io/core:/stable:/v$KUBERNETES_MINOR/deb
curl --fail --silent --show-error --location --proto '=https' --output "$work/key" "$base/Release.key"
# Every primary key in the file must be the one that is expected: apt would trust each of them.
mkdir -m 0700 "$work/gnupg"
found=$(gpg --homedir "$work/gnupg" --batch --with-colons --show-keys "$work/key" \
    | while IFS=: read -r kind _ _ _ _ _ _ _ _ print _; do
        case $kind in
            pub) primary=1 ;;
            fpr) [ -z "${primary-}" ] || echo "$print"; primary= ;;
        esac
    done)
if [ "$found" != "$KUBERNETES_FINGERPRINT" ]; then
    echo "the key of $base is \`$found\`, expected $KUBERNETES_FINGERPRINT" >&2
    exit 1
fi
install -d -m 0755 /etc/apt/keyrings
gpg --homedir "$work/gnupg" --batch --yes --dearmor --output "$work/kubernetes.gpg" "$work/key"
install -m 0644 "$work/kubernetes.gpg" /etc/apt/keyrings/kubernetes.gpg
printf 'deb [signed-by=/etc/apt/keyrings/kubernetes.gpg] %s/ /\n' "$base" \
    > /etc/apt/sources.list.d/kubernetes.list
apt-get -qq update
apt-get -qq --yes --no-install-recommends install kubelet kubeadm kubectl
apt-mark hold kubelet kubeadm kubectl

# What kubeadm asks of a node (kubernetes.io, "Container Runtimes").
printf 'overlay\nbr_netfilter\n' > /etc/modules-load.d/kubernetes.conf
printf '%s\n' 'net.ipv4.ip_forward = 1' 'net.bridge.bridge-nf-call-iptables = 1' \
    'net.bridge.bridge-nf-call-ip6tables = 1' > /etc/sysctl.d/60-kubernetes.conf
install -d -m 0755 /etc/containerd
containerd config default | sed 's/SystemdCgroup = false/SystemdCgroup = true/' > "$work/config.toml"
grep -q 'SystemdCgroup = true' "$work/config.toml" || {
    echo "this containerd has no setting SystemdCgroup; set the kubelet's cgroup driver by hand" >&2
    exit 1
}
install -m 0644 "$work/config.toml" /etc/containerd/config.toml
# kubeadm refuses a node that swaps.
if [ -e /etc/fstab ]; then
    sed -i '/^[^#].*[[:space:]]swap[[:space:]]/s/^/# /' /etc/fstab
fi
systemctl enable containerd.service kubelet.service
kubeadm version --output=short
