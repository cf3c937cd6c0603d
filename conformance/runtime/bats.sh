#!/usr/bin/env bash
# runc's bats tests on our runtime. The checkout needs its helper programs (tests/cmd/_bin, by its own Makefile) and its two
# root file systems (tests/integration/testdata/{busybox,debian}-*.tar.xz).
#   --rootless FEATURES   first, as the user `rootless`, who must be there and be able to read the suite. FEATURES is idmap,
#                         cgroup, idmap,cgroup or none: whether the user has a range of subordinate ids and newuidmap, and a
#                         control group to write in. With RUNC_USE_SYSTEMD=yes a systemd of the user's own is started.
set -uo pipefail
name=bats
# shellcheck source=conformance/runtime/common.sh
. "$(dirname "$0")/common.sh"

# Outlives the adapter's second start, in its own namespace.
if [ "${1:-}" = --rootless ]; then
    export DHOW_BATS_ROOTLESS=${2:?}
    shift 2
fi
features=${DHOW_BATS_ROOTLESS:-}
# What the suite's own tests have in their configurations.
subordinate_uids=100000 subordinate_gids=200000 subordinate_count=65536

describe() {
    echo "SUITE: a checkout of runc with tests/cmd/_bin built and the images in tests/integration/testdata"
    echo "  --rootless idmap|cgroup|idmap,cgroup|none   (first) as the user rootless, with these features"
}

check_suite() {
    local tool
    case $features in ''|none|idmap|cgroup|idmap,cgroup) ;; *) die "no features $features: idmap, cgroup, idmap,cgroup or none" ;; esac
    for tool in bats script jq gawk gcc findmnt xz; do command -v "$tool" >/dev/null || die "no $tool"; done
    [ -x "$suite/tests/cmd/_bin/recvtty" ] || die "no tests/cmd/_bin/recvtty in $suite: build it with the suite's own Makefile"
    ls "$suite"/tests/integration/testdata/busybox-*.tar.xz >/dev/null 2>&1 || die "no busybox image in tests/integration/testdata"
}

leftovers() {
    sweep test_busybox 'test_busybox*' test 'test[-_]*' 'runc-cgroups-integration-test*'
}

# as_rootless COMMAND...: as the user, with what the suite wants to know of the features.
as_rootless() {
    local words=(HOME="$(getent passwd rootless | cut -d: -f6)" USER=rootless ROOTLESS_FEATURES="$features") uid
    uid=$(id -u rootless)
    if [[ $features == *idmap* ]]; then
        words+=("ROOTLESS_UIDMAP_START=$subordinate_uids" "ROOTLESS_UIDMAP_LENGTH=$subordinate_count" "ROOTLESS_GIDMAP_START=$subordinate_gids"
            "ROOTLESS_GIDMAP_LENGTH=$subordinate_count" ROOTLESS_AUX_UID=1024 "ROOTLESS_AUX_DIR=$work/auxiliary")
    fi
    [ -z "${RUNC_USE_SYSTEMD:-}" ] || words+=("XDG_RUNTIME_DIR=/run/user/$uid" "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/$uid/bus")
    exec setpriv --reuid rootless --regid rootless --init-groups env "${words[@]}" "$@"
}

# Accounts and programs as the features want them, in this mount namespace alone.
prepare_rootless() {
    local file
    id rootless >/dev/null 2>&1 || die "no user rootless on this machine"
    setpriv --reuid rootless --regid rootless --init-groups test -r "$suite/tests/integration/helpers.bash" || die "the user rootless cannot read $suite"
    mkdir -p "$work/accounts"
    touch /etc/subuid /etc/subgid
    : >"$work/accounts/subuid"
    : >"$work/accounts/subgid"
    if [[ $features == *idmap* ]]; then
        echo "rootless:$subordinate_uids:$subordinate_count" >"$work/accounts/subuid"
        echo "rootless:$subordinate_gids:$subordinate_count" >"$work/accounts/subgid"
        # A folder that only a user of the container may enter, whose id is 1024 there and whose mapping begins at 1000.
        mkdir -m 700 "$work/auxiliary"
        chown $((subordinate_uids - 1000 + 1024)) "$work/auxiliary"
    else
        # A file that cannot be executed is none.
        for file in newuidmap newgidmap; do
            ! command -v "$file" >/dev/null || mount --bind "$work/accounts/subuid" "$(command -v "$file")"
        done
    fi
    for file in subuid subgid; do mount --bind "$work/accounts/$file" "/etc/$file"; done
    if [ -n "${RUNC_USE_SYSTEMD:-}" ]; then systemctl start "user@$(id -u rootless).service" || die "the user's systemd did not start"; fi
}

