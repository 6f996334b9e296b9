# Logs: folders stay, since services expect them with their owner and access list.
step logs
if [ -d var/log ]; then
    hollow var/log/journal
    empty var/log/wtmp var/log/btmp var/log/lastlog var/log/faillog var/log/tallylog
    count=$(find var/log -xdev -type f ! -name wtmp ! -name btmp ! -name lastlog ! -name faillog ! -name tallylog | wc -l)
    if [ "$count" -gt 0 ]; then
        find var/log -xdev -type f ! -name wtmp ! -name btmp ! -name lastlog ! -name faillog ! -name tallylog -exec rm -f {} + ||
            fail "cannot remove logs"
        say "hollow /var/log"
    fi
fi
hollow var/crash var/lib/systemd/coredump var/lib/systemd/pstore var/lib/wtmpdb
