# Names and leases of one network card.
step network
absent etc/udev/rules.d/*persistent-net.rules etc/udev/rules.d/85-persistent-net-cloud-init.rules
hollow var/lib/dhcp var/lib/dhclient var/lib/dhcpcd var/lib/NetworkManager var/lib/systemd/network
