# The frame of scripts that compare dhow with others over dhow's own registry; they source it. It makes
#   $work               a folder that goes at the end
#   $registry           host:port of the registry, once `serve` was called; it ends with the script
#   dhow                the program, with a root of its own
#   check, same, result one line for each thing that is compared, and the sum of them
# DHOW is the program that is tried.

work=$(mktemp -d)
server=
finish() {
    if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap finish EXIT
registry=127.0.0.1:$(shuf -i 20000-30000 -n 1)

dhow() { "$DHOW" --root "$work/dhow" "$@"; }
serve() {
    "$DHOW" registry serve --root "$work/registry" --listen "$registry" >"$work/registry.log" 2>&1 &
    server=$!
    for _ in $(seq 100); do curl -fsS "http://$registry/v2/" >/dev/null 2>&1 && break; sleep 0.1; done
}

passed=0 failed=0
check() { # sentence, command...
    local sentence=$1; shift
    if "$@" >"$work/log" 2>&1; then
        passed=$((passed + 1)); echo "ok      $sentence"
    else
        failed=$((failed + 1)); echo "FAILED  $sentence"; sed 's/^/        /' "$work/log" | tail -n 15
    fi
}
same() { [ -n "$1" ] && { [ "$1" = "$2" ] || { printf '%s\nis not\n%s\n' "$1" "$2"; false; }; }; }
result() {
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ]
}
