# cloud-init: with its old state it would take a new machine for the one it has set up already.
step cloud-init
hollow var/lib/cloud
absent etc/netplan/50-cloud-init.yaml etc/network/interfaces.d/50-cloud-init* \
    etc/systemd/network/*-cloud-init-* etc/systemd/network/50-cloud-init* \
    etc/NetworkManager/system-connections/cloud-init-* \
    etc/sysconfig/network-scripts/ifcfg-eth0.cloud-init etc/apt/apt.conf.d/90cloud-init-pipelining \
    etc/cloud/clean.d/99-devbox-build
