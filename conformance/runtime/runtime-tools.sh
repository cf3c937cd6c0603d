#!/usr/bin/env bash
# The validation programs of runtime-tools on our runtime. The checkout needs what its own `make` builds: runtimetest and
# validation/**/*.t. A program passes when it ends with 0 and prints no line `not ok`; lines are not counted, because a few
# programs print hundreds of them.
set -uo pipefail
name=runtime-tools
# shellcheck source=conformance/runtime/common.sh
. "$(dirname "$0")/common.sh"

describe() { echo "SUITE: a checkout of runtime-tools with runtimetest and validation/**/*.t built"; }

check_suite() {
    [ -x "$suite/runtimetest" ] || die "no program runtimetest in $suite: build it with the suite's own Makefile"
    [ -n "$(find "$suite/validation" -name '*.t' -print -quit 2>/dev/null)" ] || die "no validation programs (*.t) in $suite"
}

run_program() {
    local program=$1 base status
    base=$(basename "$1" .t)
    sweep cgrouptest runtime-test 'test-runtime*' '????????-????-????-????-????????????'
    mkdir -p "$work/tmp"
    # It unpacks the root file system from where it stands.
    (cd "$suite" && RUNTIME=$runtime TMPDIR=$work/tmp exec timeout -k 5 $((60 * patience)) "$program") </dev/null >"$logs/$base" 2>&1
    status=$?
    if [ "$status" = 0 ] && ! grep -qaE '^ *not ok' "$logs/$base"; then
        note ok "$base"
    else
        note FAIL "$base"
    fi
}

run_suite() {
    local program
    while IFS= read -r program; do
        wanted "$(basename "$program" .t)" || continue
        run_program "$program"
    done < <(find "$suite/validation" -name '*.t' | sort)
    sweep cgrouptest runtime-test 'test-runtime*' '????????-????-????-????-????????????'
}

adapter "$@"
