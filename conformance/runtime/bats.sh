#!/usr/bin/env bash
# runc's bats tests on our runtime. The checkout needs its helper programs (tests/cmd/_bin, by its own Makefile) and its two
# root file systems (tests/integration/testdata/{busybox,debian}-*.tar.xz).
set -uo pipefail
name=bats
# shellcheck source=conformance/runtime/common.sh
. "$(dirname "$0")/common.sh"

describe() { echo "SUITE: a checkout of runc with tests/cmd/_bin built and the images in tests/integration/testdata"; }

check_suite() {
    local tool
    for tool in bats script jq gawk gcc findmnt xz; do command -v "$tool" >/dev/null || die "no $tool"; done
    [ -x "$suite/tests/cmd/_bin/recvtty" ] || die "no tests/cmd/_bin/recvtty in $suite: build it with the suite's own Makefile"
    ls "$suite"/tests/integration/testdata/busybox-*.tar.xz >/dev/null 2>&1 || die "no busybox image in tests/integration/testdata"
}

leftovers() {
    sweep test_busybox 'test_busybox*' test 'test[-_]*' 'runc-cgroups-integration-test*'
}

# run_bats BASE LOG ARGUMENT... FILE: notes each test when it ends, and counts them in $seen.
run_bats() {
    local base=$1 log=$2 bats tick=0.5
    shift 2
    # Where a process is dear, fewer look at the log.
    [ "$patience" = 1 ] || tick=4
    leftovers
    seen=0
    # The tests want a controlling terminal whose input stays open: hence the fifo; and in the foreground, or the terminal
    # stops whoever sets its modes.
    (cd "$suite" && RUNC=$runtime TMPDIR=$work/tmp PATH=$work/tools:$PATH exec timeout -k 5 $((3600 * patience)) script -qec \
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
    mkfifo "$work/input"
    exec {input}<>"$work/input"
    for file in "$suite"/tests/integration/*.bats; do
        wanted "$(basename "$file" .bats)" || continue
        run_file "$file"
    done
    exec {input}>&-
    leftovers
}

adapter "$@"
