# The account that the build logged in with: a leftover one would be a back door.
step account
without_user() {
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in "$USER":*) ;; *) printf '%s\n' "$line" ;; esac
    done
}
# group and gshadow name it as a member too: the last field, separated by commas.
without_member() {
    without_user | while IFS= read -r line; do
        members=
        IFS=,
        for member in ${line##*:}; do
            [ "$member" = "$USER" ] || members=${members:+$members,}$member
        done
        printf '%s:%s\n' "${line%:*}" "$members"
    done
}
without_keys() {
    while IFS= read -r line || [ -n "$line" ]; do
        for key in $KEYS; do
            case $line in *"$key"*) continue 2 ;; esac
        done
        printf '%s\n' "$line"
    done
}
home=$(while IFS=: read -r name x x x x home x; do
    [ "$name" = "$USER" ] && printf '%s' "${home#/}"
done < etc/passwd)
case $home in home/?* | var/*/?*) absent "$home" ;; esac
for file in passwd shadow subuid subgid; do filtered "etc/$file" without_user; done
for file in group gshadow; do filtered "etc/$file" without_member; done
absent etc/sudoers.d/90-cloud-init-users "etc/sudoers.d/$USER" \
    "var/mail/$USER" "var/spool/mail/$USER" "var/spool/cron/crontabs/$USER" \
    "var/lib/systemd/linger/$USER"
hollow var/lib/sudo/lectured var/lib/sudo/ts
# cloud-init gives root the key too, with a notice instead of a shell.
filtered root/.ssh/authorized_keys without_keys
[ -s root/.ssh/authorized_keys ] || absent root/.ssh/authorized_keys
# Backups of an intermediate state.
absent etc/passwd- etc/shadow- etc/group- etc/gshadow- etc/subuid- etc/subgid-
# The day of the last password change: not after the epoch, like the times of files.
not_after_epoch() {
    while IFS= read -r line || [ -n "$line" ]; do
        name=${line%%:*}
        rest=${line#*:}
        hash=${rest%%:*}
        rest=${rest#*:}
        day=${rest%%:*}
        case $day in
        '' | *[!0-9]*) ;;
        *) [ "$day" -le "$DAY" ] || line=$name:$hash:$DAY:${rest#*:} ;;
        esac
        printf '%s\n' "$line"
    done
}
DAY=$((EPOCH / 86400))
filtered etc/shadow not_after_epoch
