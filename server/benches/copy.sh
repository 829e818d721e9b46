#!/bin/bash
# How long copies between two registries take: of one large layer and of an image of many, beside skopeo's.
#
#     copy.sh [DIRECTORY]
#
# DIRECTORY holds the `rbox` that is measured; the release build when none is given.
#
# ROUNDS   how often each is measured; 3 when not set
# LAYER    MiB of the large layer; 1024 when not set
# COUNT    the layers of the image, of 4 MiB each; 40 when not set
# RHUB     the registries; the release build when not set
#
# Gives seconds and CPU seconds, the medians, and the most memory the copy took, in MiB. Each round copies into a registry that is
# empty. Everything is in one temporary directory. Needs Debian's python3, skopeo and time; nothing else should run on the
# machine meanwhile.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
release=$(echo "$top"/target/*-linux-*/release)
bin=${1:-$release}
rounds=${ROUNDS:-3} layer=${LAYER:-1024} count=${COUNT:-40} rhub=${RHUB:-$release/rhub}
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

# Layers of noise: what is in them does not matter, for nobody unpacks them.
python3 - "$work" "$layer" "$count" << 'END'
import hashlib, json, os, sys
work, layer, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def make(name, sizes):
    directory = f"{work}/{name}"
    os.makedirs(f"{directory}/blobs/sha256")
    def put(chunks):
        digest, size = hashlib.sha256(), 0
        with open(f"{work}/blob", "wb") as blob:
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                blob.write(chunk)
        os.rename(f"{work}/blob", f"{directory}/blobs/sha256/{digest.hexdigest()}")
        return {"digest": "sha256:" + digest.hexdigest(), "size": size}
    layers = [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **put(os.urandom(1 << 20) for _ in range(size))} for size in sizes]
    def document(value, media_type):
        return {"mediaType": media_type, **put([json.dumps(value).encode()])}
    diff_ids = [layer["digest"] for layer in layers]
    config = document({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}},
                      "application/vnd.oci.image.config.v1+json")
    manifest_type = "application/vnd.oci.image.manifest.v1+json"
    manifest = document({"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers}, manifest_type)
    open(f"{directory}/index.json", "w").write(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    open(f"{directory}/oci-layout", "w").write('{"imageLayoutVersion":"1.0.0"}')
make("large", [layer])
make("many", [4] * count)
END

start() { # PORT DIRECTORY: starts a registry and waits for its first line; its PID is in $started
    : > "$work/rhub.out"
    "$rhub" serve --listen "127.0.0.1:$1" --data "$2" > "$work/rhub.out" 2> "$work/errors" &
    started=$!
    until [ -s "$work/rhub.out" ]; do sleep 0.05; done
}
start 5951 "$work/from"
pids+=("$started")
export LONGSHORE_ROOT=$work/store
for image in large many; do
    "$bin/rbox" push -q "oci:$work/$image" "127.0.0.1:5951/$image:1" > "$work/push.out"
    rm -rf "${work:?}/$image"
done

measure() { # WHO IMAGE: one copy into an empty registry
    start 5952 "$work/to"
    local from="docker://127.0.0.1:5951/$2:1" to="docker://127.0.0.1:5952/$2:1"
    case $1 in
        rbox) set -- "$1" "$2" "$bin/rbox" copy -q --all "$from" "$to" ;;
        skopeo) set -- "$1" "$2" skopeo copy -q --insecure-policy --src-tls-verify=false --dest-tls-verify=false --all "$from" "$to" ;;
    esac
    /usr/bin/time -o "$work/time" -f '%e %U %S %M' "${@:3}" > "$work/copy.out"
    echo "$1 $2 $(awk '{ print $1, $2 + $3, $4 }' "$work/time")" >> "$work/times"
    kill "$started"
    wait "$started" || true
    rm -rf "$work/to"
}
median() { # WHO IMAGE FIELD
    grep "^$1 $2 " "$work/times" | cut -d' ' -f"$3" | sort -n | sed -n "$(((rounds + 1) / 2))p"
}
: > "$work/times"
for image in large many; do
    for round in $(seq "$rounds"); do
        for who in rbox skopeo; do measure "$who" "$image"; done
    done
    for who in rbox skopeo; do
        memory=$(grep "^$who $image " "$work/times" | cut -d' ' -f5 | sort -n | tail -1)
        printf '%-6s %-6s %7.2f s %7.2f s CPU %5d MiB\n' "$image" "$who" "$(median "$who" "$image" 3)" \
            "$(median "$who" "$image" 4)" $((memory / 1024))
    done
done
