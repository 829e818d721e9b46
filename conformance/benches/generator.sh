#!/bin/bash
# Whether `rconform load` measures what others measure: its figures beside wrk's and curl's, in the same run.
#
#     generator.sh
#
# ROUNDS        how often each is measured, in turn; 5 when not set
# SECONDS_EACH  how long each time; 4 when not set
# CONNECTIONS   of rconform and wrk; 64 when not set
# BIN           where rhub and rconform are; the release build when not set
#
# Small content: requests a second by wrk and by rconform, one thread each, GET of a manifest and of a 1 KiB blob, on rhub
# and on nginx with the same bytes as files (nginx is faster than either, so that the generators are the limit). Large
# content: MB/s by curl and by rconform, one connection, GET of a blob of 256 MiB. Medians, and the ratio of rconform to
# the other within each round: median, least and most. Beside them the processor time of each generator for a request, in
# microseconds: where the generator is the limit, that is what decides, also on a machine that is busy with other things. Everything is in one temporary directory. Needs Debian's wrk curl
# nginx python3; nothing else should run on the machine meanwhile.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=${BIN:-$(echo "$top"/target/*-linux-*/release)}
rounds=${ROUNDS:-5} seconds=${SECONDS_EACH:-4} connections=${CONNECTIONS:-64}
work=$(mktemp -d)
# nginx's workers may be another user's.
chmod 711 "$work"
pids=()
clean() {
    for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2> /dev/null || true; done
    rm -rf --one-file-system "$work"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

rhub=http://127.0.0.1:5931 nginx=http://127.0.0.1:5932
"$bin/rhub" serve --listen "${rhub#http://}" --data "$work/rhub" > "$work/rhub.log" 2>&1 &
pids+=($!)
cat > "$work/nginx.conf" <<END
daemon off;
worker_processes 1;
pid $work/nginx.pid;
events { worker_connections 1024; }
http {
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    server { listen ${nginx#http://}; location = /v2/ { return 200; } location / { root $work/nginx; } }
}
END
mkdir "$work/nginx"
nginx -c "$work/nginx.conf" -e "$work/nginx.log" &
pids+=($!)
for url in $rhub $nginx; do
    curl -sf --retry 50 --retry-delay 1 --retry-connrefused -o "$work/answer" "$url/v2/"
done

# Pushed once, and copied to where nginx finds it.
declare -A blobs
for of in "small 1KiB" "large 256MiB"; do
    read -r repository size <<< "$of"
    "$bin/rconform" load $rhub --kind blob-head -n 1 --warm-up 0 --repository "bench/$repository" --size "$size" --keep > "$work/log"
    at=v2/bench/$repository
    mkdir -p "$work/nginx/$at/manifests" "$work/nginx/$at/blobs"
    curl -sfo "$work/nginx/$at/manifests/latest" "$rhub/$at/manifests/latest"
    blobs[$repository]=$at/blobs/$(grep -o 'sha256:[0-9a-f]*' "$work/nginx/$at/manifests/latest" | head -1)
    curl -sfo "$work/nginx/${blobs[$repository]}" "$rhub/${blobs[$repository]}"
done

# note WORK PROGRAM FIGURE PROCESSOR_US [GENERATOR_WAS_THE_LIMIT]
note() { echo "$1|$2|$3|$4|${5:-}" >> "$work/figures"; }
# by_rconform WORK FIELD URL ARGUMENT...
by_rconform() {
    local of=$1 field=$2 url=$3 figure us limit
    shift 3
    "$bin/rconform" load "$url" --prepared --keep --format json "$@" > "$work/found"
    read -r figure us limit < <(python3 -c 'if True:
        import json, sys
        found = json.load(open(sys.argv[1]))
        print(found[sys.argv[2]], found["generator_cpu_s"] / found["requests"] * 1e6, found["generator_was_the_limit"])' "$work/found" "$field")
    note "$of" rconform "$figure" "$us" "$limit"
}
# by_wrk WORK URL
by_wrk() {
    local TIMEFORMAT='%U %S'
    { time wrk -t 1 -c "$connections" -d "${seconds}s" -H "Accept: application/vnd.oci.image.manifest.v1+json" "$2" > "$work/found"; } \
        2> "$work/time"
    if grep -q 'Non-2xx\|Socket errors' "$work/found"; then cat "$work/found" >&2; exit 1; fi
    note "$1" wrk "$(awk '/Requests\/sec/ { print $2 }' "$work/found")" \
        "$(awk 'NR == FNR { cpu = $1 + $2 } / requests in / { print cpu / $1 * 1e6 }' "$work/time" "$work/found")"
}
# by_curl WORK URL
by_curl() {
    local each=(-o /dev/null "$2")
    note "$1" curl "$(curl -sf -w '%{size_download} %{time_total}\n' "${each[@]}" "${each[@]}" "${each[@]}" "${each[@]}" |
        awk '{ bytes += $1; s += $2 } END { print bytes / s / 1e6 }')" nan
}

load_before=$(cut -d' ' -f1-3 /proc/loadavg)
for _ in $(seq "$rounds"); do
    for server in rhub nginx; do
        url=${!server}
        small=(--repository bench/small --size 1KiB -c "$connections" --duration "$seconds" --warm-up 0.5)
        by_wrk "manifest GET, $server, /s" "$url/v2/bench/small/manifests/latest"
        by_rconform "manifest GET, $server, /s" per_second "$url" --kind manifest-get "${small[@]}"
        by_wrk "1 KiB blob GET, $server, /s" "$url/${blobs[small]}"
        by_rconform "1 KiB blob GET, $server, /s" per_second "$url" --kind blob-get "${small[@]}"
        large=(--repository bench/large --size 256MiB -c 1 -n 4 --warm-up 0)
        by_curl "256 MiB blob GET, $server, MB/s" "$url/${blobs[large]}"
        by_rconform "256 MiB blob GET, $server, MB/s" megabytes_per_second "$url" --kind blob-get "${large[@]}"
    done
done

echo "$rounds rounds, $connections connections, medians; load of the machine before: $load_before, now: $(cut -d' ' -f1-3 /proc/loadavg)"
python3 - "$work/figures" <<'END'
import statistics, sys
works = {}
for line in open(sys.argv[1]):
    work, program, figure, us, limit = line.rstrip("\n").split("|")
    works.setdefault(work, {}).setdefault(program, []).append((float(figure), float(us), limit == "True"))
print(f"{'':34} {'other':>16} {'rconform':>11}   rconform/other (least to most)   us a request: other, rconform")
for work, programs in works.items():
    ours = programs.pop("rconform")
    (name, theirs), = programs.items()
    median = lambda runs, of: statistics.median(run[of] for run in runs)
    ratios = [our[0] / their[0] for our, their in zip(ours, theirs)]
    limit = "  (generator at its limit)" if any(run[2] for run in ours) else ""
    spent = "" if name == "curl" else f"   {median(theirs, 1):.1f}, {median(ours, 1):.1f}"
    print(f"{work:34} {name:>4} {median(theirs, 0):11.0f} {median(ours, 0):11.0f}   "
        f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}){spent}{limit}")
END
