#!/usr/bin/env bash
# crun's Python tests on our runtime. The checkout needs the static program tests/init, which that suite's own build makes.
set -uo pipefail
name=crun
called=crun
# shellcheck source=conformance/runtime/common.sh
. "$(dirname "$0")/common.sh"

describe() { echo "SUITE: a checkout of crun, or its folder tests; with tests/init built"; }

check_suite() {
    [ -d "$suite/tests" ] && suite=$suite/tests
    [ -x "$suite/init" ] || die "no program init in $suite: build it with the suite's own Makefile"
    ls "$suite"/test_*.py >/dev/null 2>&1 || die "no test_*.py in $suite"
    command -v python3 >/dev/null || die "no python3"
}

run_file() {
    local file=$1 base line planned seen=0
    base=$(basename "$1" .py)
    sweep 'test-tmp*' 'crun-*' frozen
    (cd "$work" && OCI_RUNTIME=$runtime INIT=$suite/init PYTHONDONTWRITEBYTECODE=1 \
        exec timeout -k 5 200 python3 -u "$file") </dev/null >"$logs/$base" 2>&1
    while IFS= read -r line; do
        line=${line%% # [0-9]*}
        seen=$((seen + 1))
        case $line in
            not\ ok*) note FAIL "$base: ${line#not ok * - }" ;;
            *'#SKIP'*) note skip "$base: ${line#ok * - }" ;;
            *) note ok "$base: ${line#ok * - }" ;;
        esac
    done < <(grep -aE '^(not )?ok [0-9]+ - ' "$logs/$base")
    planned=$(grep -aoE '^1\.\.[0-9]+' "$logs/$base" | head -n 1)
    planned=${planned#1..}
    while [ "$seen" -lt "${planned:-1}" ]; do seen=$((seen + 1)); note lost "$base: test $seen"; done
}

run_suite() {
    local file
    for file in "$suite"/test_*.py; do
        wanted "$(basename "$file" .py)" || continue
        run_file "$file"
    done
    sweep 'test-tmp*' 'crun-*' frozen
}

adapter "$@"
