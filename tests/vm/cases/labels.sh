#!/bin/bash
# What SELinux keeps a container of `dhow run` from, and what it lets it do. As root, enforcing.
. /lab/cases.inc
[ "$(id -u)" = 0 ] || { check everything skip "needs root"; finish; }
[ "$(cat /sys/fs/selinux/enforce 2>/dev/null)" = 1 ] || { check everything skip "no enforcing SELinux"; finish; }

# label PATH: its type and level.
label() { python3 -I -S -c 'import os, sys; print(os.getxattr(sys.argv[1], "security.selinux").decode().strip("\0").split(":", 2)[2])' "$1"; }
layers() { echo /var/lib/dhow/layers/*/*/fs; }
# denied OUTPUT: it is the kernel's refusal of a path that is there.
denied() { has "$1" "Permission denied"; }

image() {
    busybox_root /tmp/image
    tar -C /tmp/image -cf - . | dhow import - busybox >/dev/null
}
new_layers_are_for_containers_to_read() {
    local path
    for path in /var/lib/dhow/layers $(layers) "$(layers)/bin/busybox"; do
        same "label of $path" container_ro_file_t:s0 "$(label "$path")"
    done
}
a_program_of_a_layer_runs() { same output hello "$(dhow run --rm busybox echo hello)"; }
a_layer_from_before_runs() {
    chcon -R -t var_lib_t /var/lib/dhow/layers
    same output hello "$(dhow run --rm busybox echo hello)"
    same label container_ro_file_t:s0 "$(label "$(layers)/bin/busybox")"
}
a_layer_cannot_be_written() {
    local out
    out=$(dhow run --rm -v "$(layers):/layer" busybox sh -c 'echo bad >>/layer/bin/busybox' 2>&1) && return 1
    denied "$out"
    cmp /tmp/image/bin/busybox "$(layers)/bin/busybox"
}
what_it_writes_is_its_own() {
    local level upper
    dhow run -d --name writer busybox sh -c 'cp /bin/busybox /copied; sleep 100000' >/dev/null
    upper=/var/lib/dhow/snapshots/$(dhow inspect -f '{{.Id}}' writer)/upper
    level=$(dhow inspect -f '{{.MountLabel}}' writer | cut -d: -f3-)
    soon test -e "$upper/copied"
    same label "$level" "$(label "$upper/copied")"
    case $level in container_file_t:s0:c*,c*) ;; *) echo "its level is $level"; return 1 ;; esac
    dhow rm -f writer >/dev/null
}
a_committed_program_runs() {
    dhow run --name maker busybox busybox cp /bin/busybox /busybox
    dhow commit maker made >/dev/null
    dhow rm maker >/dev/null
    same output hello "$(dhow run --rm made /busybox echo hello)"
}
files_of_the_host_are_refused() {
    local out
    mkdir -p /root/secret; echo word >/root/secret/file; chmod 777 /root/secret; chmod 666 /root/secret/file
    out=$(dhow run --rm -v /root/secret:/data busybox cat /data/file 2>&1) && return 1
    denied "$out"
    out=$(dhow run --rm -v /root/secret:/data busybox sh -c 'echo new >/data/file' 2>&1) && return 1
    denied "$out"
    out=$(dhow run --rm -v /etc:/data busybox cat /data/shadow 2>&1) && return 1
    denied "$out"
    same file word "$(cat /root/secret/file)"
    # Not for want of another right: without a label it may.
    same unlabelled word "$(dhow run --rm --security-opt label=disable -v /root/secret:/data busybox cat /data/file)"
}
files_of_another_container_are_refused() {
    local out
    mkdir -p /root/private; echo word >/root/private/file; chmod 777 /root/private; chmod 666 /root/private/file
    dhow run -d --name owner -v /root/private:/data:Z busybox sleep 100000 >/dev/null
    same own word "$(dhow exec owner cat /data/file)"
    out=$(dhow run --rm -v /root/private:/data busybox cat /data/file 2>&1) && return 1
    dhow rm -f owner >/dev/null
    denied "$out"
}
processes_of_the_host_are_out_of_reach() {
    local out
    # In the host's process namespace, and labelled all the same.
    out=$(dhow run --rm --pid host --security-opt label=type:container_t busybox kill -0 1 2>&1) && return 1
    denied "$out"
}

for case in image new_layers_are_for_containers_to_read a_program_of_a_layer_runs a_layer_from_before_runs \
    a_layer_cannot_be_written what_it_writes_is_its_own a_committed_program_runs files_of_the_host_are_refused \
    files_of_another_container_are_refused processes_of_the_host_are_out_of_reach; do check "$case" "$case"; done
finish
