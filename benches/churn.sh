#!/usr/bin/env bash
# Containers that come and go for many minutes beside one that stays, and what of the host is held more at the end.
set -euo pipefail

usage() {
    cat >&2 <<USAGE
usage: benches/churn.sh [--seconds N] [--at-once N] DHOW
  DHOW         the binary
  --seconds N  how long (default 1200)
  --at-once N  loops at a time (default 4)
Prints a table and fails when something leaked. Run it as root, with busybox installed, where nobody else starts containers.
USAGE
    exit 2
}

seconds=1200 jobs=4 dhow=''
while [ $# -gt 0 ]; do
    case $1 in
        --seconds) seconds=${2:?}; shift 2 ;;
        --at-once) jobs=${2:?}; shift 2 ;;
        -*) usage ;;
        *) [ -z "$dhow" ] || usage; dhow=$(realpath "$1"); shift ;;
    esac
done
[ -x "$dhow" ] || usage
work=$(mktemp -d /tmp/churn-XXXXXX)
export DHOW_ROOT=$work/r

clean() {
    "$dhow" ps -aq 2>/dev/null | xargs -r "$dhow" rm -f >/dev/null 2>&1 || true
    "$dhow" system teardown >/dev/null 2>&1 || true
    rm -rf --one-file-system "$work"
}
trap clean EXIT

mkdir -p "$work/image/bin"
cp "$(command -v busybox)" "$work/image/bin/busybox"
for applet in sh sleep cat nc wget httpd true; do ln -s busybox "$work/image/bin/$applet"; done
tar -C "$work/image" -cf "$work/image.tar" .
"$dhow" import "$work/image.tar" busybox >/dev/null

python3 - "$dhow" "$seconds" "$jobs" <<'SCRIPT'
import glob, json, os, subprocess, sys, threading, time

program, seconds, jobs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
root = os.environ["DHOW_ROOT"]
counts, failures, lock = {}, [], threading.Lock()


def call(*words, fine=()):
    done = subprocess.run([program, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    with lock:
        counts[words[0]] = counts.get(words[0], 0) + 1
        if done.returncode and done.returncode not in fine:
            failures.append(f"{' '.join(words)}: {done.returncode}: {done.stderr.strip()[:200]}")
    return done.stdout.strip()


def turn(number, index):
    """One container's life, in one of five ways."""
    name, way = f"c{number}", index % 5
    port = 20000 + number
    if way == 0:
        call("run", "--rm", "--name", name, "busybox", "sh", "-c", "echo hello")
        return
    extra = {1: ["-p", f"{port}:80"], 2: ["--network", "second"], 3: ["-v", f"v{number}:/v"], 4: ["--network", "none"]}[way]
    call("run", "-d", "--name", name, *extra, "busybox", "sh", "-c", "busybox httpd -p 80; sleep 1000")
    if way == 1:
        subprocess.run(["busybox", "wget", "-q", "-T", "2", "-O", "/dev/null", f"http://127.0.0.1:{port}/"], capture_output=True)
    call("exec", name, "sh", "-c", ": > /tmp-file; echo out")
    call("logs", name)
    call("stop", "-t", "0", name)
    if way == 2:
        call("start", name)
        call("kill", name)
    call("rm", "-f", "-v", name)
    if way == 3:
        call("volume", "rm", f"v{number}")


def output(*words):
    return subprocess.run(words, capture_output=True, text=True).stdout


def number_in(path, at=0):
    with open(path) as file:
        return int(file.read().split()[at])


def memory(key):
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key + ":"))


def parts():
    """Names of what this root has on the host: all carry its hash, which the control groups tell."""
    pid = call("inspect", "-f", "{{.State.Pid}}", "stays")
    for line in open(f"/proc/{pid}/cgroup"):
        for part in line.strip().split("/"):
            if part.startswith("dhow-"):
                return pid, part.removeprefix("dhow-")
    sys.exit("the container that stays is in no control group of ours")


