# The other filesystems of the image that belong to its boot: named in fstab, not by the network.
# One that is not mounted at boot was not changed by the build.
step filesystems
MORE=
if [ -f etc/fstab ]; then
    while read -r device where type options rest; do
        case ,$options, in *,noauto,*) continue ;; esac
        case $where in
        /boot | /boot/* | /efi)
            if mount "$where"; then
                mount -o bind "$where" "$R$where" || fail "cannot look into $where"
                MORE="$where $MORE"
            else
                fail "cannot mount $where"
            fi
            ;;
        esac
    done < etc/fstab
fi
