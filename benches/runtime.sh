#!/usr/bin/env bash
# `dhow runtime` beside the newest crun and a bare floor, on one bundle with the full default spec. As root:
#   CRUN="/path/to/crun" benches/runtime.sh
# How to give the newest crun is told in benches/engine.sh.
set -euo pipefail
if [ -z "${DHOW_BENCH:-}" ]; then exec env DHOW_BENCH=1 unshare -m --propagation private "$0" "$@"; fi
if mountpoint -q /sys/fs/cgroup/unified; then umount -l /sys/fs/cgroup/unified; fi
cd "$(dirname "$0")/.."
DHOW=${DHOW:-$PWD/dist/dhow}
CRUN=${CRUN:-crun}
work=$(mktemp -d /var/tmp/dhow-bench.XXXXXX)
. benches/pair.sh
ours="$DHOW runtime --root $work/dhow"
theirs="$CRUN --root $work/crun"
cleanup() {
    for id in $($ours list -q); do $ours delete --force "$id" >/dev/null 2>&1 || true; done
    $theirs delete --force bench-crun >/dev/null 2>&1 || true
    umount "$work/run" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

need=()
for tool in hyperfine crun jq gcc; do command -v $tool >/dev/null || need+=("$tool"); done
[ -x /bin/busybox ] || need+=(busybox-static)
[ ${#need[@]} -eq 0 ] || { apt-get update -q && apt-get install -y -q --no-install-recommends "${need[@]}"; } >/dev/null
gcc -O2 -static -o "$work/floor" benches/floor.c

bundle() { # directory, jq filter over the default spec, program and arguments
    mkdir -p "$1/rootfs/bin" "$1/rootfs/etc"
    cp /bin/busybox "$1/rootfs/bin/"
    for applet in sh true sleep; do ln -s busybox "$1/rootfs/bin/$applet"; done
    echo 'root:x:0:0:root:/root:/bin/sh' > "$1/rootfs/etc/passwd"
    cargo run --quiet --locked -p dhow-bundle --example spec -- "${@:3}" | jq "$2" > "$1/config.json"
}
bundle "$work/true" . true
bundle "$work/plain" 'del(.linux.seccomp)' true
bundle "$work/small" '.linux.resources.memory = {limit: 524288}' true
bundle "$work/sleep" 'del(.linux.cgroupsPath)' sleep 100000

{
printf 'case\tdhow ms\tpeer ms\tratio\tgoal\n'
must_work "$ours run -b $work/true bench" "$theirs run -b $work/true bench-crun" "$work/floor $work/true/rootfs true"
pair "run : crun" "<= 0.6" "$ours run -b $work/true bench" "$theirs run -b $work/true bench-crun"
pair "run without seccomp : crun" "" "$ours run -b $work/plain bench" "$theirs run -b $work/plain bench-crun"
pair "run : floor" "<= 2" "$ours run -b $work/true bench" "$work/floor $work/true/rootfs true"
# Beside the promise: how near to the floor anything can come that has a group, a filter and a state; and both runtimes with their
# state on a tmpfs, where it is on a usual host (/run).
mkdir "$work/run"; mount -t tmpfs bench "$work/run"
whole="$work/floor --whole $work/run/floor $work/true/rootfs true"
must_work "$whole"
pair "floor with group, filter, state : floor" "" "$whole" "$work/floor $work/true/rootfs true"
pair "run, state on tmpfs : floor" "" "$DHOW runtime --root $work/run/dhow run -b $work/true bench" "$work/floor $work/true/rootfs true"
pair "run, state on tmpfs : crun" "" "$DHOW runtime --root $work/run/dhow run -b $work/true bench" \
    "$CRUN --root $work/run/crun run -b $work/true bench-crun"
$ours create -b "$work/sleep" bench </dev/null >/dev/null 2>&1; $ours start bench
$theirs create -b "$work/sleep" bench-crun </dev/null >/dev/null 2>&1; $theirs start bench-crun
must_work "$ours exec bench true" "$theirs exec bench-crun true"
pair "exec : crun" "<= 0.7" "$ours exec bench true" "$theirs exec bench-crun true"
pair "state : crun" "" "$ours state bench" "$theirs state bench-crun"
$ours delete --force bench; $theirs delete --force bench-crun
} | column -t -s "$(printf '\t')"

peak() { # command: KiB of its largest process
    /usr/bin/env time -f %M -o "$work/peak" "$@" >/dev/null 2>&1 </dev/null; cat "$work/peak"
}
command -v time >/dev/null || apt-get install -y -q time >/dev/null
echo
printf 'peak memory of create: dhow %s KiB, ' "$(peak $ours create -b "$work/sleep" bench)"
printf 'crun %s KiB\n' "$(peak $theirs create -b "$work/sleep" bench-crun)"
printf 'peak memory of start: dhow %s KiB, ' "$(peak $ours start bench)"
printf 'crun %s KiB\n' "$(peak $theirs start bench-crun)"
$ours delete --force bench; $theirs delete --force bench-crun
if $ours run -b "$work/small" bench; then echo "runs within 512 KiB of memory: yes"; else echo "runs within 512 KiB of memory: NO"; fi

COUNT=${COUNT:-1000}
# Each of the many gets a control group of its own below one for all, as engines have it.
jq ".root.path = \"$work/sleep/rootfs\" | .linux.cgroupsPath = \"/bench-many-$$/NUMBER\"" "$work/sleep/config.json" > "$work/template.json"
for number in $(seq "$COUNT"); do
    mkdir -p "$work/many/$number"
    sed "s|/NUMBER|/$number|" "$work/template.json" > "$work/many/$number/config.json"
done
started() { # first and last, command: milliseconds to start these
    local before number
    before=$(date +%s%N)
    for number in $(seq "$1" "$2"); do
        $3 run -d -b "$work/many/$number" "many-$number" </dev/null >/dev/null 2>&1
    done
    echo $((($(date +%s%N) - before) / 1000000))
}
for command in "$ours" "$theirs"; do
    echo
    echo "$COUNT containers created and started by ${command%% *}, all left running: milliseconds for each tenth"
    for tenth in $(seq 10); do
        printf '%s ' "$(started $(((tenth - 1) * COUNT / 10 + 1)) $((tenth * COUNT / 10)) "$command")"
    done
    echo
    for number in $(seq "$COUNT"); do $command delete --force "many-$number" >/dev/null 2>&1 || true; done
    find /sys/fs/cgroup -depth -path "*/bench-many-$$*" -type d -exec rmdir {} + 2>/dev/null || true
done