# A control group that the user may write in and move processes to: Documentation/admin-guide/cgroup-v2.rst, "Delegation
# Containment". That takes the right to write the common ancestor's list of processes, too, which here is the root's.
delegate_group() {
    local root=/sys/fs/cgroup controller
    local group=$root/runc-cgroups-integration-test
    [ -e "$root/cgroup.controllers" ] || die "the feature cgroup wants control groups v2"
    for controller in $(cat "$root/cgroup.controllers"); do echo "+$controller" >"$root/cgroup.subtree_control"; done
    mkdir -p "$group"
    chgrp rootless "$group" "$group"/cgroup.{procs,subtree_control} "$root/cgroup.procs"
    chmod g+rwx "$group"
    chmod g+rw "$group"/cgroup.{procs,subtree_control} "$root/cgroup.procs"
}

withdraw_group() {
    chgrp root /sys/fs/cgroup/cgroup.procs
    chmod g-w /sys/fs/cgroup/cgroup.procs
}

# run_bats BASE LOG ARGUMENT... FILE: notes each test when it ends, and counts them in $seen.
run_bats() {
    local base=$1 log=$2 bats tick=0.5 as=exec
    shift 2
    # Where a process is dear, fewer look at the log.
    [ "$patience" = 1 ] || tick=4
    leftovers
    [[ $features != *cgroup* ]] || delegate_group
    [ -z "$features" ] || as=as_rootless
    seen=0
    # The tests want a controlling terminal whose input stays open: hence the fifo; and in the foreground, or the terminal
    # stops whoever sets its modes.
    (cd "$suite" && RUNC=$runtime TMPDIR=$work/tmp PATH=$work/tools:$PATH $as timeout -k 5 $((3600 * patience)) script -qec \
        "timeout --foreground -k 5 $((3600 * patience)) bats -t $(printf '%q ' "$@")" /dev/null) <&"$input" >"$log" 2>&1 &
    bats=$!
    while kill -0 "$bats" 2>/dev/null; do
        sleep "$tick"
        note_new "$base" "$log"
        # A line comes with every test; a loaded machine needs half a minute for the longest.
        if [ $(($(date +%s) - $(stat -c %Y "$log"))) -gt $((120 * patience)) ]; then kill "$bats"; fi
    done
    wait "$bats"
    note_new "$base" "$log"
    [ -z "${DHOW_SUITE_LIVE:-}" ] || why_failed "$log" >&2
}

# why_failed LOG: what the tests that failed say, for runs whose logs nobody can read afterwards, such as those in the lab.
why_failed() {
    tr -d '\r' <"$1" | grep -aE '^(not )?ok [0-9]+ |^#' | cut -c1-500 | awk '
        /^not ok/ { shown = 1; lines = 0 }
        /^ok/ { shown = 0 }
        shown && lines++ < 60'
}

# note_new BASE LOG: notes the tests that the log has beyond the first $seen.
note_new() {
    local line
    while IFS= read -r line; do
        seen=$((seen + 1))
        case $line in
            not\ ok*) note FAIL "$1: ${line#not ok * }" ;;
            *' # skip'*) note skip "$1: ${line#ok * }" ;;
            *) note ok "$1: ${line#ok * }" ;;
        esac
    done < <(grep -aE '^(not )?ok [0-9]+ ' "$2" | tail -n "+$((seen + 1))" | tr -d '\r')
}

run_file() {
    local base name names seen at=0
    base=$(basename "$1" .bats)
    run_bats "$base" "$logs/$base" "$1"
    mapfile -t names < <(sed -nE 's/^@test "(.*)" \{.*/\1/p' "$1")
    [ "$seen" -lt "${#names[@]}" ] || return 0
    # The first without a result hung, and kept the others from running: each of those gets a turn of its own.
    note lost "$base: ${names[seen]}"
    for name in "${names[@]:seen+1}"; do
        at=$((at + 1))
        run_bats "$base" "$logs/$base.$at" -f "^$(sed 's/[][\.*^$+?(){}|/]/\\&/g' <<<"$name")\$" "$1"
        [ "$seen" -gt 0 ] || note lost "$base: $name"
    done
}

run_suite() {
    local file
    mkdir -p "$work/tmp" "$work/tools"
    chmod 1777 "$work/tmp"
    # The suite asks go for the name of the machine's architecture and for nothing else.
    if ! command -v go >/dev/null; then
        printf '#!/bin/sh\necho %s\n' "$(dpkg --print-architecture)" >"$work/tools/go"
        chmod 755 "$work/tools/go"
    fi
    [ -z "$features" ] || prepare_rootless
    mkfifo "$work/input"
    exec {input}<>"$work/input"
    for file in "$suite"/tests/integration/*.bats; do
        wanted "$(basename "$file" .bats)" || continue
        run_file "$file"
    done
    exec {input}>&-
    leftovers
    [[ $features != *cgroup* ]] || withdraw_group
}

adapter "$@"
