#!/bin/bash
# The registry's figures, and its peers' in the same run: pushes, pulls, lists, start, memory.
#
#     registry.sh [NAME=COMMAND]...
#
# NAME=COMMAND  one more registry: a command that serves plain HTTP on 127.0.0.1:{port} and keeps what it
#               holds below {dir}, as in olareg='olareg serve --port {port} --store-type dir --dir {dir}'
#
# ROUNDS    how often each work is measured, in turn over the registries; 3 when not set
# SECONDS_EACH  how long each work that has no end of its own is measured; 5 when not set
# TAGS      tags a repository has for "tag PUT" and "tags/list"; 10000 when not set
# MILLION   tags of a second repository, of rhub alone; 1000000 when not set, 0 for none
# LARGE     the size of a large blob; 1GiB when not set
# MANIFESTS manifests rhub holds when its start is timed; 100000 when not set
#
# Prints a row a work and registry: the median, its ratio to rhub's, p99, the server's CPU time and peak
# memory, and a mark where the load generator had no time left (then the registry can do more).
# nginx serves the same bytes as plain files with sendfile, where there is a file to serve. Everything is
# in one temporary directory, about 3 GiB a registry and round. Build the programs first with
# `cargo build --release --workspace`; needs Debian's docker-registry nginx curl python3. Nothing else should
# run on the machine meanwhile: the load before and after is printed with the figures.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=$(echo "$top"/target/*-linux-*/release)
rounds=${ROUNDS:-3} seconds=${SECONDS_EACH:-5} tags=${TAGS:-10000} million=${MILLION:-1000000} manifests=${MANIFESTS:-100000}
large_blob=${LARGE:-1GiB}
work=$(mktemp -d)
# nginx's workers may be another user's.
chmod 711 "$work"
declare -A commands ports pids
names=()
# stop_process PID: ends it and waits; it is no child of this shell.
stop_process() {
    kill "$1" 2> /dev/null || true
    while kill -0 "$1" 2> /dev/null; do sleep 0.01; done
}
clean() {
    for pid in "${pids[@]}"; do stop_process "$pid"; done
    rm -rf --one-file-system "$work"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# registry NAME COMMAND: what is to be measured.
registry() {
    local port=$((5920 + ${#names[@]}))
    names+=("$1")
    ports[$1]=$port
    mkdir "$work/$1"
    commands[$1]=$(sed "s|{port}|$port|g; s|{dir}|$work/$1|g" <<< "$2")
}
registry rhub "'$bin/rhub' serve --listen 127.0.0.1:{port} --data {dir}"
registry docker-registry "docker-registry serve '$work/docker-registry.yml'"
registry nginx "nginx -c '$work/nginx.conf' -e '$work/nginx.log'"
for further in "$@"; do registry "${further%%=*}" "${further#*=}"; done
cat > "$work/docker-registry.yml" <<EOF
version: 0.1
log: { level: error }
http: { addr: "127.0.0.1:${ports[docker-registry]}" }
storage: { filesystem: { rootdirectory: "$work/docker-registry" }, delete: { enabled: true } }
EOF
cat > "$work/nginx.conf" <<EOF
daemon off;
worker_processes auto;
pid $work/nginx.pid;
events { worker_connections 1024; }
http {
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    server { listen 127.0.0.1:${ports[nginx]}; location = /v2/ { return 200; } location / { root $work/nginx; } }
}
EOF

# start NAME: starts it and records how long it took to its first answer, in milliseconds, and its memory then.
cat > "$work/start.py" <<'EOF'
import os, shlex, socket, subprocess, sys, time
command, port, log = sys.argv[1], int(sys.argv[2]), open(sys.argv[3], "ab")
began = time.monotonic()
server = subprocess.Popen(["sh", "-c", "exec " + command], stdout=log, stderr=log, start_new_session=True)
while True:
    try:
        with socket.create_connection(("127.0.0.1", port), 30) as connection:
            connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            if connection.recv(100).startswith(b"HTTP/1.1 200"):
                break
    except OSError:
        pass
    if server.poll() is not None or time.monotonic() - began > 120:
        sys.exit(f"{command} does not serve; see {sys.argv[3]}")
    time.sleep(0.0002)
took_ms = (time.monotonic() - began) * 1000
def resident(pid):
    children = open(f"/proc/{pid}/task/{pid}/children").read().split()
    kib = next(int(line.split()[1]) for line in open(f"/proc/{pid}/status") if line.startswith("VmRSS:"))
    return kib + sum(resident(child) for child in children)
print(server.pid, took_ms, resident(server.pid) / 1024)
os._exit(0)  # the server stays
EOF
start() {
    local pid ms mib
    read -r pid ms mib < <(python3 "$work/start.py" "${commands[$1]}" "${ports[$1]}" "$work/$1.log")
    pids[$1]=$pid
    started="{\"ms\": $ms, \"idle_mib\": $mib}"
}
stop() {
    stop_process "${pids[$1]}"
    unset "pids[$1]"
}

# measure WORK NAME ARGUMENT...: one load, after what came before has reached the disk.
measure() {
    local of=$1 name=$2 found
    shift 2
    sync
    found=$("$bin/rconform" load "http://127.0.0.1:${ports[$name]}" --pid "${pids[$name]}" --keep --format json "$@") || {
        echo "FAILED: $of on $name: $(grep first_failure <<< "$found")" >&2
    }
    [ -z "$found" ] || echo "$of|$name|$(tr -d '\n' <<< "$found")" >> "$work/figures"
}
# everywhere WORK ARGUMENT...: on every registry in turn; nginx where it has the file.
everywhere() {
    local of=$1 name
    shift
    for name in "${names[@]}"; do [ "$name" = nginx ] || measure "$of" "$name" "$@"; done
}
with_nginx() {
    everywhere "$@"
    local of=$1
    shift
    measure "$of" nginx "$@"
}

load_before=$(cut -d' ' -f1-3 /proc/loadavg)
for name in "${names[@]}"; do start "$name"; done

# Read by every round: pushed once, and copied from rhub to where nginx finds it.
for name in "${names[@]}"; do
    [ "$name" != nginx ] || continue
    for of in "large $large_blob 0" "small 1KiB 0" "tags 1KiB $tags"; do
        read -r repository size count <<< "$of"
        "$bin/rconform" load "http://127.0.0.1:${ports[$name]}" --kind blob-head -n 1 --warm-up 0 --repository "bench/$repository" \
            --size "$size" --existing-tags "$count" --keep > "$work/prepare.log" || cat "$work/prepare.log" >&2
    done
done
for repository in large small; do
    at=v2/bench/$repository
    mkdir -p "$work/nginx/$at/manifests" "$work/nginx/$at/blobs"
    fetch() { curl -sfo "$work/nginx/$at/$1" "http://127.0.0.1:${ports[rhub]}/$at/$1"; }
    fetch manifests/latest
    fetch "blobs/$(grep -o 'sha256:[0-9a-f]*' "$work/nginx/$at/manifests/latest" | head -1)"
done

long=(--duration "$seconds")
large=(--repository bench/large --size "$large_blob" --prepared --warm-up 0)
small=(--repository bench/small --size 1KiB --prepared -c 64 "${long[@]}")
for round in $(seq "$rounds"); do
    everywhere "$large_blob PUT" --kind upload -c 1 -n 1 --size "$large_blob" --repository bench/put
    with_nginx "$large_blob GET x1" --kind blob-get -c 1 -n 8 "${large[@]}"
    with_nginx "$large_blob GET x16" --kind blob-get -c 16 -n 16 "${large[@]}"
    with_nginx "manifest GET by tag, 64 connections" --kind manifest-get "${small[@]}"
    with_nginx "1 KiB blob GET, 64 connections" --kind blob-get "${small[@]}"
    with_nginx "1 KiB blob HEAD, 64 connections" --kind blob-head "${small[@]}"
    everywhere "4 KiB upload, 16 connections" --kind upload --size 4KiB -c 16 "${long[@]}" --repository bench/uploads
    everywhere "tag PUT at $tags, 16 connections" --kind tag-put --size 1KiB --repository bench/tags --prepared -c 16 "${long[@]}"
    everywhere "tags/list?n=100 at $tags" --kind tag-list --size 1KiB --repository bench/tags --prepared --existing-tags "$tags" -c 1 \
        "${long[@]}"
    for name in "${names[@]}"; do
        [ "$name" != nginx ] || continue
        stop "$name"
        start "$name"
        echo "start with what the rounds left|$name|$started" >> "$work/figures"
    done
done

# What the peers cannot do in reasonable time.
if [ "$manifests" -gt 0 ]; then
    measure "manifest PUT, 16 connections, $manifests of them" rhub --kind manifest-put -n "$manifests" --warm-up 0 -c 16 \
        --repository bench/many
    for round in 1 2 3 4 5; do
        stop rhub
        start rhub
        echo "start with $manifests manifests more|rhub|$started" >> "$work/figures"
    done
fi
if [ "$million" -gt 0 ]; then
    measure "(preparing $million tags)" rhub --kind blob-head -n 1 --warm-up 0 --repository bench/million --size 1KiB --existing-tags "$million"
    for round in $(seq "$rounds"); do
        measure "tag PUT at $million, 16 connections" rhub --kind tag-put --repository bench/million --size 1KiB --prepared -c 16 "${long[@]}"
        measure "tags/list?n=100 at $million" rhub --kind tag-list --repository bench/million --size 1KiB --prepared \
            --existing-tags "$million" -c 1 "${long[@]}"
    done
fi

echo "$rounds rounds, medians; load of the machine before: $load_before, now: $(cut -d' ' -f1-3 /proc/loadavg)"
python3 - "$work/figures" <<'EOF'
import json, statistics, sys
works = {}
for line in open(sys.argv[1]):
    work, name, found = line.strip().split("|", 2)
    if not work.startswith("("):
        works.setdefault(work, {}).setdefault(name, []).append(json.loads(found))
def value(found, work):
    if "ms" in found:
        return found["ms"], "ms"
    if found["size_bytes"] >= 1 << 20:
        return found["megabytes_per_second"], "MB/s"
    if "list" in work:
        return found["latency_ms"]["p50"], "ms"
    return found["per_second"], "/s"
for work, registries in works.items():
    print(f"\n{work:47}    figure        ratio    p99 ms   CPU s  peak MiB  failed")
    ours = None
    for name, runs in registries.items():
        median = lambda pick: statistics.median(map(pick, runs))
        figure, unit = median(lambda run: value(run, work)[0]), value(runs[0], work)[1]
        ours = ours or figure
        row = f"  {name:40} {figure:11.{2 if unit == 'ms' else 0}f} {unit:5} {figure / ours:8.2f}"
        if "ms" in runs[0]:
            row += f"  {'':8} {'':7}  {median(lambda run: run['idle_mib']):8.1f}  (memory after the start)"
        else:
            server = lambda key: median(lambda run: run["server"][key])
            row += f"  {median(lambda run: run['latency_ms']['p99']):8.2f} {server('cpu_s'):7.2f}  {server('peak_bytes') / 2**20:8.1f}"
            failed = sum(run["failures"] for run in runs)
            row += f"  {failed or ''}" + ("  (generator at its limit)" if any(run["generator_was_the_limit"] for run in runs) else "")
        print(row)
peaks = {}
for registries in works.values():
    for name, runs in registries.items():
        for run in runs:
            if run.get("server"):
                peaks[name] = max(peaks.get(name, 0), run["server"]["peak_bytes"] / 2**20)
print("\npeak memory in any of these, MiB:", ", ".join(f"{name} {peak:.1f}" for name, peak in peaks.items()))
EOF
