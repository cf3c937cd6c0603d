#!/bin/bash
# `dhow runtime --systemd-cgroup`: control groups as units of the machine's systemd, or of the user's.
. /lab/cases.inc
[ -d /run/systemd/system ] || { check everything skip "no systemd: --profile apparmor, selinux or user"; finish; }
[ -e /sys/fs/cgroup/cgroup.controllers ] || { check everything skip "no control groups v2"; finish; }
work=$(mktemp -d)
chmod 755 "$work"
if [ "$(id -u)" = 0 ]; then
    state=/run/lab-systemd slice=system.slice manager=(systemctl)
else
    state=$XDG_RUNTIME_DIR/lab-systemd slice=user.slice manager=(systemctl --user)
fi
runtime() { dhow runtime --root "$state" --systemd-cgroup "$@"; }
# create ID: with descriptors that are not the test's, which would wait for their end.
create() { runtime create -b "$work/$1" "$@" </dev/null >"$work/$1.log" 2>&1 || { cat "$work/$1.log"; return 1; }; }
property() { "${manager[@]}" show -P "$1" "$2"; }
group_of() { echo "/sys/fs/cgroup$(property ControlGroup "$1")"; }
# gone UNIT: neither the unit nor a name of it that failed.
gone() { [ "$(property LoadState "$1")" = not-found ]; }
# limited ID RESOURCES COMMAND...: a bundle whose unit is lab-ID.scope.
limited() {
    local id=$1 resources=$2; shift 2
    bundle "$work/$id" "linux['cgroupsPath'] = '$slice:lab:$id'; linux['resources'] = $resources" "$@"
}

