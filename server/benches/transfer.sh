#!/bin/bash
# How long pulls take: of one large layer and of many small ones, over the loopback, and over a way of 100 ms with 20 MB/s
# for each connection.
#
#     transfer.sh [DIRECTORY ...]
#
# Each DIRECTORY holds an `rpull` and an `rbox`, which are measured in turn; the release build when none is given.
#
# ROUNDS   how often each is measured; 3 when not set
# LAYER    MiB of the large layer; 1024 when not set
# COUNT    the small layers, of 4 MiB each; 60 when not set
# RHUB     the registry; the release build when not set
#
# Gives seconds, the median, and the most memory the pull took, in MiB. Everything is in one temporary directory. Needs Debian's
# python3 and time; nothing else should run on the machine meanwhile.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
release=$(echo "$top"/target/*-linux-*/release)
bins=("${@:-$release}")
rounds=${ROUNDS:-3} layer=${LAYER:-1024} count=${COUNT:-60} rhub=${RHUB:-$release/rhub}
work=$(mktemp -d)
pids=()
clean() {
    for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2> /dev/null || true; done
    rm -rf --one-file-system "$work"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Noise in tar files, compressed as if it could be: 1 MiB each.
python3 - "$work" "$layer" "$count" << 'END'
import gzip, hashlib, io, json, os, sys, tarfile
work, layer, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def make(name, sizes):
    directory = f"{work}/{name}"
    os.makedirs(f"{directory}/blobs/sha256")
    def put(path):
        digest = hashlib.file_digest(open(path, "rb"), "sha256").hexdigest()
        os.rename(path, f"{directory}/blobs/sha256/{digest}")
        return "sha256:" + digest, os.path.getsize(f"{directory}/blobs/sha256/{digest}")
    layers, diff_ids = [], []
    for at, size in enumerate(sizes):
        plain, packed = f"{work}/plain", f"{work}/packed"
        with tarfile.open(plain, "w") as archive:
            for number in range(size):
                entry = tarfile.TarInfo(f"data/{at}-{number}")
                entry.size = 1 << 20
                archive.addfile(entry, io.BytesIO(os.urandom(1 << 20)))
        diff_ids.append("sha256:" + hashlib.file_digest(open(plain, "rb"), "sha256").hexdigest())
        with open(plain, "rb") as source, gzip.open(packed, "wb", compresslevel=1) as target:
            while chunk := source.read(1 << 20):
                target.write(chunk)
        os.remove(plain)
        digest, size = put(packed)
        layers.append({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size})
    def document(value, media_type):
        open(f"{work}/document", "w").write(json.dumps(value))
        digest, size = put(f"{work}/document")
        return {"mediaType": media_type, "digest": digest, "size": size}
    config = document({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}},
                      "application/vnd.oci.image.config.v1+json")
    manifest_type = "application/vnd.oci.image.manifest.v1+json"
    manifest = document({"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers}, manifest_type)
    open(f"{directory}/index.json", "w").write(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    open(f"{directory}/oci-layout", "w").write('{"imageLayoutVersion":"1.0.0"}')
make("large", [layer])
make("many", [4] * count)
END

start() { # FILE COMMAND: starts it and waits for its first line
    local file=$1
    shift
    "$@" > "$file" 2> "$work/errors" &
    pids+=($!)
    until [ -s "$file" ]; do sleep 0.05; done
}
start "$work/rhub.out" "$rhub" serve --listen 127.0.0.1:5941 --data "$work/rhub"
cargo build -q --release --manifest-path "$top/Cargo.toml" -p longshore-server --example slow_network
start "$work/slow.out" "$release/examples/slow_network" 127.0.0.1:5941 100 20
slow=$(cat "$work/slow.out")
export LONGSHORE_ROOT=$work/store
for image in large many; do
    "${bins[0]}/rbox" push -q "oci:$work/$image" "127.0.0.1:5941/$image:1" > "$work/push.out"
    rm -rf "${work:?}/$image"
done

for address in 127.0.0.1:5941 "$slow"; do
    for image in large many; do
        : > "$work/times"
        for round in $(seq "$rounds"); do
            for bin in "${bins[@]}"; do
                rm -rf "$LONGSHORE_ROOT"
                /usr/bin/time -o "$work/time" -f '%e %M' "$bin/rbox" pull -q "$address/$image:1" > "$work/pull.out"
                echo "$bin $(cat "$work/time")" >> "$work/times"
            done
        done
        for bin in "${bins[@]}"; do
            seconds=$(grep "^$bin " "$work/times" | cut -d' ' -f2 | sort -n | sed -n "$(((rounds + 1) / 2))p")
            memory=$(grep "^$bin " "$work/times" | cut -d' ' -f3 | sort -n | tail -1)
            way=loopback
            [ "$address" = "$slow" ] && way='100 ms, 20 MB/s'
            printf '%-16s %-6s %7.2f s %5d MiB  %s\n' "$way" "$image" "$seconds" $((memory / 1024)) "$bin"
        done
    done
done
