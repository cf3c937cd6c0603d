#!/usr/bin/env bash
# Many containers on one host: how long they take to start, how the cost grows, what they hold, and what is left of them.
set -euo pipefail

usage() {
    cat >&2 <<USAGE
usage: benches/scale.sh [--count N] [--network NAME] [--at-once N] [--peer DOCKER] DHOW
  DHOW           the binary
  --count N      containers (default 1000)
  --network NAME bridge or none (default bridge; a bridge of the kernel has 1024 ports)
  --at-once N    commands at a time (default 4)
  --peer DOCKER  the same with this program beside it, of which the image busybox is in its store
Prints a table. Run it as root on a quiet machine, with busybox installed.
USAGE
    exit 2
}

count=1000 network=bridge jobs=4 peer='' dhow=''
while [ $# -gt 0 ]; do
    case $1 in
        --count) count=${2:?}; shift 2 ;;
        --network) network=${2:?}; shift 2 ;;
        --at-once) jobs=${2:?}; shift 2 ;;
        --peer) peer=${2:?}; shift 2 ;;
        -*) usage ;;
        *) [ -z "$dhow" ] || usage; dhow=$(realpath "$1"); shift ;;
    esac
done
[ -x "$dhow" ] || usage
work=$(mktemp -d /tmp/scale-XXXXXX)
export DHOW_ROOT=$work/r

clean() {
    "$dhow" ps -aq 2>/dev/null | xargs -r "$dhow" rm -f >/dev/null 2>&1 || true
    "$dhow" system teardown >/dev/null 2>&1 || true
    rm -rf --one-file-system "$work"
}
trap clean EXIT

mkdir -p "$work/image/bin"
cp "$(command -v busybox)" "$work/image/bin/busybox"
ln -s busybox "$work/image/bin/sh"
ln -s busybox "$work/image/bin/sleep"
tar -C "$work/image" -cf "$work/image.tar" .
"$dhow" import "$work/image.tar" busybox >/dev/null

# measure PROGRAM: starts, asks, looks, removes; prints one line for each figure.
measure() {
    python3 - "$1" "$count" "$network" "$jobs" <<'SCRIPT'
import glob, os, statistics, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor

program, count, network, jobs = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def call(*words):
    begun = time.monotonic()
    done = subprocess.run([program, *words], **quiet)
    if done.returncode:
        sys.exit(f"{words}: {done.stderr.decode()}")
    return time.monotonic() - begun, done.stdout.decode()


def left():
    def lines(*words):
        return len(subprocess.run(words, capture_output=True).stdout.splitlines())
    groups = sum(1 for _ in glob.iglob("/sys/fs/cgroup/**/", recursive=True))
    return dict(mounts=lines("cat", "/proc/self/mountinfo"), groups=groups, links=lines("ip", "-o", "link"),
                rules=lines("nft", "list", "ruleset"), processes=len(glob.glob("/proc/[0-9]*")))


def private(pid):
    try:
        text = open(f"/proc/{pid}/smaps_rollup").read()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_"))


def helpers(program):
    """Processes of this program that stay: the monitors."""
    for path in glob.glob("/proc/[0-9]*"):
        try:
            if os.readlink(path + "/exe") == os.path.realpath(program):
                yield path.rsplit("/", 1)[1]
        except OSError:
            pass


# What the first container makes for all of them (bridge, table, groups) is no container's own.
call("run", "--rm", "--network", network, "busybox", "sh", "-c", ":")
before = left()
each = []
begun = time.monotonic()
with ThreadPoolExecutor(jobs) as pool:
    for took, _ in pool.map(lambda _: call("run", "-d", "--network", network, "busybox", "sleep", "100000"), range(count)):
        each.append(took)
print(f"start {count}, {jobs} at a time: {time.monotonic() - begun:.2f} s")
tenth = max(1, count // 10)
first, last = statistics.median(each[:tenth]), statistics.median(each[-tenth:])
print(f"one start, median of the first and of the last tenth: {first * 1000:.1f} and {last * 1000:.1f} ms ({last / first:.2f} x)")
print(f"ps -q, median of 20: {statistics.median(call('ps', '-q')[0] for _ in range(20)) * 1000:.1f} ms")
print(f"ps, median of 20: {statistics.median(call('ps')[0] for _ in range(20)) * 1000:.1f} ms")
own = [private(pid) for pid in helpers(program)]
if own:
    print(f"private memory of ours: {sum(own) / count / 1024:.3f} MiB for each container ({len(own)} processes)")
ids = call("ps", "-aq")[1].split()
one = call("exec", ids[-1], "sh", "-c", ":")[0]
print(f"exec in the last of them: {one * 1000:.1f} ms")
begun = time.monotonic()
call("rm", "-f", *ids)
print(f"rm -f of all in one command: {time.monotonic() - begun:.2f} s")
time.sleep(2)
after = left()
grown = {name: after[name] - before[name] for name in before if after[name] > before[name]}
print(f"left behind: {grown or 'nothing'}")
SCRIPT
}

echo "== dhow: $("$dhow" --version), $count containers, network $network =="
measure "$dhow"
if [ -n "$peer" ]; then
    echo "== $("$peer" --version) =="
    measure "$peer"
fi