it_makes_a_scope_with_limits() {
    limited s1 '{"memory": {"limit": 33554432, "reservation": 16777216}, "pids": {"limit": 9}, "cpu": {"shares": 512, "quota": 50000, "period": 100000}}' sleep 100000
    create s1
    same unit active "$("${manager[@]}" is-active lab-s1.scope)"
    same MemoryMax 33554432 "$(property MemoryMax lab-s1.scope)"
    same MemoryLow 16777216 "$(property MemoryLow lab-s1.scope)"
    same TasksMax 9 "$(property TasksMax lab-s1.scope)"
    same CPUWeight 59 "$(property CPUWeight lab-s1.scope)"
    same CPUQuota 500ms "$(property CPUQuotaPerSecUSec lab-s1.scope)"
    same Delegate yes "$(property Delegate lab-s1.scope)"
    local group; group=$(group_of lab-s1.scope)
    same memory.max 33554432 "$(cat "$group/memory.max")"
    same pids.max 9 "$(cat "$group/pids.max")"
    same cpu.max "50000 100000" "$(cat "$group/cpu.max")"
    runtime start s1
    same "processes of the unit" "$(runtime state s1 | the_pid)" "$(cat "$group/cgroup.procs")"
}
it_has_every_controller() {
    [ "$(id -u)" = 0 ] || skip "a user's systemd hands down what it was given"
    # systemd knows none of hugetlb, rdma and misc.
    same controllers "$(cat /sys/fs/cgroup/cgroup.controllers)" "$(cat "$(group_of lab-s1.scope)/cgroup.controllers")"
}
exec_joins_the_unit() {
    same group "$(runtime exec s1 cat /proc/1/cgroup)" "$(runtime exec s1 cat /proc/self/cgroup)"
    runtime exec -d s1 sleep 100000 </dev/null >/dev/null 2>&1
    same "processes of the unit" 2 "$(wc -l <"$(group_of lab-s1.scope)/cgroup.procs")"
}
update_tells_systemd() {
    runtime update --pids-limit 11 --memory 67108864 --cpu-quota 20000 --cpu-period 100000 s1
    # A reload of systemd must not take the limits back.
    [ "$(id -u)" != 0 ] || "${manager[@]}" daemon-reload
    same TasksMax 11 "$(property TasksMax lab-s1.scope)"
    same MemoryMax 67108864 "$(property MemoryMax lab-s1.scope)"
    same CPUQuota 200ms "$(property CPUQuotaPerSecUSec lab-s1.scope)"
    local group; group=$(group_of lab-s1.scope)
    same pids.max 11 "$(cat "$group/pids.max")"
    same memory.max 67108864 "$(cat "$group/memory.max")"
    same cpu.max "20000 100000" "$(cat "$group/cpu.max")"
    # The period alone is no end of the quota, and what systemd rounds is rounded in the file, where it would write it later.
    runtime update --cpu-period 90000 s1
    same CPUQuota 230ms "$(property CPUQuotaPerSecUSec lab-s1.scope)"
    same cpu.max "20700 90000" "$(cat "$group/cpu.max")"
}
it_pauses() {
    runtime pause s1
    same frozen 1 "$(cat "$(group_of lab-s1.scope)/cgroup.freeze")"
    same status paused "$(runtime state s1 | the_status)"
    runtime resume s1
    has "$(runtime events --stats s1)" '"pids"'
}
a_second_one_of_the_name_is_refused() {
    bundle "$work/s2" "linux['cgroupsPath'] = '$slice:lab:s1'" sleep 100000
    local out
    if out=$(create s2); then echo "two containers have one unit"; return 1; fi
    has "$out" "container's cgroup is not empty"
    # That does the first no harm.
    same unit active "$("${manager[@]}" is-active lab-s1.scope)"
    same status running "$(runtime state s1 | the_status)"
}
a_frozen_group_is_refused() {
    [ "$(id -u)" = 0 ] || skip "a user's groups are elsewhere"
    local group=/sys/fs/cgroup/system.slice/lab-s9.scope out
    mkdir "$group"; echo 1 >"$group/cgroup.freeze"
    bundle "$work/s9" "linux['cgroupsPath'] = '$slice:lab:s9'" sleep 100000
    if out=$(create s9); then echo "a container in a frozen group"; return 1; fi
    rmdir "$group"
    has "$out" "container's cgroup unexpectedly frozen"
}
kill_and_delete_leave_nothing() {
    local group; group=$(group_of lab-s1.scope)
    runtime kill s1 KILL
    soon runtime delete s1 2>/dev/null
    [ ! -e "$group" ]
    soon gone lab-s1.scope
}
delete_by_force_leaves_nothing() {
    limited s3 '{"pids": {"limit": 20}}' sh -c 'sleep 100000 & sleep 100000 & wait'
    create s3; runtime start s3
    local group; group=$(group_of lab-s3.scope)
    runtime delete --force s3
    [ ! -e "$group" ]
    soon gone lab-s3.scope
}
one_go_leaves_nothing() {
    limited s4 '{"pids": {"limit": 20}}' sh -c 'cat /proc/self/cgroup; echo ran; exit 7'
    local code=0 out; out=$(runtime run -b "$work/s4" s4) || code=$?
    same status 7 "$code"; has "$out" ran
    soon gone lab-s4.scope
}
a_failed_start_leaves_nothing() {
    limited s5 '{}' /not/there
    if runtime run -b "$work/s5" s5 2>/dev/null; then echo "a program that is not there ran"; return 1; fi
    soon gone lab-s5.scope
    # What the kernel refuses after systemd made the unit.
    limited s5 '{"unified": {"no.such.file": "1"}}' true
    if create s5; then echo "an unknown file was passed over"; return 1; fi
    soon gone lab-s5.scope
    if runtime state s5 2>/dev/null; then echo "a container that failed is there"; return 1; fi
}
one_that_ended_is_deleted() {
    limited s6 '{}' true
    create s6; runtime start s6
    soon gone lab-s6.scope
    runtime delete s6
}
a_nested_slice_is_made() {
    bundle "$work/s7" "linux['cgroupsPath'] = 'lab-inner.slice:lab:s7'" sleep 100000
    create s7
    has "$(group_of lab-s7.scope)" lab.slice/lab-inner.slice/lab-s7.scope
    runtime delete --force s7
    soon gone lab-s7.scope
}
annotations_are_properties() {
    bundle "$work/s8" "linux['cgroupsPath'] = '$slice:lab:s8'; spec['annotations'] = {'org.systemd.property.TimeoutStopSec': 'uint64 7', 'org.systemd.property.Description': \"'of the lab'\"}" sleep 100000
    create s8
    same TimeoutStop 7s "$(property TimeoutStopUSec lab-s8.scope)"
    same Description "of the lab" "$(property Description lab-s8.scope)"
    runtime delete --force s8
}
the_memory_limit_holds() {
    limited s9 '{"memory": {"limit": 16777216, "swap": 16777216}}' sh -c 'x=$(busybox head -c 60000000 /dev/zero | busybox tr "\0" x); echo survived'
    local out; out=$(runtime run -b "$work/s9" s9 2>&1 || true)
    case $out in *survived*) echo "60 MB in a group of 16 MB"; return 1 ;; esac
    soon gone lab-s9.scope
}
devices_stay_after_a_reload() {
    [ "$(id -u)" = 0 ] || skip "a user's container can make no devices"
    bundle "$work/s10" "linux['cgroupsPath'] = '$slice:lab:s10'; linux['resources'] = {'devices': [{'allow': False, 'access': 'rwm'}]}
process['capabilities'] = {key: ['CAP_MKNOD'] for key in ('bounding', 'effective', 'permitted')}" \
        sh -c 'busybox mknod /tmp/disk b 254 0; while [ ! -e /tmp/go ]; do sleep 0.1; done; head -c 1 /tmp/disk; head -c 1 /dev/zero >/dev/null && echo zero >/tmp/result; while :; do sleep 1; done'
    create s10; runtime start s10
    systemctl daemon-reload
    # An update, too, has systemd write its own filter again.
    runtime update --pids-limit 50 s10
    touch "$work/s10/rootfs/tmp/go"
    soon test -s "$work/s10/rootfs/tmp/result"
    has "$(cat "$work/s10.log")" "Operation not permitted"
    runtime delete --force s10
}
a_path_is_refused() {
    bundle "$work/s11" "linux['cgroupsPath'] = '/lab/s11'" true
    local out
    if out=$(runtime run -b "$work/s11" s11 2>&1); then echo "a path was taken for a unit"; return 1; fi
    has "$out" slice:prefix:name
}
no_unit_is_left() {
    same units "" "$("${manager[@]}" list-units --all --plain --no-legend 'lab-*.scope')"
}

for case in it_makes_a_scope_with_limits it_has_every_controller exec_joins_the_unit update_tells_systemd it_pauses a_second_one_of_the_name_is_refused a_frozen_group_is_refused \
    kill_and_delete_leave_nothing delete_by_force_leaves_nothing one_go_leaves_nothing a_failed_start_leaves_nothing \
    one_that_ended_is_deleted a_nested_slice_is_made annotations_are_properties the_memory_limit_holds \
    devices_stay_after_a_reload a_path_is_refused no_unit_is_left; do check "$case" "$case"; done
rm -rf "$work"
finish
