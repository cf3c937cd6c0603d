# For the adapters to engine suites: a small root file system of busybox, and a box to run a suite in, with a process, a
# network, a mount table of its own. What a test leaves ends with it. Sourced; the caller sets name, work, dhow and port.
# shellcheck shell=bash disable=SC2154

# Where a box has its outside: an address that leads nowhere, and a name server that knows no name.
outside=192.0.2

die() { echo "$name: $*" >&2; exit 1; }

# The names of the programs in busybox, and what Debian's lacks of those that the tests call.
fill_bin() {
    local bin=$1/bin applet
    mkdir -p "$bin"
    cp "$(command -v busybox)" "$bin/busybox"
    for applet in $(busybox --list) busybox-extras; do
        [ -e "$bin/$applet" ] || ln -s busybox "$bin/$applet"
    done
    # What a shell adds to its environment is not the container's.
    cat >"$bin/printenv" <<'SCRIPT'
#!/bin/sh
all=$(tr '\0' '\n' </proc/$$/environ)
[ $# -gt 0 ] || { echo "$all"; exit; }
for name; do echo "$all" | sed -n "s/^$name=//p" | grep . || bad=1; done
exit ${bad:-0}
SCRIPT
    printf '#!/bin/sh\n[ "$1" != -q ] || shift\ngrep -q " $1 " /proc/self/mountinfo\n' >"$bin/mountpoint"
    printf '#!/bin/sh\ntrap "" HUP\nexec "$@"\n' >"$bin/nohup"
    cat >"$bin/adduser" <<'SCRIPT'
#!/bin/sh
# adduser [-D] [-u ID] [-h HOME] NAME
id=1000 home=
while [ $# -gt 1 ]; do
    case $1 in -u) id=$2; shift 2 ;; -h) home=$2; shift 2 ;; *) shift ;; esac
done
echo "$1:x:$id:$id::${home:-/home/$1}:/bin/sh" >>/etc/passwd
echo "$1:x:$id:" >>/etc/group
mkdir -p "${home:-/home/$1}"
SCRIPT
    chmod 755 "$bin"/{printenv,mountpoint,nohup,adduser}
}

# A small root file system in the manner of Alpine. $1 folder.
fill_root() {
    fill_bin "$1"
    mkdir -p "$1"/{dev,etc,home/podman,media,mnt,proc,root,run,sbin,srv,sys,tmp,usr/bin,usr/sbin,usr/local/bin,var/lib,var/log,var/opt,var/tmp}
    chmod 1777 "$1"/tmp "$1"/var/tmp
    # As the file system package of some distributions has it; a test looks.
    chmod 555 "$1"
    chmod 700 "$1"/root
    ln -s ../../bin/env "$1"/usr/bin/env
    ln -s ../proc/mounts "$1"/etc/mtab
    printf '%s\n' root:x:0:0:root:/root:/bin/sh bin:x:1:1:bin:/bin:/sbin/nologin daemon:x:2:2:daemon:/sbin:/sbin/nologin \
        lp:x:4:7:lp:/var/spool/lpd:/sbin/nologin sync:x:5:0:sync:/sbin:/bin/sync mail:x:8:12:mail:/var/mail:/sbin/nologin \
        guest:x:405:100:guest:/dev/null:/sbin/nologin nobody:x:65534:65534:nobody:/:/sbin/nologin >"$1"/etc/passwd
    printf '%s\n' root:x:0:root bin:x:1:root,bin,daemon daemon:x:2:root,bin,daemon sys:x:3:root,bin adm:x:4:root,daemon \
        tty:x:5: disk:x:6:root lp:x:7:lp mail:x:12:mail users:x:100: nogroup:x:65533: nobody:x:65534: >"$1"/etc/group
    printf '%s\n' 'root:*::0:::::' 'nobody:!::0:::::' >"$1"/etc/shadow
    printf '127.0.0.1\tlocalhost localhost.localdomain\n::1\t\tlocalhost localhost.localdomain\n' >"$1"/etc/hosts
    printf 'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.20.3\nPRETTY_NAME="Alpine Linux v3.20"\n' >"$1"/etc/os-release
    echo 3.20.3 >"$1"/etc/alpine-release
}

