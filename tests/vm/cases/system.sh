#!/bin/bash
# System containers: a Debian whose first program is its own systemd runs as on a machine, for root and for a normal user.
# image: systemd systemd-sysv dbus libpam-systemd
. /lab/cases.inc
[ -e /sys/fs/cgroup/cgroup.controllers ] || { check everything skip "no control groups v2"; finish; }
# Seconds: emulation, and perhaps a busy machine.
patience=240

# inside COMMAND...: in the container, beside its systemd.
inside() { timeout "$patience" dhow exec sys "$@"; }
up() {
    dhow start sys >/dev/null
    # Before its systemd has made its socket there is nobody to wait at.
    for ((tries = 0; tries < patience; tries++)); do
        inside test -S /run/systemd/private && break
        [ "$(dhow inspect -f '{{.State.Running}}' sys)" = true ] || { echo "it ended: $(dhow logs sys 2>&1 | tail -20)"; return 1; }
        sleep 1
    done
    inside systemctl is-system-running --wait || { inside systemctl --failed --plain; inside journalctl -b -p warning --no-pager | tail -30; return 1; }
}

it_comes_up() {
    dhow load -i /lab/images/system.tar >/dev/null
    dhow create --name sys --network none lab:system /sbin/init >/dev/null
    same state running "$(up)"
}
it_is_the_first_process() { same "first process" systemd "$(inside cat /proc/1/comm)"; }
it_knows_that_it_is_a_container() { local out; out=$(inside systemd-detect-virt --container); [ "$out" != none ]; }
its_id_is_the_containers() {
    local id; id=$(dhow inspect -f '{{.Id}}' sys)
    same machine-id "${id:0:32}" "$(inside cat /etc/machine-id)"
}
what_it_needs_is_in_memory() {
    local place
    for place in /run /run/lock /tmp /var/log/journal; do same "$place" tmpfs "$(inside findmnt -n -o FSTYPE "$place")"; done
}
a_service_starts() {
    inside sh -c 'printf "[Service]\nExecStart=/bin/sleep 100000\n[Install]\nWantedBy=multi-user.target\n" >/etc/systemd/system/probe.service'
    inside systemctl daemon-reload
    inside systemctl enable --now probe
    same state active "$(inside systemctl is-active probe)"
}
its_groups_are_its_own() {
    # Seen from inside: units have groups, and controllers of their own; the host's groups are out of sight.
    has "$(inside cat /sys/fs/cgroup/cgroup.controllers)" memory
    inside test -e /sys/fs/cgroup/system.slice/probe.service/pids.max
    inside systemctl set-property --runtime probe MemoryMax=48M
    same limit 50331648 "$(inside cat /sys/fs/cgroup/system.slice/probe.service/memory.max)"
    inside test ! -e /sys/fs/cgroup/dhow-lab.service
}
it_is_limited_as_a_whole() {
    dhow update -m 512m sys >/dev/null
    # Its own limit is out of its reach: that file belongs to whoever gave the group away.
    if inside sh -c 'echo max >/sys/fs/cgroup/memory.max' 2>/dev/null; then echo "a container lifted its own limit"; return 1; fi
    same limit 536870912 "$(inside cat /sys/fs/cgroup/memory.max)"
}
its_journal_is_read() {
    inside systemd-run --quiet --wait --unit told sh -c 'echo word from a unit'
    same journal "word from a unit" "$(inside journalctl --no-pager -o cat -u told _COMM=sh)"
    has "$(inside journalctl --no-pager -b)" "Started probe.service"
}
exec_joins_no_unit() {
    # Groups with groups below them hold no processes: who is entered is in one of them.
    has "$(inside cat /proc/self/cgroup)" 0::/
    has "$(dhow top sys)" systemd-journal
}
it_shuts_down_in_order() {
    inside sh -c 'printf "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/bin/sh -c \"echo yes >/etc/shut-down\"\n" >/etc/systemd/system/last.service'
    inside systemctl start last
    local began=$SECONDS
    dhow stop -t "$patience" sys >/dev/null
    echo "stopped after $((SECONDS - began)) s"
    same "exit code" 0 "$(dhow inspect -f '{{.State.ExitCode}}' sys)"
    dhow cp sys:/etc/shut-down - | tar -xO | grep -q yes
}
it_comes_up_again() {
    same state running "$(up)"
    same service active "$(inside systemctl is-active probe)"
}
its_own_poweroff_ends_it() {
    inside systemctl poweroff --no-block
    same "exit code" 0 "$(timeout "$patience" dhow wait sys)"
}
nothing_is_left() {
    dhow rm sys >/dev/null
    same groups "" "$(find /sys/fs/cgroup -type d -path '*dhow*' -name 'init.scope')"
}

for case in it_comes_up it_is_the_first_process it_knows_that_it_is_a_container its_id_is_the_containers \
    what_it_needs_is_in_memory a_service_starts its_groups_are_its_own it_is_limited_as_a_whole its_journal_is_read \
    exec_joins_no_unit it_shuts_down_in_order it_comes_up_again its_own_poweroff_ends_it nothing_is_left; do
    check "$case" "$case"
done
finish
