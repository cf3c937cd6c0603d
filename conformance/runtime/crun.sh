#!/usr/bin/env bash
# crun's Python tests on our runtime. The checkout needs the static program tests/init, which that suite's own build makes.
set -uo pipefail
name=crun
called=crun
# Containers without a process id namespace are restored under the ids that they had, which are free once they are reaped.
apart=1
# shellcheck source=conformance/runtime/common.sh
. "$(dirname "$0")/common.sh"

describe() { echo "SUITE: a checkout of crun, or its folder tests; with tests/init built"; }

check_suite() {
    [ -d "$suite/tests" ] && suite=$suite/tests
    [ -x "$suite/init" ] || die "no program init in $suite: build it with the suite's own Makefile"
    ls "$suite"/test_*.py >/dev/null 2>&1 || die "no test_*.py in $suite"
    command -v python3 >/dev/null || die "no python3"
    command -v script >/dev/null || die "no script (util-linux): some tests are left out without a terminal"
}

# Runs a file, or only the tests of it that are named. $1 file, $2 names or nothing; leaves the plan's length in $planned and
# how many tests gave a result in $seen.
run_tests() {
    local file=$1 base line log
    base=$(basename "$1" .py)
    log=$logs/$base${2:+.rest}
    seen=0
    sweep 'test-tmp*' 'crun-*' frozen
    (cd "$work" && if [ -n "$2" ]; then export RUN_TESTS=$2; fi
        export OCI_RUNTIME=$runtime INIT=$suite/init PYTHONDONTWRITEBYTECODE=1
        # Tests that ask for a terminal get one, whose other end never says that it is at its end: script would go round
        # and round.
        if grep -q 'isatty(1)' "$file"; then
            exec script -qec "timeout --foreground -k 5 $((150 * patience)) python3 -u '$file'" /dev/null <"$work/keyboard"
        fi
        exec timeout -k 5 $((150 * patience)) python3 -u "$file" </dev/null) 2>&1 | tr -d '\r' >"$log"
    while IFS= read -r line; do
        line=${line%% # [0-9]*}
        seen=$((seen + 1))
        case $line in
            not\ ok*) note FAIL "$base: ${line#not ok * - }" ;;
            *'#SKIP'*) note skip "$base: ${line#ok * - }" ;;
            *) note ok "$base: ${line#ok * - }" ;;
        esac
    done < <(grep -aE '^(not )?ok [0-9]+ - ' "$log")
    planned=$(grep -aoE '^1\.\.[0-9]+' "$log" | head -n 1)
    planned=${planned#1..}
}

# The names of a file's tests, one a line, in the order in which they run.
names_of() {
    (cd "$suite" && PYTHONDONTWRITEBYTECODE=1 python3 -c \
        'import sys; print("\n".join(__import__(sys.argv[1]).all_tests))' "$1") 2>/dev/null
}

run_file() {
    local base seen planned names
    base=$(basename "$1" .py)
    run_tests "$1" ''
    [ "$seen" -lt "${planned:-1}" ] || return 0
    # One test hung: it failed, and those after it get a process of their own.
    mapfile -t names < <(names_of "$base")
    note FAIL "$base: ${names[seen]:-the whole file} (hang)"
    names=("${names[@]:seen + 1}")
    [ ${#names[@]} -gt 0 ] || return 0
    run_tests "$1" "${names[*]}"
    while [ "$seen" -lt ${#names[@]} ]; do note lost "$base: ${names[seen]}"; seen=$((seen + 1)); done
}

run_suite() {
    local file keyboard
    mkfifo "$work/keyboard"
    exec {keyboard}<>"$work/keyboard"
    for file in "$suite"/test_*.py; do
        wanted "$(basename "$file" .py)" || continue
        run_file "$file"
    done
    sweep 'test-tmp*' 'crun-*' frozen
}

adapter "$@"
