# A registry on loopback (package docker-registry), which benches begin with nothing in it. Sourced; `work` is their folder.
# shellcheck shell=bash disable=SC2154 # `work` is theirs
registry=''
stop() {
    [ -n "$registry" ] || return 0
    kill "$registry"
    wait "$registry" 2> /dev/null || true
    registry=''
}
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
# start: an empty registry at $port
start() {
    stop
    rm -rf "$work/registry"
    cat > "$work/config.yml" << CONFIG
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: 127.0.0.1:$port}
CONFIG
    docker-registry serve "$work/config.yml" > "$work/registry.log" 2>&1 &
    registry=$!
    until curl -fs "http://127.0.0.1:$port/v2/" > /dev/null; do sleep 0.05; done
}