# Answers every question of name with "there is none", at once.
name_server() {
    exec python3 - "$1" <<'SCRIPT'
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
while True:
    question, peer = server.recvfrom(4096)
    server.sendto(question[:2] + b"\x81\x83" + question[4:6] + b"\0\0\0\0\0\0" + question[12:], peer)
SCRIPT
}

# Inside the box: devices, a network and control groups.
own_machine() {
    # Away with the old one: control groups that lie hidden below the new would be found in the list of mounts.
    umount -lR /sys
    mount -t proc proc /proc && mount -t sysfs sysfs /sys || die "no /proc and /sys of our own"
    mount --rbind "$work/cgroup" /sys/fs/cgroup
    ip link set lo up
    ip link add eth0 type veth peer name eth0p
    ip link set eth0p up
    ip addr add $outside.2/24 dev eth0
    ip link set eth0 up
    ip route add default via $outside.1
    echo "nameserver $outside.2" >"$work/resolv.conf"
    mount --bind "$work/resolv.conf" "$(readlink -f /etc/resolv.conf)"
    hostname box
    echo box >"$work/hostname"
    mount --bind "$work/hostname" /etc/hostname 2>/dev/null || true
    name_server $outside.2 &
}

# Waits until our registry answers.
await_registry() {
    for _ in 1 2 3 4 5 6 7 8 9; do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return
        sleep 0.2
    done
    die "the registry does not answer: $(cat "$work/registry.log")"
}

# box FUNCTION...: runs `inside`, which may call these functions, in namespaces of its own.
box() {
    mkdir -p "$work/cgroup"
    mount --rbind /sys/fs/cgroup "$work/cgroup"
    mount --make-rprivate "$work/cgroup"
    # An init that reaps: tests wait for processes to be gone.
    export -f inside own_machine await_registry name_server die "$@"
    work=$work dhow=$dhow suite=$suite logs=$logs only=$only port=$port patience=$patience outside=$outside name=$name \
        files_text="${files[*]}" \
        unshare --mount --net --pid --ipc --uts --fork --kill-child --propagation private bash -c '
            set -uo pipefail; trap "exit 0" TERM; read -ra files <<<"$files_text"; inside & child=$!
            while kill -0 $child 2>/dev/null; do wait $child; done; wait $child'
    umount -R "$work/cgroup"
}

# note_go FILE LOG: the counts of a program of Go tests, tests without their parts.
note_go() {
    local passed failed skipped
    passed=$(grep -acE '^--- PASS' "$2") failed=$(grep -acE '^--- FAIL' "$2") skipped=$(grep -acE '^--- SKIP' "$2")
    echo "$1 $passed $failed $skipped" >>"$work/results"
    printf '%-24s %3d passed, %3d failed, %3d skipped\n' "$1" "$passed" "$failed" "$skipped"
    grep -aE '^--- FAIL|^panic: ' "$2" | sed -E 's/^--- FAIL: /    FAIL /' || true
}

# inside_box_or_beside FUNCTION...: with our program in a box, or with the peer that the caller has, then the sum.
inside_box_or_beside() {
    if [ -n "$peer" ]; then
        echo "== $name: $("$peer" --version) =="
        PATH=$(dirname "$peer"):$PATH
        inside
    else
        echo "== $name: $("$dhow" --version) =="
        export peer sources
        box note_go "$@"
    fi
    awk '{ p += $2; f += $3; s += $4 } END { printf "%d passed, %d failed, %d skipped\n", p, f, s }' "$work/results"
    rm -rf --one-file-system "$work" 2>/dev/null || true
}
