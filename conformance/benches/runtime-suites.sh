#!/bin/bash
# Runs other people's suites for OCI runtimes against any runtimes, side by side, and prints who passes what.
#
#   runtime-suites.sh validation CHECKOUT RUNTIME...   opencontainers/runtime-tools, its programs built (validation/*/*.t)
#   runtime-suites.sh bats CHECKOUT RUNTIME...         opencontainers/runc, its test programs built, its images in place
#
# As root. Nothing is fetched and nothing is built here: CHECKOUT says itself how that is done. The answers of the
# suites are left in a directory that is named at the end. A runtime is a path or a name; `crun=./wrapper` names it.
set -euo pipefail

suite=$1 checkout=$(realpath "$2")
shift 2
out=$(mktemp -d)

# Both suites look at the host's cgroups by themselves, take a hybrid host for what it is not, and leave directories
# beside the hierarchies: so each run has the v1 hierarchies alone, in a mount namespace of its own.
if [ -z "${LONGSHORE_SUITES_INSIDE:-}" ]; then
    rmdir "$out"
    LONGSHORE_SUITES_INSIDE=1 exec unshare --mount --propagation private "$0" "$suite" "$checkout" "$@"
fi
if [ -d /sys/fs/cgroup/unified ]; then
    umount /sys/fs/cgroup/unified
    hierarchies=$(mktemp -d)
    mount -t tmpfs -o mode=755 none "$hierarchies"
    for one in /sys/fs/cgroup/*; do
        mkdir "$hierarchies/${one##*/}"
        mount --bind "$one" "$hierarchies/${one##*/}"
    done
    umount -R /sys/fs/cgroup
    mount --move "$hierarchies" /sys/fs/cgroup
    rmdir "$hierarchies"
fi

# A program of runtime-tools passes if it ends with 0, has no "not ok", keeps its plan, and tells no error without one.
validation() {
    local runtime=$1 to=$2 program name
    cd "$checkout"
    for program in validation/*/*.t; do
        name=$(basename "$program" .t)
        if RUNTIME=$runtime timeout 60 "$program" > "$to/$name.tap" 2> "$to/$name.err" < /dev/null; then
            awk '/^not ok/ || /^    "error":/ && !tests { bad = 1 } /^ok/ { tests++ } /^1\.\./ { plan = $0 }
                END { exit bad || plan != "1.." tests + 0 }' "$to/$name.tap" && echo "ok $name" || echo "not ok $name"
        else
            echo "not ok $name"
        fi
    done
}

# runc wants a controlling terminal, which is made here.
bats() {
    local runtime=$1 to=$2 file
    cd "$checkout/tests/integration"
    for file in *.bats; do
        RUNC=$runtime timeout 300 python3 -c '
import os, pty, sys
pid, master = pty.fork()
if pid == 0:
    os.execvp("sh", ["sh", "-c", "bats --tap \"$0\" > \"$1\" 2>&1", *sys.argv[1:]])
try:
    while os.read(master, 65536): pass
except OSError: pass
os.waitpid(pid, 0)' "$file" "$to/$file.tap" < /dev/null || true
        sed -nE "s/^(ok|not ok) [0-9]+ (.*)/\1 ${file%.bats}: \2/p" "$to/$file.tap" | sed -E 's/^ok (.*) # skip.*/skip \1/'
    done
}

names=()
for runtime; do
    name=$(basename "${runtime%%=*}") path=$(realpath "$(command -v "${runtime#*=}")")
    names+=("$name")
    mkdir "$out/$name"
    ("$suite" "$path" "$out/$name") > "$out/$name.list"
    echo "$name: $(grep -c '^ok ' "$out/$name.list") pass, $(grep -c '^not ok ' "$out/$name.list") fail, $(grep -c '^skip ' "$out/$name.list" || true) left out"
done

echo
echo "What not all pass: ${names[*]}"
sed -E 's/^(ok|not ok|skip) //' "$out"/*.list | sort -u | while read -r test; do
    row=
    for name in "${names[@]}"; do
        word=$(grep -xE "(ok|not ok|skip) .*" "$out/$name.list" | awk -v test="$test" '{ word = $1; sub(/^(ok|not ok|skip) /, "") } $0 == test { print word; exit }')
        row+=$(printf '%-6s' "${word:--}")
    done
    case $row in *not*) echo "$row $test" ;; esac
done
echo "The suites' own words: $out"
