#!/bin/bash
# `dhow runtime` on bundles: control groups by files, profiles and labels, the life of a container.
. /lab/cases.inc
[ "$(id -u)" = 0 ] || { check everything skip "needs root"; finish; }
dhow runtime --version >/dev/null 2>&1 || { check everything skip "this binary has no runtime verb"; finish; }

runtime() { dhow runtime --root /run/lab-runtime "$@"; }
it_runs() { bundle /tmp/b1 '' echo hello; same output hello "$(runtime run -b /tmp/b1 c1)"; }
limits_are_set() {
    [ -e /sys/fs/cgroup/cgroup.controllers ] || skip "no control groups v2"
    bundle /tmp/b2 'linux["cgroupsPath"] = "/lab/c2"; linux["resources"] = {"memory": {"limit": 33554432}, "pids": {"limit": 9}, "cpu": {"shares": 512}}' sleep 100000
    runtime create -b /tmp/b2 c2 </dev/null >/dev/null 2>&1
    same memory.max 33554432 "$(cat /sys/fs/cgroup/lab/c2/memory.max)"
    same pids.max 9 "$(cat /sys/fs/cgroup/lab/c2/pids.max)"
    runtime start c2
    same status running "$(runtime state c2 | the_status)"
    runtime update --memory 67108864 c2
    same "memory.max after update" 67108864 "$(cat /sys/fs/cgroup/lab/c2/memory.max)"
    # Zero is a limit, written as one; what is below zero lifts it.
    runtime update --pids-limit 0 c2; same "pids.max of 0" 1 "$(cat /sys/fs/cgroup/lab/c2/pids.max)"
    runtime update --pids-limit -1 c2; same "pids.max of -1" max "$(cat /sys/fs/cgroup/lab/c2/pids.max)"
    runtime pause c2; same frozen 1 "$(cat /sys/fs/cgroup/lab/c2/cgroup.freeze)"; runtime resume c2
    has "$(runtime exec c2 cat /proc/self/cgroup)" 0::
    runtime delete --force c2
    [ ! -e /sys/fs/cgroup/lab/c2 ]
}
unified_keys_are_written() {
    [ -e /sys/fs/cgroup/cgroup.controllers ] || skip "no control groups v2"
    bundle /tmp/b3 'linux["cgroupsPath"] = "/lab/c3"; linux["resources"] = {"unified": {"memory.high": "16777216", "pids.max": "7"}}' sleep 100000
    runtime create -b /tmp/b3 c3 </dev/null >/dev/null 2>&1
    same memory.high 16777216 "$(cat /sys/fs/cgroup/lab/c3/memory.high)"
    same pids.max 7 "$(cat /sys/fs/cgroup/lab/c3/pids.max)"
    runtime delete --force c3
}
limits_are_cruns_by_its_name() {
    [ -e /sys/fs/cgroup/cgroup.controllers ] || skip "no control groups v2"
    local out as_crun=(/tmp/as/crun --root /run/lab-crun)
    mkdir -p /tmp/as; cp "$(command -v dhow)" /tmp/as/crun
    bundle /tmp/b5 'linux["cgroupsPath"] = "/lab/c5"; linux["resources"] = {"memory": {"swap": 0}}' cat /sys/fs/cgroup/memory.swap.max
    same "swap of 0" 0 "$("${as_crun[@]}" run -b /tmp/b5 c5)"
    same "swap of 0 as runc" max "$(runtime run -b /tmp/b5 c5)"
    bundle /tmp/b5 'linux["resources"] = {"unified": {"foo.bar": "1"}}' true
    if out=$("${as_crun[@]}" run -b /tmp/b5 c5 2>&1); then return 1; fi
    has "$out" 'the requested cgroup controller `foo` is not available'
    bundle /tmp/b5 'linux["resources"] = {"unified": {"NO-KEY": "1"}}' true
    if out=$("${as_crun[@]}" run -b /tmp/b5 c5 2>&1); then return 1; fi
    has "$out" 'the specified key has not the form CONTROLLER.VALUE `NO-KEY`'
}
exec_goes_where_the_container_made_room() {
    [ -e /sys/fs/cgroup/cgroup.controllers ] || skip "no control groups v2"
    bundle /tmp/b9 'linux["cgroupsPath"] = "/lab/c9"' sleep 100000
    runtime create -b /tmp/b9 c9 </dev/null >/dev/null 2>&1; runtime start c9
    local group=/sys/fs/cgroup/lab/c9
    mkdir "$group/below"
    echo "$(runtime state c9 | the_pid)" >"$group/below/cgroup.procs"
    same "group of exec" 0::/ "$(runtime exec c9 cat /proc/self/cgroup)"
    # With a controller for what is below, the kernel lets nobody into the container's own group any more.
    echo +memory >"$group/cgroup.subtree_control"
    same "group of exec" 0::/below "$(runtime exec c9 cat /proc/self/cgroup)"
    # Who says which group means that one.
    local out
    if out=$(runtime exec --cgroup / c9 true 2>&1); then echo "another group than the one asked for"; return 1; fi
    has "$out" "to cgroups"; has "$out" "$group/cgroup.procs: device or resource busy"
    same "group of exec" 0::/below "$(runtime exec --cgroup below c9 cat /proc/self/cgroup)"
    runtime delete --force c9
    [ ! -e "$group" ]
}
groups_belong_to_who_may_write_them() {
    [ -e /sys/fs/cgroup/cgroup.controllers ] || skip "no control groups v2"
    local users='linux["cgroupsPath"] = "/lab/c10"; linux["namespaces"] += [{"type": "user"}]; linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]'
    local writable='next(m for m in spec["mounts"] if m["destination"] == "/sys/fs/cgroup")["options"].remove("ro")'
    local owners=(busybox stat -c %u /sys/fs/cgroup /sys/fs/cgroup/cgroup.procs)
    for change in "$users" "$users; $writable; linux['namespaces'] = [n for n in linux['namespaces'] if n['type'] != 'cgroup']"; do
        bundle /tmp/b10 "$change" "${owners[@]}"; chown 100000 /tmp/b10 /tmp/b10/rootfs
        same "owners of the group and its processes" "65534 65534" "$(runtime run -b /tmp/b10 c10 | xargs)"
    done
    # What limits the container stays with the host.
    bundle /tmp/b10 "$users; $writable" "${owners[@]}" /sys/fs/cgroup/pids.max; chown 100000 /tmp/b10 /tmp/b10/rootfs
    same "owners of the group, its processes and a limit" "0 0 65534" "$(runtime run -b /tmp/b10 c10 | xargs)"
}
options_of_the_groups_mount_reach_the_kernel() {
    [ -e /sys/fs/cgroup/cgroup.controllers ] || skip "no control groups v2"
    local out change='next(m for m in spec["mounts"] if m["destination"] == "/sys/fs/cgroup")["options"].append'
    bundle /tmp/b4 "$change('nsdelegate')" cat /sys/fs/cgroup/cgroup.procs
    same processes 1 "$(runtime run -b /tmp/b4 c4)"
    bundle /tmp/b4 "$change('no_such_option')" true
    if out=$(runtime run -b /tmp/b4 c4b 2>&1); then echo "an unknown option was passed over"; return 1; fi
    has "$out" "invalid argument"; has "$out" /sys/fs/cgroup
}
a_device_is_refused() {
    bundle /tmp/b6 'linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}; process["capabilities"] = {key: ["CAP_MKNOD"] for key in ("bounding", "effective", "permitted")}' \
        sh -c 'busybox mknod /tmp/disk b 254 0; head -c 1 /tmp/disk; head -c 1 /dev/zero > /dev/null && echo zero'
    local out; out=$(runtime run -b /tmp/b6 c6 2>&1)
    has "$out" "not permitted"; has "$out" zero
}
an_apparmor_profile_is_applied() {
    [ -e /sys/kernel/security/apparmor/profiles ] || skip "no AppArmor"
    printf 'profile lab-test flags=(attach_disconnected) {\n  file,\n  capability,\n  deny /tmp/secret rw,\n}\n' | apparmor_parser -r
    bundle /tmp/b7 'process["apparmorProfile"] = "lab-test"' sh -c 'cat /proc/self/attr/current; echo x > /tmp/secret'
    local out; out=$(runtime run -b /tmp/b7 c7 2>&1 || true)
    has "$out" "lab-test (enforce)"; has "$out" "Permission denied"
    bundle /tmp/b7 'process["apparmorProfile"] = "not-loaded"' true
    if out=$(runtime run -b /tmp/b7 c7b 2>&1); then echo "a profile that is not loaded was passed over"; return 1; fi
    has "$out" not-loaded
}
selinux_labels_are_applied() {
    [ -e /sys/fs/selinux/enforce ] || skip "no SELinux"
    same enforcing 1 "$(cat /sys/fs/selinux/enforce)"
    local label='system_u:system_r:container_t:s0:c1,c2' files='system_u:object_r:container_file_t:s0:c1,c2' out
    bundle /tmp/b8 "process['selinuxLabel'] = '$label'; linux['mountLabel'] = '$files'" \
        sh -c 'cat /proc/self/attr/current; echo; ls -Zd /dev/shm; cat /etc/host-file; echo kept > /dev/shm/file && cat /dev/shm/file'
    echo secret > /tmp/b8/rootfs/etc/host-file
    chcon -R "$files" /tmp/b8/rootfs
    chcon system_u:object_r:shadow_t:s0 /tmp/b8/rootfs/etc/host-file
    out=$(runtime run -b /tmp/b8 c8 2>&1 || true)
    has "$out" "$label"; has "$out" "Permission denied"; has "$out" kept
    case $out in *secret*) echo "the file of the host was read"; return 1 ;; esac
    bundle /tmp/b8 "process['selinuxLabel'] = 'no:such:label:s0'" true
    if out=$(runtime run -b /tmp/b8 c8b 2>&1); then echo "an invalid label was passed over"; return 1; fi
}
labels_go_with_a_user_namespace_that_is_joined() {
    [ -e /sys/fs/selinux/enforce ] || skip "no SELinux"
    local files='system_u:object_r:container_file_t:s0:c1,c2' ids pid out
    ids='[{"containerID": 0, "hostID": 100000, "size": 65536}]'
    bundle /tmp/b11 "linux['namespaces'] += [{'type': 'user'}]; linux['uidMappings'] = linux['gidMappings'] = $ids" sleep 100
    chown 100000:100000 /tmp/b11 /tmp/b11/rootfs
    runtime run -d -b /tmp/b11 c11 </dev/null >/dev/null 2>&1
    pid=$(runtime state c11 | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])')
    bundle /tmp/b12 "linux['namespaces'] += [{'type': 'user', 'path': '/proc/$pid/ns/user'}]; linux['mountLabel'] = '$files'" \
        sh -c 'cat /proc/self/uid_map; grep " /dev/shm " /proc/mounts; ls -d /dev/mqueue'
    chown 100000:100000 /tmp/b12 /tmp/b12/rootfs
    out=$(runtime run -b /tmp/b12 c12 2>&1)
    has "$out" 100000; has "$out" "$files"; has "$out" /dev/mqueue
    runtime delete --force c11
}

for case in it_runs limits_are_set limits_are_cruns_by_its_name unified_keys_are_written groups_belong_to_who_may_write_them options_of_the_groups_mount_reach_the_kernel \
    exec_goes_where_the_container_made_room a_device_is_refused \
    an_apparmor_profile_is_applied selinux_labels_are_applied labels_go_with_a_user_namespace_that_is_joined; do check "$case" "$case"; done
finish
