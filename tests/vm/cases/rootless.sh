#!/bin/bash
# `dhow runtime` as a normal user: user namespace by newuidmap, a delegated control group by systemd.
. /lab/cases.inc
[ "$(id -u)" != 0 ] || { check everything skip "needs a normal user: --profile user"; finish; }
dhow runtime --version >/dev/null 2>&1 || { check everything skip "this binary has no runtime verb"; finish; }
work=$(mktemp -d)
chmod 755 "$work"
group=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)

runtime() { dhow runtime --root "$XDG_RUNTIME_DIR/lab" "$@"; }
ranges='linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 1000, "size": 1}, {"containerID": 1, "hostID": 100000, "size": 65536}]'

the_group_is_delegated() { has "$(cat "$group/cgroup.controllers")" pids; [ -w "$group/cgroup.procs" ]; }
it_runs_as_root_inside() { bundle "$work/b1" '' id -u; same uid 0 "$(runtime run -b "$work/b1" r1)"; }
it_has_a_range_of_ids() {
    bundle "$work/b2" "$ranges; process['capabilities'] = {key: ['CAP_CHOWN'] for key in ('bounding', 'effective', 'permitted')}" sh -c 'cat /proc/self/uid_map; touch /tmp/f && busybox chown 7:7 /tmp/f && busybox stat -c %u /tmp/f'
    local out; out=$(runtime run -b "$work/b2" r2)
    has "$out" 100000; same owner 7 "$(tail -1 <<<"$out")"
}
ids_of_others_are_refused() {
    bundle "$work/b3" 'linux["uidMappings"] = [{"containerID": 0, "hostID": 0, "size": 1}]' true
    local out
    if out=$(runtime run -b "$work/b3" r3 2>&1); then echo "id 0 of the host was mapped"; return 1; fi
}
files_limit_it() {
    # Beside the group of this service, since one with processes can have no controllers below it.
    local below; below=$(dirname "$group")/lab-r4
    bundle "$work/b4" 'linux["cgroupsPath"] = "lab-r4"; linux["resources"] = {"pids": {"limit": 9}, "memory": {"limit": 33554432}}' sleep 100000
    runtime create -b "$work/b4" r4 </dev/null >/dev/null 2>&1
    same pids.max 9 "$(cat "$below/pids.max")"
    same memory.max 33554432 "$(cat "$below/memory.max")"
    runtime update --pids-limit 11 r4
    same "pids.max after update" 11 "$(cat "$below/pids.max")"
    runtime start r4
    runtime pause r4; same frozen 1 "$(cat "$below/cgroup.freeze")"; runtime resume r4
    runtime delete --force r4
    [ ! -e "$below" ]
}
a_group_of_others_is_refused() {
    bundle "$work/b6" 'linux["cgroupsPath"] = "/system.slice/lab-r6"; linux["resources"] = {"pids": {"limit": 9}}' true
    local out
    if out=$(runtime run -b "$work/b6" r6 2>&1); then echo "a limit that could not be set was passed over"; return 1; fi
    [ ! -e /sys/fs/cgroup/system.slice/lab-r6 ]
}
it_lives_and_ends() {
    bundle "$work/b5" '' sleep 100000
    runtime create -b "$work/b5" r5 </dev/null >/dev/null 2>&1
    runtime start r5
    same uid 0 "$(runtime exec r5 id -u)"
    runtime kill r5 KILL
    for _ in 1 2 3 4 5 6 7 8 9 10; do runtime delete r5 2>/dev/null && return 0; sleep 0.5; done
    runtime delete r5
}

for case in the_group_is_delegated it_runs_as_root_inside it_has_a_range_of_ids ids_of_others_are_refused \
    files_limit_it a_group_of_others_is_refused \
    it_lives_and_ends; do check "$case" "$case"; done
rm -rf "$work" 2>/dev/null
finish
