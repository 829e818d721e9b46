#!/bin/bash
# What a container in the background costs, next to podman in the same run: the private memory of what stays
# beside its own processes (our monitor, podman's conmon), and the time of `rrun -d` and `podman run -d`; and the
# time of one in the foreground from beginning to end (`rrun --rm IMAGE true`).
#
#     detached.sh [LAYOUT:TAG] [ROUNDS]
#
# LAYOUT:TAG  an OCI image layout with an image that has sleep; made when not given (busybox).
# ROUNDS      how often each is started, in turn; 30 when not given.
#
# Private memory is Private_Clean + Private_Dirty of smaps_rollup, read when nothing has happened for a while:
# with one container, and with ten, whose programs share what they have not written to. Needs root; build the
# programs first with `cargo build --release --workspace`; needs Debian's podman and runc.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=$(echo "$top"/target/*-linux-*/release)
rounds=${2:-30}
image=${1:-}
work=$(mktemp -d)
export LONGSHORE_ROOT=$work/longshore
podman=(podman --root "$work/podman" --runroot "$work/podman-run" --storage-driver overlay --runtime runc --cgroup-manager cgroupfs)
registry=
clean() {
    local ids
    ids=$("$bin/rbox" ps -aq 2>/dev/null) || ids=
    # shellcheck disable=SC2086 # several words
    [ -z "$ids" ] || "$bin/rbox" rm -f $ids > /dev/null
    "${podman[@]}" rm -fa > /dev/null 2>&1 || true
    "${podman[@]}" rmi -fa > /dev/null 2>&1 || true
    [ -z "$registry" ] || { kill "$registry"; wait "$registry" || true; }
    rm -rf --one-file-system "$work"
}
trap clean EXIT
if [ -z "$image" ]; then
    "$top/server/tests/fixtures/make-image.sh" "$top/target/bench-small" small
    image=$top/target/bench-small:latest
fi

# A port nobody listens on.
address=127.0.0.1:5913
"$bin/rhub" serve --listen "$address" --data "$work/registry" > "$work/log" & registry=$!
until grep -q listens "$work/log"; do sleep 0.1; done
"$bin/rpush" -q "oci:$image" "$address/bench/image:1"
"$bin/rpull" -q "$address/bench/image:1" > /dev/null
"${podman[@]}" pull -q --tls-verify=false "$address/bench/image:1" > /dev/null

run_ours() { "$bin/rrun" --network none "$@"; }
run_podman() { "${podman[@]}" run --network none --ulimit nofile=1024:4096 --ulimit nproc=4096:4096 "$@"; }
start() { "run_$1" -d "$address/bench/image:1" sleep 1000; }

# The process that stays for container $1: podman's and ours have its ID as an argument.
watcher() {
    local pid
    for pid in $(pgrep -f "$1"); do
        case $(tr '\0' ' ' 2> /dev/null < "/proc/$pid/cmdline") in
            longshore-monitor\ * | */conmon\ *) echo "$pid" ;;
        esac
    done
}
# kB, of all processes given.
private() {
    local pid
    for pid; do cat "/proc/$pid/smaps_rollup"; done | awk '/^Private_(Clean|Dirty):/ { sum += $2 } END { print sum + 0 }'
}

memory() {
    local ids=() pids=() id
    for _ in $(seq "$2"); do ids+=("$(start "$1")"); done
    # Programs just built are dirty in memory until they are written.
    sync
    sleep 3
    for id in "${ids[@]}"; do mapfile -t -O "${#pids[@]}" pids < <(watcher "$id"); done
    [ "${#pids[@]}" -ge "$2" ] || { echo "detached.sh: $1: ${#pids[@]} processes watch $2 containers" >&2; exit 1; }
    echo "$(($(private "${pids[@]}") / $2))"
    remove "$1" "${ids[@]}"
}
remove() {
    local who=$1
    shift
    if [ "$who" = ours ]; then "$bin/rbox" rm -f "$@"; else "${podman[@]}" rm -f -t 0 "$@"; fi > /dev/null
}

printf '%-38s %10s %10s\n' '' ours podman
for count in 1 10; do
    ours=$(memory ours "$count")
    theirs=$(memory podman "$count")
    printf '%-38s %10s %10s\n' "private memory each of $count, kB" "$ours" "$theirs"
done
for ((round = 0; round < rounds; round++)); do
    for who in ours podman; do
        began=${EPOCHREALTIME/./}
        id=$(start "$who")
        echo $((${EPOCHREALTIME/./} - began)) >> "$work/$who.start"
        remove "$who" "$id"
        began=${EPOCHREALTIME/./}
        "run_$who" --rm "$address/bench/image:1" true
        echo $((${EPOCHREALTIME/./} - began)) >> "$work/$who.run"
    done
done
median() { sort -n "$work/$1" | awk '{ all[NR] = $1 } END { printf "%.1f", all[int((NR + 1) / 2)] / 1000 }'; }
for what in start run; do
    printf '%-38s %10s %10s\n' "$what, ms, median of $rounds" "$(median "ours.$what")" "$(median "podman.$what")"
done