def monitor(pid):
    """The monitor of the container that stays: its descriptors, and its private memory in KiB."""
    parent = next(line.split()[1] for line in open(f"/proc/{pid}/status") if line.startswith("PPid"))
    rollup = open(f"/proc/{parent}/smaps_rollup").read().splitlines()
    # Clean pages are those of the program.
    return len(os.listdir(f"/proc/{parent}/fd")), sum(int(line.split()[1]) for line in rollup if line.startswith("Private_Dirty"))


def elements(table):
    text = output("nft", "-j", "list", "table", "inet", table) or "{}"
    found = [entry.get("set") or entry.get("map") for entry in json.loads(text).get("nftables", [])]
    return sum(len(one.get("elem", [])) for one in found if one)


def own_processes():
    for path in glob.glob("/proc/[0-9]*"):
        try:
            if os.readlink(path + "/exe") == program and root in open(path + "/environ").read():
                yield path
        except OSError:
            pass


def held():
    """What is held, by name: of this root, and of the host with all that others have there."""
    subprocess.run(["sync"])
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")
    pid, own = parts()
    descriptors, private = monitor(pid)
    links = [line for line in output("ip", "-o", "link").splitlines() if f"dhow{own}" in line or f"dh{own}" in line]
    conntrack = "/proc/sys/net/netfilter/nf_conntrack_count"
    slabs = {line.split()[0]: int(line.split()[1]) for line in open("/proc/slabinfo").read().splitlines()[2:]}
    ours = {
        "files below the root": sum(len(names) + len(folders) for _, folders, names in os.walk(root)),
        "mounts": sum(root in line for line in open("/proc/self/mountinfo")),
        "control groups": sum(f"dhow-{own}" in path for path in glob.iglob("/sys/fs/cgroup/**/", recursive=True)),
        "network links": len(links),
        "nft elements": elements(f"dhow-{own}"),
        "processes": sum(1 for _ in own_processes()),
        "descriptors of the monitor that stays": descriptors,
        "KiB private to the monitor that stays": private,
    }
    host = {
        "open files": number_in("/proc/sys/fs/file-nr"),
        "tracked connections": number_in(conntrack) if os.path.exists(conntrack) else 0,
        "network namespaces in memory": slabs.get("net_namespace", 0),
        "process ids in memory": slabs.get("pid", 0),
        "mounts in memory": slabs.get("mnt_cache", 0),
        "KiB of unreclaimable slab": memory("SUnreclaim"),
    }
    return ours, host


# Journals of events and the index have files of their own; a page or two of the heap are as the last reader left them.
ALLOWED = {"files below the root": 4, "KiB private to the monitor that stays": 64}

call("network", "create", "second")
call("run", "-d", "--name", "stays", "-p", "19999:80", "busybox", "sh", "-c", "busybox httpd -p 80; sleep 1000000")
for index in range(10):
    turn(0, index)
before = held()
until, turns = time.monotonic() + seconds, [0] * jobs


def loop(number):
    while time.monotonic() < until:
        turn(number + 1, turns[number])
        turns[number] += 1


threads = [threading.Thread(target=loop, args=(number,)) for number in range(jobs)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
# What the kernel does behind the last removal.
time.sleep(5)
after = held()
print(f"{sum(turns)} lives in {seconds} s, {jobs} at a time: {sum(counts.values())} commands, {len(failures)} failed")
for failure in failures[:10]:
    print("  " + failure)
leaked = bool(failures)
for which, what in enumerate(["of this root", "of the host"]):
    for name, first in before[which].items():
        more = after[which][name] - first
        # Others use the host, too; what each life would leave there shows as that many.
        allowed = ALLOWED.get(name, 0) if which == 0 else max(2000, sum(turns) // 2) * (16 if "KiB" in name else 1)
        leaked |= more > allowed
        print(f"{what:13}{name:40}{first:9} {after[which][name]:9} {more:+7}{'  LEAKED' if more > allowed else ''}")
sys.exit(1 if leaked else 0)
SCRIPT
