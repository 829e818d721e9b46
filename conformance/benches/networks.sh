#!/bin/bash
# Containers on a bridge, next to podman's in the same run: how long one takes from beginning to end, what goes
# through a published port, how many start at once, and what a list of many costs.
#
#     networks.sh [ROUNDS]
#
# Prints medians. Everything happens in network namespaces of the script's own: a client is connected to the host's by
# a veth pair and speaks to published ports from there. Needs root; build the programs first with
# `cargo build --release --workspace`; needs Debian's podman netavark runc nftables iproute2 curl wrk, and what
# make-image.sh needs.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=$(echo "$top"/target/*-linux-*/release)
rounds=${1:-30}
if [ -z "${LONGSHORE_NETWORKS_INSIDE:-}" ]; then
    LONGSHORE_NETWORKS_INSIDE=1 exec unshare --net --mount --propagation private "$0" "$@"
fi
work=$(mktemp -d)
export LONGSHORE_ROOT=$work/longshore
podman=(podman --root "$work/podman" --runroot "$work/podman-run" --storage-driver overlay --runtime runc --cgroup-manager cgroupfs
    --network-config-dir "$work/networks")
started=()
clean() {
    local ids
    ids=$("$bin/rbox" ps -aq 2> /dev/null) || ids=
    # shellcheck disable=SC2086 # several words
    [ -z "$ids" ] || "$bin/rbox" rm -f $ids > /dev/null
    "${podman[@]}" rm -fa -t 0 > /dev/null 2>&1 || true
    "${podman[@]}" rmi -fa > /dev/null 2>&1 || true
    for pid in "${started[@]}"; do kill "$pid" 2> /dev/null && wait "$pid" || true; done
    rm -rf --one-file-system "$work"
}
trap clean EXIT

ip link set lo up
# Names of network namespaces would be the machine's: here they are this script's.
mount -t tmpfs none /run/netns 2> /dev/null || { mkdir -p /run/netns; mount -t tmpfs none /run/netns; }
unshare --net sleep infinity & started+=($!)
client=$!
# wait_for WHAT COMMAND...: until the command succeeds, ten seconds at most.
wait_for() {
    local what=$1
    shift
    for _ in $(seq 100); do ! "$@" > /dev/null 2>&1 || return 0; sleep 0.1; done
    echo "networks.sh: $what did not come to be" >&2
    exit 1
}
apart() { [ "$(readlink "/proc/$client/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }
wait_for "the client's namespace" apart
ip link add outside type veth peer name inside netns "$client"
ip addr add 192.0.2.1/24 dev outside
ip link set outside up
nsenter -t "$client" -n sh -c 'ip link set lo up; ip addr add 192.0.2.2/24 dev inside; ip link set inside up'

"$top/server/tests/fixtures/make-image.sh" "$top/target/bench-small" small
address=127.0.0.1:5915
image=$address/bench/image:1
"$bin/rhub" serve --listen "$address" --data "$work/registry" > "$work/log" & started+=($!)
wait_for "the registry" grep -q listens "$work/log"
"$bin/rpush" -q "oci:$top/target/bench-small:latest" "$image"
"$bin/rpull" -q "$image" > /dev/null
"${podman[@]}" pull -q --tls-verify=false "$image" > /dev/null

ours() { "$bin/rrun" "$@"; }
theirs() { "${podman[@]}" run --ulimit nofile=1024:4096 --ulimit nproc=4096:4096 "$@"; }
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
# Milliseconds of a command.
milliseconds() {
    local begun=${EPOCHREALTIME/./}
    "$@" > /dev/null
    echo $(((${EPOCHREALTIME/./} - begun) / 100)) | sed 's/.$/.&/; s/^\./0./'
}
row() { printf '%-58s %10s %10s\n' "$@"; }

row "" ours podman
for _ in $(seq "$rounds"); do
    for who in ours theirs; do milliseconds "$who" --rm "$image" true >> "$work/run.$who"; done
done
row "run --rm on the default bridge, ms, median of $rounds" "$(median < "$work/run.ours")" "$(median < "$work/run.theirs")"

# busybox httpd, a file of 256 MiB and one of a few bytes.
serve='cd /www; dd if=/dev/zero of=large bs=1M count=256 2> /dev/null; echo hello > small; exec httpd -f -p 80'
ours -d --name web -p 8080:80 --tmpfs /www:size=300m "$image" sh -c "$serve" > /dev/null
theirs -d --name web -p 8081:80 --tmpfs /www:size=300m "$image" sh -c "$serve" > /dev/null
from_outside() { nsenter -t "$client" -n -- timeout 30 "$@"; }
for port in 8080 8081; do wait_for "the server at port $port" from_outside curl -sf -m 5 "http://192.0.2.1:$port/small"; done
for _ in $(seq "$rounds"); do
    for port in 8080 8081; do
        from_outside curl -sf -o /dev/null -w '%{speed_download}\n' "http://192.0.2.1:$port/large" |
            awk '{ printf "%d\n", $1 / 1e6 }' >> "$work/speed.$port"
        # One request after the other, each on a connection of its own.
        from_outside wrk -t1 -c1 -d1 --latency -H 'Connection: close' "http://192.0.2.1:$port/small" |
            awk '$1 == "50%" { t = $2; v = t + 0; if (t ~ /ms/) v *= 1000; print v }' >> "$work/latency.$port"
    done
done
row "one client through a published port, MB/s, median of $rounds" "$(median < "$work/speed.8080")" "$(median < "$work/speed.8081")"
row "a request through a published port, us, median of $rounds" "$(median < "$work/latency.8080")" "$(median < "$work/latency.8081")"
"$bin/rbox" rm -f web > /dev/null
"${podman[@]}" rm -f -t 0 web > /dev/null

# As many as are asked for, at once; then stopped at once.
for count in 25 50 100; do
    begun=${EPOCHREALTIME/./}
    pids=()
    for number in $(seq "$count"); do "$bin/rrun" -d --name "many$number" "$image" sleep 1000 > /dev/null & pids+=($!); done
    for pid in "${pids[@]}"; do wait "$pid"; done
    middle=${EPOCHREALTIME/./}
    [ "$("$bin/rbox" ps -q | wc -l)" = "$count" ]
    ids=$("$bin/rbox" ps -aq)
    # shellcheck disable=SC2086 # several words
    "$bin/rbox" rm -f $ids > /dev/null
    row "$count started at once, ms each" "$(((middle - begun) / count / 1000))" ""
done

for number in $(seq 500); do "$bin/rbox" create --name "made$number" --network none "$image" true > /dev/null; done
for _ in $(seq "$rounds"); do milliseconds "$bin/rbox" ps -a >> "$work/ps"; done
row "ps -a over 500 containers, ms, median of $rounds" "$(median < "$work/ps")" ""
