#!/usr/bin/env bash
# Starting, stopping and listing containers, beside crun and podman in one run. As root:
#   benches/engine.sh            prints medians in milliseconds and the ratios that SPECIFICATION.md promises
# CRUN and PODMAN name the peers' programs (default: Debian's packages, which are installed when missing; the newest crun can be
# given as CRUN="/x/lib64/ld-linux-x86-64.so.2 --library-path /x/usr/lib/x86_64-linux-gnu /x/usr/bin/crun" from any root file
# system /x of a newer release, such as one made by `dhow bootstrap debian:forky --include crun`).
set -euo pipefail
# Debian 12's crun refuses a hybrid hierarchy: everything is measured where the version 2 part is not seen.
if [ -z "${DHOW_BENCH:-}" ]; then exec env DHOW_BENCH=1 unshare -m --propagation private "$0" "$@"; fi
if mountpoint -q /sys/fs/cgroup/unified; then umount -l /sys/fs/cgroup/unified; fi
cd "$(dirname "$0")/.."
DHOW=${DHOW:-$PWD/dist/dhow}
CRUN=${CRUN:-crun}
PODMAN=${PODMAN:-podman}
work=$(mktemp -d /var/tmp/dhow-bench.XXXXXX)
. benches/pair.sh
root=$work/store
dhow() { "$DHOW" --root "$root" "$@"; }
cleanup() {
    dhow rm -f $(dhow ps -aq) >/dev/null 2>&1 || true
    dhow system teardown >/dev/null 2>&1 || true
    $PODMAN --root "$work/podman" --runroot "$work/podman-run" rm -af >/dev/null 2>&1 || true
    rm -rf "$work" 2>/dev/null || { umount -R "$work"/podman/overlay 2>/dev/null; rm -rf "$work"; }
}
trap cleanup EXIT

need=()
for tool in hyperfine podman crun jq; do command -v $tool >/dev/null || need+=("$tool"); done
[ -x /bin/busybox ] || need+=(busybox-static)
[ ${#need[@]} -eq 0 ] || { apt-get update -q && apt-get install -y -q --no-install-recommends "${need[@]}"; } >/dev/null

mkdir -p "$work/rootfs/bin" "$work/rootfs/etc"
cp /bin/busybox "$work/rootfs/bin/"
for applet in sh true sleep; do ln -s busybox "$work/rootfs/bin/$applet"; done
echo 'root:x:0:0:root:/root:/bin/sh' > "$work/rootfs/etc/passwd"
tar -C "$work/rootfs" -cf "$work/bb.tar" .
dhow import "$work/bb.tar" bench:latest >/dev/null
mkdir -p "$work/bundle"; cp -a "$work/rootfs" "$work/bundle/rootfs"
cargo run --quiet --locked -p dhow-bundle --example spec -- true > "$work/bundle/config.json"

# podman asks for limits that a host without CAP_SYS_RESOURCE refuses.
cat > "$work/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=20000:20000","nproc=20000:20000"]
CONF
export CONTAINERS_CONF=$work/containers.conf
pod() { $PODMAN --root "$work/podman" --runroot "$work/podman-run" --cgroup-manager cgroupfs "$@"; }
podman_words="$PODMAN --root $work/podman --runroot $work/podman-run --cgroup-manager cgroupfs"
pod import "$work/bb.tar" localhost/bench:latest >/dev/null 2>&1

{
printf 'case\tdhow ms\tpeer ms\tratio\tgoal\n'
D="$DHOW --root $root"
must_work "$D run --rm --network none bench true" "$CRUN --root $work/crun run -b $work/bundle bench-crun" \
    "$podman_words run --rm --network none localhost/bench true"
pair "run --rm, no network : crun run" "<= 1.6" "$D run --rm --network none bench true" "$CRUN --root $work/crun run -b $work/bundle bench-crun"
pair "run --rm, no network : podman" "" "$D run --rm --network none bench true" "$podman_words run --rm --network none localhost/bench true"
pair "run --rm, bridge : podman" "<= 0.111" "$D run --rm bench true" "$podman_words run --rm localhost/bench true"
dhow run -d --name bench1 --network none bench sleep 1000 >/dev/null
pod run -d --name bench1 --network none localhost/bench sleep 1000 >/dev/null
pair "exec true : podman" "<= 0.1" "$D exec bench1 true" "$podman_words exec bench1 true"
pair "create : podman" "<= 0.1" "$D create bench true" "$podman_words create localhost/bench true"
pair "ps : podman" "<= 0.1" "$D ps" "$podman_words ps"
} | column -t -s "$(printf '\t')"
dhow rm -f $(dhow ps -aq) >/dev/null

echo
echo "100 detached containers, one after the other"
before=$(date +%s%N)
for _ in $(seq 100); do dhow run -d --network none bench sleep 1000 >/dev/null; done
after=$(date +%s%N)
echo "start of 100: $(( (after - before) / 1000000 )) ms (goal <= 2500)"
total=0; count=0
for pid in $(pgrep -f -- "--root $root run -d"); do
    private=$(awk '/^Private_(Clean|Dirty):/ {sum += $2} END {print sum}' "/proc/$pid/smaps_rollup"); total=$((total + private)); count=$((count + 1))
done
echo "private memory of a monitor: $((total / count)) KiB, mean of $count (goal <= 409)"
before=$(date +%s%N); dhow rm -f $(dhow ps -aq) >/dev/null; after=$(date +%s%N)
echo "rm -f of 100: $(( (after - before) / 1000000 )) ms"
sleep 1
echo "processes left: $(pgrep -c -f -- "--root $root run -d" || true)"
