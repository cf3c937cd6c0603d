#!/bin/bash
# `dhow run` on this machine: limits, a security module's label, network; as root and as a normal user.
. /lab/cases.inc
work=$(mktemp -d)

image() {
    busybox_root "$work/image"
    tar -C "$work/image" -cf - . | dhow import - busybox >/dev/null
}
it_is_the_users_own() {
    [ "$(id -u)" != 0 ] || skip "it is root's"
    dhow run -d --name mine busybox sleep 100000 >/dev/null
    local pid; pid=$(dhow inspect -f '{{.State.Pid}}' mine)
    same "user outside" "$(id -u)" "$(awk '/^Uid:/ {print $2}' "/proc/$pid/status")"
    same "user inside" 0 "$(dhow exec mine busybox id -u)"
    # Root's group stays out of its reach, and so does every other process of the host.
    has "$(cat "/proc/$pid/cgroup")" "user@$(id -u).service/"
    dhow rm -f mine >/dev/null
    dhow run -d --name other -u 1000 busybox sleep 100000 >/dev/null
    pid=$(dhow inspect -f '{{.State.Pid}}' other)
    same "another user outside" 100999 "$(awk '/^Uid:/ {print $2}' "/proc/$pid/status")"
    dhow rm -f other >/dev/null
}

it_runs() { same output hello "$(dhow run --rm busybox echo hello)"; }
its_status() { code=0; dhow run --rm busybox sh -c 'exit 7' || code=$?; same status 7 "$code"; }
memory_is_limited() {
    local limit
    limit=$(dhow run --rm -m 32m busybox sh -c 'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null | head -1')
    same limit 33554432 "$limit"
}
processes_are_limited() {
    local out
    out=$(dhow run --rm --pids-limit 5 busybox sh -c 'for i in 1 2 3 4 5 6 7 8; do sleep 2 & done; wait' 2>&1 || true)
    has "$out" "can't fork"
}
cpu_is_limited() {
    [ -e /sys/fs/cgroup/cgroup.controllers ] || skip "no control groups v2"
    same cpu.max "50000 100000" "$(dhow run --rm --cpus 0.5 busybox cat /sys/fs/cgroup/cpu.max)"
}
a_device_is_refused() {
    [ "$(id -u)" = 0 ] || skip "a user makes no devices"
    # The device filter: a node made by hand may not be opened (8:0 is no device of a container).
    local out
    out=$(dhow run --rm --cap-add MKNOD busybox sh -c 'busybox mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk' 2>&1 || true)
    has "$out" "Operation not permitted"
    dhow run --rm busybox sh -c 'head -c 1 /dev/zero >/dev/null && echo > /dev/null'
}
pause_stops_it() {
    dhow run -d --name paused busybox sleep 100000 >/dev/null
    dhow pause paused >/dev/null
    same state paused "$(dhow inspect -f '{{.State.Status}}' paused)"
    dhow unpause paused >/dev/null
    dhow rm -f paused >/dev/null
}
exec_joins_the_group() {
    dhow run -d --name joined busybox sleep 100000 >/dev/null
    local first second
    first=$(dhow exec joined cat /proc/1/cgroup); second=$(dhow exec joined cat /proc/self/cgroup)
    dhow rm -f joined >/dev/null
    same group "$first" "$second"
}
an_end_leaves_no_group() {
    local before after
    before=$(find /sys/fs/cgroup -type d -path '*dhow*' | sort)
    dhow run --rm busybox true
    after=$(find /sys/fs/cgroup -type d -path '*dhow*' | sort)
    same groups "$before" "$after"
}
stats_have_numbers() {
    dhow run -d --name counted busybox sleep 100000 >/dev/null
    local out; out=$(dhow stats --no-stream counted)
    dhow rm -f counted >/dev/null
    has "$out" counted
}
containers_see_each_other() {
    dhow run -d --name server busybox sh -c 'echo hi > /tmp/index.html; busybox httpd -f -p 80 -h /tmp' >/dev/null
    local address; address=$(dhow inspect -f '{{.NetworkSettings.IPAddress}}' server)
    local out; out=$(dhow run --rm busybox sh -c "sleep 1; busybox wget -q -O - http://$address/") || { dhow rm -f server; return 1; }
    dhow rm -f server >/dev/null
    same page hi "$out"
}
a_port_is_published() {
    dhow run -d --name web -p 127.0.0.1:8088:80 busybox sh -c 'echo hi > /tmp/index.html; exec busybox httpd -f -p 80 -h /tmp' >/dev/null
    local page=; for _ in 1 2 3 4 5 6 7 8 9 10; do page=$(busybox wget -q -O - http://127.0.0.1:8088/ 2>/dev/null) && break; sleep 1; done
    dhow rm -f web >/dev/null
    same page hi "$page"
}
the_profile_is_applied() {
    [ -e /sys/kernel/security/apparmor/profiles ] || skip "no AppArmor"
    local out; out=$(dhow run --rm busybox cat /proc/self/attr/current)
    # A normal user loads none.
    [ "$(id -u)" = 0 ] || { same profile unconfined "$out"; return; }
    case $out in *'(enforce)'*) ;; *) echo "the program runs as: $out"; return 1 ;; esac
    # But what root loaded is there for everybody. The small image has no newuidmap for them.
    command -v newuidmap >/dev/null || return 0
    mkdir -p /run/user-of-lab && chown lab /run/user-of-lab
    as_lab() { runuser -u lab -- env -C / HOME=/home/lab XDG_RUNTIME_DIR=/run/user-of-lab "$@"; }
    tar -C "$work/image" -cf - . | as_lab dhow import - busybox >/dev/null
    same "profile of a user's container" "$out" "$(as_lab dhow run --rm --network none busybox cat /proc/self/attr/current)"
}
the_label_is_applied() {
    [ -e /sys/fs/selinux/enforce ] || skip "no SELinux"
    local out; out=$(dhow run --rm --security-opt label=type:container_t busybox cat /proc/self/attr/current | tr -d '\0')
    has "$out" ":container_t:"
}

check image image
check it_is_the_users_own it_is_the_users_own
check it_runs it_runs
check its_status its_status
check memory_is_limited memory_is_limited
check processes_are_limited processes_are_limited
check cpu_is_limited cpu_is_limited
check a_device_is_refused a_device_is_refused
check pause_stops_it pause_stops_it
check exec_joins_the_group exec_joins_the_group
check an_end_leaves_no_group an_end_leaves_no_group
check stats_have_numbers stats_have_numbers
check containers_see_each_other containers_see_each_other
check a_port_is_published a_port_is_published
check the_profile_is_applied the_profile_is_applied
check the_label_is_applied the_label_is_applied
rm -rf "$work"
finish
