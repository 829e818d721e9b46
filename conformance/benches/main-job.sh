#!/bin/bash
# The main job against the peers people use today, in the same run: push, fetch, fetch and unpack, run.
#
#     main-job.sh [LAYOUT:TAG] [ROUNDS]
#
# LAYOUT:TAG  an OCI image layout with a real image in gzip layers that has /bin/true; made when not
#             given, the one the tests use (Debian with MariaDB).
# ROUNDS      how often each command is timed, in turn; 5 when not given.
#
# Prints a row a command: median wall time, its ratio to the first row of its group, CPU time, peak memory
# of the largest process. Every round has fresh registries and fresh stores; nothing is deleted before
# the end, because ext4 is several times slower at making files for minutes after many were deleted (wait
# five minutes before the next run, too). Needs root; build the programs
# first with `cargo build --release --workspace`; needs Debian's docker-registry skopeo podman runc umoci
# time curl.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=$(echo "$top"/target/*-linux-*/release)
rounds=${2:-5}
image=${1:-}
work=$(mktemp -d)
servers=()
stop_servers() {
    for pid in "${servers[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${servers[@]}"; do wait "$pid" 2>/dev/null || true; done
    servers=()
}
# podman with the storage of a directory.
podman_in() {
    podman=(podman --root "$1/podman" --runroot "$1/podman-run" --storage-driver overlay --runtime runc --cgroup-manager cgroupfs)
}
clean() {
    stop_servers
    for dir in "$work"/*/podman; do
        podman_in "${dir%/podman}"
        "${podman[@]}" rmi -fa > /dev/null
    done
    rm -rf --one-file-system "$work"
}
trap clean EXIT
if [ -z "$image" ]; then
    "$top/server/tests/fixtures/make-image.sh" "$top/target/bench-image" mysql
    image=$top/target/bench-image:5.7
fi

# Ports nobody listens on.
ours=127.0.0.1:5911 theirs=127.0.0.1:5912
cat > "$work/config.yml" <<EOF
version: 0.1
log: { level: error }
http: { addr: "$theirs" }
storage: { filesystem: { rootdirectory: "$work/ROUND/theirs" } }
EOF

# Both registries, empty.
start_servers() {
    mkdir "$work/$round"
    sed "s:ROUND:$round:" "$work/config.yml" > "$work/$round/config.yml"
    "$bin/rhub" serve --listen "$ours" --data "$work/$round/ours" > /dev/null 2>> "$work/log" & servers+=($!)
    docker-registry serve "$work/$round/config.yml" > /dev/null 2>> "$work/log" & servers+=($!)
    until curl -fso /dev/null "http://$ours/v2/" && curl -fso /dev/null "http://$theirs/v2/"; do :; done
}

# measure GROUP NAME COMMAND...: one timed run, after what came before has reached the disk.
measure() {
    local group=$1 name=$2
    shift 2
    sync
    local began=${EPOCHREALTIME/[.,]/}
    if ! /usr/bin/time -o "$work/time" -f '%U %S %M' "$@" > "$work/out" 2>&1; then
        cat "$work/out" >&2
        echo "FAILED: $*" >&2
        exit 1
    fi
    echo "$group|$name|$(((${EPOCHREALTIME/[.,]/} - began) / 100))e-4 $(cat "$work/time")" >> "$work/figures"
}

skopeo_copy() { measure "$1" "$2" skopeo copy -q --insecure-policy --src-tls-verify=false --dest-tls-verify=false "$3" "$4"; }

for round in $(seq "$rounds"); do
    start_servers
    podman_in "$work/$round"
    store=$work/$round/store
    export LONGSHORE_ROOT=$store
    measure push "rpush to rhub" "$bin/rpush" "oci:$image" "$ours/app:1"
    skopeo_copy push "skopeo to docker-registry" "oci:$image" "docker://$theirs/app:1"
    skopeo_copy push "skopeo to rhub" "oci:$image" "docker://$ours/other:1"
    measure pull "rpull from rhub (fetch and unpack)" "$bin/rpull" "$ours/app:1"
    skopeo_copy pull "skopeo from docker-registry (fetch alone)" "docker://$theirs/app:1" "oci:$work/$round/fetched:1"
    measure pull "umoci unpack (unpack alone)" umoci unpack --image "$work/$round/fetched:1" "$work/$round/bundle"
    measure pull "podman pull from docker-registry (fetch and unpack)" "${podman[@]}" pull -q --tls-verify=false "$theirs/app:1"
    for _ in 1 2 3 4; do
        measure run "rrun" "$bin/rrun" --rm --network none --entrypoint /bin/true "$ours/app:1"
        measure run "podman run (runc)" "${podman[@]}" run --rm --network none --ulimit nofile=1024:4096 --ulimit nproc=4096:4096 \
            --entrypoint /bin/true "$theirs/app:1"
    done
    rss() { awk '/VmHWM/ { print $2 }' "/proc/$1/status"; }
    echo "registry|rhub, peak of the round|0 0 0 $(rss "${servers[0]}")" >> "$work/figures"
    echo "registry|docker-registry, peak of the round|0 0 0 $(rss "${servers[1]}")" >> "$work/figures"
    stop_servers
done

python3 - "$work/figures" <<'EOF'
import statistics, sys
groups = {}
for line in open(sys.argv[1]):
    group, name, figures = line.strip().split("|")
    groups.setdefault(group, {}).setdefault(name, []).append([float(figure) for figure in figures.split()])
for group, rows in groups.items():
    print(f"\n{group:58} wall s   ratio   CPU s   peak MiB")
    first = None
    for name, runs in rows.items():
        wall, user, system, peak = (statistics.median(column) for column in zip(*runs))
        first = first or wall
        ratio = f"{wall / first:7.2f}" if first else "       "
        print(f"  {name:55} {wall:7.3f} {ratio} {user + system:7.2f} {peak / 1024:9.1f}")
EOF
