#!/bin/bash
# How long pulls take: of one large layer, of many small ones and of a real image, over the loopback, and over a way of 100 ms
# with 20 MB/s for each connection; and what a pull costs of what is here already.
#
#     transfer.sh [WHO ...]
#
# Each WHO is a directory that holds an `rbox`, for its `pull`; `copy`, for `rbox copy` into a layout; `skopeo`, which does that, too; or
# `podman`, which pulls. They are measured in turn; the release build and all of these when nothing is given. Pulls unpack.
#
# ROUNDS   how often each is measured; 3 when not set
# LAYER    MiB of the large layer; 1024 when not set
# COUNT    the small layers, of 4 MiB each; 60 when not set
# IMAGE    an OCI layout with a real image, DIR[:TAG]; that of the tests when it is there and this is not set
# RHUB     the registry; the release build when not set
#
# Gives seconds and CPU seconds, the medians, and the most memory it took, in MiB. Everything is in one temporary directory. Needs Debian's
# python3 and time; nothing else should run on the machine meanwhile.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
release=$(echo "$top"/target/*-linux-*/release)
who=("$@")
[ $# -gt 0 ] || who=("$release" copy skopeo podman)
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
images=(large many)
for image in "${images[@]}"; do
    "$release/rbox" push -q "oci:$work/$image" "127.0.0.1:5941/$image:1" > "$work/push.out"
    rm -rf "${work:?}/$image"
done
real=${IMAGE:-$(ls -d "$top"/target/*-linux-*/tmp/fixtures/mysql-*/ 2> /dev/null | tail -1)}
if [ -n "$real" ]; then
    "$release/rbox" push -q "oci:${real%/}" 127.0.0.1:5941/real:1 > "$work/push.out"
    images+=(real)
fi

podman=(podman --root "$work/podman" --runroot "$work/podman-run")

forget() { # WHO: has nothing of what it fetched
    rm -rf "${work:?}/store" "$work/layout"
    [ "$1" != podman ] || "${podman[@]}" rmi -af > "$work/out" 2>&1
}
fetch() { # WHO NAME
    local time=(/usr/bin/time -o "$work/time" -f '%e %U %S %M')
    case $1 in
        copy) "${time[@]}" "$release/rbox" copy -q "docker://$2" "oci:$work/layout:1" ;;
        skopeo) "${time[@]}" skopeo copy -q --insecure-policy --src-tls-verify=false "docker://$2" "oci:$work/layout:1" ;;
        podman) "${time[@]}" "${podman[@]}" pull -q --tls-verify=false "$2" ;;
        *) "${time[@]}" "$1/rbox" pull -q "$2" ;;
    esac > "$work/out"
}
median() { # WHO FIELD
    grep "^$1 " "$work/times" | cut -d' ' -f"$2" | sort -n | sed -n "$(((rounds + 1) / 2))p"
}
measure() { # WHAT NAME AGAIN WHO...: AGAIN is empty to fetch it anew each time
    local what=$1 name=$2 again=$3 one
    shift 3
    : > "$work/times"
    for _ in $(seq "$rounds"); do
        for one in "$@"; do
            forget "$one"
            [ -z "$again" ] || fetch "$one" "$name"
            fetch "$one" "$name"
            echo "$one $(awk '{ print $1, $2 + $3, $4 }' "$work/time")" >> "$work/times"
        done
    done
    for one in "$@"; do
        memory=$(grep "^$one " "$work/times" | cut -d' ' -f4 | sort -n | tail -1)
        printf '%-32s %7.2f s %7.2f s CPU %5d MiB  %s\n' "$what" "$(median "$one" 2)" "$(median "$one" 3)" $((memory / 1024)) "$one"
    done
}
for image in "${images[@]}"; do
    measure "loopback, $image" "127.0.0.1:5941/$image:1" "" "${who[@]}"
done
measure "loopback, ${images[-1]}, again" "127.0.0.1:5941/${images[-1]}:1" again "${who[@]}"
for image in "${images[@]}"; do
    measure "100 ms, 20 MB/s, $image" "$slow/$image:1" "" "${who[@]}"
done
