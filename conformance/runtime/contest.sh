#!/usr/bin/env bash
# youki's integration tests ("contest") on our runtime. The folder must hold what that suite's own build makes: the programs
# contest and runtimetest (the static one), and its bundle.tar.gz.
set -uo pipefail
name=contest
# shellcheck source=conformance/runtime/common.sh
. "$(dirname "$0")/common.sh"

# The suite lists groups only. These are the tests of the one group that is run test by test.
exec_tests=(preserve_fds_test ignore_paused_test cgroup_test no_capabilities_test unset_bounding_capabilities_test
    new_privileges_test some_capabilities_test capabilities_by_flag_test_case1 capabilities_by_flag_test_case2 mount_test)

describe() { echo "SUITE: a folder with contest, runtimetest and bundle.tar.gz; RUNTIME_KIND is handed on (default: dhow)"; }

check_suite() {
    local part
    for part in contest runtimetest bundle.tar.gz; do [ -e "$suite/$part" ] || die "no $part in $suite"; done
}

leftovers() { sweep runtime-test 'youki-*' 'integration-test*' '????????-????-????-????-????????????'; }

# One process per group, because a panic ends the whole process. $1 group, $2 one test of it or nothing
run_group() {
    local log=$logs/$1${2:+.$2} line found=0 failed=0
    leftovers
    (cd "$work" && RUNTIME_KIND=${RUNTIME_KIND:-dhow} exec timeout -k 5 $((90 * patience)) ./contest run --runtime "$runtime" \
        --runtimetest ./runtimetest -t "$1${2:+::$2}") </dev/null >"$log" 2>&1
    while IFS= read -r line; do
        [[ $line =~ ^[0-9]+\ /\ [0-9]+\ :\ (.*)\ :\ (ok|not\ ok|skipped)$ ]] || continue
        found=1
        case ${BASH_REMATCH[2]} in
            ok) note ok "$1: ${BASH_REMATCH[1]}" ;;
            skipped) note skip "$1: ${BASH_REMATCH[1]}" ;;
            *) note FAIL "$1: ${BASH_REMATCH[1]}"; failed=1 ;;
        esac
    done < <(grep -aE '^[0-9]+ / [0-9]+ : ' "$log")
    [ "$found" = 1 ] || { note FAIL "$1: ${2:-the whole group} (panic or hang)"; failed=1; }
    # For runs whose logs nobody can read afterwards.
    [ "$failed" = 0 ] || [ -z "${DHOW_SUITE_LIVE:-}" ] || grep -avE ' : (ok|skipped)$' "$log" | tail -n 40 | cut -c1-500 >&2
}

run_suite() {
    local group test
    cp "$suite/contest" "$suite/runtimetest" "$suite/bundle.tar.gz" "$work/"
    for group in $(cd "$work" && ./contest list); do
        wanted "$group" || continue
        if [ "$group" = exec ]; then
            # Its cgroup_test panics where there is no cgroup version 2, and would take the others with it.
            for test in "${exec_tests[@]}"; do run_group exec "$test"; done
        else
            run_group "$group" ''
        fi
    done
    leftovers
}

adapter "$@"
