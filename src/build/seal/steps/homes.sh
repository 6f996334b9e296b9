# What interactive programs leave in home folders.
step homes
for home in root home/*; do
    [ -d "$home" ] || continue
    absent "$home/.bash_history" "$home/.ash_history" "$home/.zsh_history" "$home/.sh_history" \
        "$home/.python_history" "$home/.lesshst" "$home/.viminfo" "$home/.wget-hsts" \
        "$home/.cache" "$home/.ssh/known_hosts" "$home/.ssh/known_hosts.old" "$home/.sudo_as_admin_successful"
done
