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
    for tool in bats script jq gawk gcc findmnt; do command -v "$tool" >/dev/null || die "no $tool"; done
    [ -x "$suite/tests/cmd/_bin/recvtty" ] || die "no tests/cmd/_bin/recvtty in $suite: build it with the suite's own Makefile"
    ls "$suite"/tests/integration/testdata/busybox-*.tar.xz >/dev/null 2>&1 || die "no busybox image in tests/integration/testdata"
}

leftovers() {
    sweep test_busybox 'test_busybox*' test 'test[-_]*' 'runc-cgroups-integration-test*'
}

run_file() {
    local base line planned seen=0
    base=$(basename "$1" .bats)
    leftovers
    # The tests want a controlling terminal whose input stays open: hence the fifo; and in the foreground, or the terminal
    # stops whoever sets its modes.
    (cd "$suite" && RUNC=$runtime TMPDIR=$work/tmp PATH=$work/tools:$PATH exec timeout -k 5 $((400 * patience)) script -qec \
        "timeout --foreground -k 5 $((380 * patience)) bats -t tests/integration/$base.bats" /dev/null) <&"$input" >"$logs/$base" 2>&1
    while IFS= read -r line; do
        seen=$((seen + 1))
        case $line in
            not\ ok*) note FAIL "$base: ${line#not ok * }" ;;
            *' # skip'*) note skip "$base: ${line#ok * }" ;;
            *) note ok "$base: ${line#ok * }" ;;
        esac
    done < <(tr -d '\r' <"$logs/$base" | grep -aE '^(not )?ok [0-9]+ ')
    planned=$(grep -aoE '^1\.\.[0-9]+' "$logs/$base" | head -n 1)
    planned=${planned#1..}
    while [ "$seen" -lt "${planned:-1}" ]; do seen=$((seen + 1)); note lost "$base: test $seen"; done
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
