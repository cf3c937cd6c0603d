#!/bin/bash
# Podman with Dhow as its runtime, and systemd for control groups where it runs.
. /lab/cases.inc
command -v podman >/dev/null || { check everything skip "podman is not installed"; finish; }
dhow runtime --version >/dev/null 2>&1 || { check everything skip "this binary has no runtime verb"; finish; }
# Podman wants a program without arguments, so it gets the binary by runc's name.
tools=$(mktemp -d)
chmod 755 "$tools"
ln -s "$(command -v dhow)" "$tools/runc"
manager=cgroupfs
if [ -d /run/systemd/system ] && [ -e /sys/fs/cgroup/cgroup.controllers ]; then manager=systemd; fi
podman_with() { podman --runtime "$tools/runc" --cgroup-manager "$manager" --events-backend file "$@"; }

image() { busybox_root "$tools/image"; tar -C "$tools/image" -cf - . | podman_with import - localhost/busybox >/dev/null 2>&1; }
it_runs() { same output hello "$(podman_with run --rm --network none localhost/busybox echo hello)"; }
its_status() { code=0; podman_with run --rm --network none localhost/busybox sh -c 'exit 7' || code=$?; same status 7 "$code"; }
it_is_limited() {
    [ -e /sys/fs/cgroup/cgroup.controllers ] || skip "no control groups v2"
    same limit 33554432 "$(podman_with run --rm --network none -m 32m localhost/busybox cat /sys/fs/cgroup/memory.max)"
}
it_execs_and_stops() {
    podman_with run -d --name long --network none localhost/busybox sh -c 'trap "exit 0" TERM; while :; do sleep 0.2; done' >/dev/null
    local out; out=$(podman_with exec long echo inside)
    podman_with stop -t 20 long >/dev/null
    podman_with rm -f long >/dev/null
    same output inside "$out"
}
it_pauses() {
    podman_with run -d --name still --network none localhost/busybox sleep 100000 >/dev/null
    podman_with pause still >/dev/null
    local state; state=$(podman_with inspect -f '{{.State.Status}}' still)
    podman_with unpause still >/dev/null
    podman_with rm -f -t 0 still >/dev/null
    same state paused "$state"
}

for case in image it_runs its_status it_is_limited it_execs_and_stops it_pauses; do check "$case" "$case"; done
finish
