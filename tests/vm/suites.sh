# What the lab runs: test programs of crates, the black-box suite, and the scripts in cases/. Sourced by `run`.

# A suite is a crate (its package is dhow-NAME), `blackbox`, or a script of cases/ without its ending.
crate_suites=(sys rootpath cgroup seccomp snapshot layer runtime network monitor engine)
case_suites=()
for path in "$here"/cases/*.sh; do [ -e "$path" ] && case_suites+=("$(basename "$path" .sh)"); done
all_suites=("${crate_suites[@]}" blackbox "${case_suites[@]}")

# Seconds for one test program: emulation is about ten times slower than the machine.
suite_limit=600

# collect_suites PAYLOAD "NAME NAME,NAME": puts test programs and the job that runs them into the payload.
collect_suites() {
    local payload=$1 suite packages=() programs path packages_of
    local wanted=(${2//,/ })
    mkdir -p "$payload/suites"
    for suite in "${wanted[@]}"; do
        if [ -e "$here/cases/$suite.sh" ]; then
            mkdir -p "$payload/suites/$suite"
            install -m 755 "$here/cases/$suite.sh" "$payload/suites/$suite/$suite"
            packages_of=$(sed -n 's/^# image: *//p' "$here/cases/$suite.sh")
            [ -z "$packages_of" ] || make_image "$payload" "$suite" "$packages_of"
        elif [[ " ${all_suites[*]} " == *" $suite "* ]]; then
            packages+=(--package "dhow-$suite")
        else
            fail "unknown suite $suite; there are: ${all_suites[*]}"
        fi
    done
    cp "$here/cases.inc" "$payload/cases.inc"
    if [ ${#packages[@]} -gt 0 ]; then
        step "Building the test programs"
        programs=$(cd "$workspace" && nice cargo test --locked --quiet --no-run --message-format=json "${packages[@]}" \
            | grep -v '"kind":\["example"\]' | sed -n 's/.*"package_id":"\([^"]*\)".*"executable":"\([^"]*\)".*/\1 \2/p')
        while read -r package path; do
            # .../crates/run/runtime#dhow-runtime@0.1.0, or .../crates/run/runtime#0.1.0 when folder and package have one name
            suite=${package##*#}; suite=${suite%@*}; suite=${suite#dhow-}
            mkdir -p "$payload/suites/$suite"
            strip -o "$payload/suites/$suite/$(basename "$path" | sed 's/-[0-9a-f]*$//')" "$path"
        done <<<"$programs"
    fi
    printf '%s\n' "${wanted[@]}" > "$payload/order"
    sed "s/@LIMIT@/$suite_limit/" > "$payload/job" <<'JOB'
#!/bin/bash
# Runs every suite of the payload, and marks where each begins and ends.
export PATH=/lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export DHOW_BIN=/lab/bin/dhow RUST_BACKTRACE=0 PROPTEST_CASES=8
while read -r suite; do
    for program in /lab/suites/$suite/*; do
        echo "## begin $suite $(basename "$program")"
        cd "$(mktemp -d)"
        arguments=()
        grep -q 'show-output' "$program" && arguments=(--test-threads=2 --show-output)
        SECONDS=0
        timeout -k 5 @LIMIT@ "$program" "${arguments[@]}" </dev/null 2>&1
        echo "## end $? $SECONDS"
    done
done < /lab/order
JOB
    chmod 755 "$payload/job"
}

# print_table LOG PROFILE: one row for each suite; fails when a test failed or a suite did not reach its end.
print_table() {
    awk -v profile="$2" -v log_file="$1" '
        function row(    key) {
            key = suite
            if (!(key in seen)) { seen[key] = 1; order[++rows] = key }
        }
        { sub(/\r$/, "") }
        /^## begin / { suite = $3; program = $4; row(); open = 1; section = ""; pending = 0; summary = 0; delete failed_here; next }
        /^## end / {
            open = 0; took[suite] += $4
            if ($3 == 124 || $3 == 137) { failed[suite]++; names[suite] = names[suite] "\n    " program ": stopped after " $4 " s" }
            else if ($3 != 0 && !summary && !length(failed_here)) { failed[suite]++; names[suite] = names[suite] "\n    " program ": status " $3 }
            next
        }
        /^successes:$/ { listing = 1 }
        /^failures:$/ { listing = 0 }
        /^---- .* stdout ----$/ { section = listing ? $2 : ""; next }
        section != "" && /skipped/ { skipped[suite]++; passed[suite]--; why[suite] = why[suite] "\n    " section ": " $0; section = ""; next }
        /^skipped/ { pending = 1; reason = $0; next }
        /^test .* \.\.\. / {
            name = $2
            if (/FAILED$/) { failed[suite]++; failed_here[name] = 1; names[suite] = names[suite] "\n    " name }
            else if (/ignored/) skipped[suite]++
            else if (/skipped/ || (/ok$/ && pending)) { skipped[suite]++; if (!pending) { reason = $0; sub(/.*skipped:? */, "", reason) }
                why[suite] = why[suite] "\n    " name ": " reason }
            else if (/ok$/) passed[suite]++
            pending = 0; next
        }
        /^test result: / { summary = 1 }
        END {
            if (open) { failed[suite]++; names[suite] = names[suite] "\n    " program ": the guest ended within it" }
            printf "\n%-12s %7s %7s %8s %7s   profile %s\n", "SUITE", "PASSED", "FAILED", "SKIPPED", "TIME", profile
            for (i = 1; i <= rows; i++) {
                key = order[i]
                printf "%-12s %7d %7d %8d %6ds\n", key, passed[key], failed[key], skipped[key], took[key]
                bad += failed[key]
            }
            for (i = 1; i <= rows; i++) if (failed[order[i]]) print "failed in " order[i] ":" names[order[i]]
            for (i = 1; i <= rows; i++) if (skipped[order[i]] && why[order[i]] != "") print "skipped in " order[i] ":" why[order[i]]
            if (rows == 0) { print "nothing ran; the output is " log_file; exit 1 }
            if (bad) { print "the whole output is " log_file; exit 1 }
        }' "$1"
}
