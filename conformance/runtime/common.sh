# What the adapters of this folder share; sourced by them, not run. An adapter defines
#   describe                one line for the usage text
#   check_suite             dies when $suite is not what it expects or a tool of the machine is missing
#   run_suite               runs $suite on the executable $runtime in $work, and calls `note` for every test
# may set $apart, which gives the runtimes process ids of their own with an init that reaps what they leave, and $called, the name to give to a dhow binary (default runc), and then calls `adapter "$@"`. None of them fetches or
# builds a suite: the caller has it.

die() { echo "$name: $*" >&2; exit 1; }

usage() {
    cat >&2 <<USAGE
usage: conformance/runtime/$name.sh [--runtime BIN] [--compare BIN]... [--only REGEX] [--logs DIR] SUITE
  $(describe)
  --runtime BIN   the runtime; a binary called dhow is started under the name of a runtime (default: dist/dhow)
  --compare BIN   run another runtime the same way afterwards; may be given again
  --only REGEX    only the groups, files or programs whose name matches
  --logs DIR      keep the output of every group, file or program there
Run it as root: it works in a mount namespace of its own, and removes the cgroups that the tests leave.
USAGE
    exit 2
}

# What every limit of time is multiplied by, for a slow machine such as the lab.
patience=${DHOW_SUITE_PATIENCE:-1}

# note ok|FAIL|skip|lost NAME: `lost` is a test that a hang or a panic kept from running at all.
note() {
    printf '%s\t%s\n' "$1" "$2" >>"$work/results"
    # For runs that somebody may cut short.
    [ -z "${DHOW_SUITE_LIVE:-}" ] || printf '%s\t%s\n' "$1" "$2" >&2
}

wanted() { [ -z "$only" ] || [[ $1 =~ $only ]]; }

# The version 2 tree of a hybrid host is out of sight here, but not for criu: a restore that fails leaves copies of all
# groups in it, with which every later one fails too.
sweep_unified() {
    [ ! -e /sys/fs/cgroup/cgroup.controllers ] || return 0
    # shellcheck disable=SC2016 # expanded by the shell that is started
    unshare --mount --propagation private sh -c '
        mount -t cgroup2 cgroup2 "$0" && cd "$0" || exit
        for pattern; do
            for group in $pattern; do
                if [ -d "$group" ]; then find "$group" -depth -type d -exec rmdir {} +; fi
            done
        done
    ' "$work" "$@" 2>/dev/null
    return 0
}

# Ends what tests left in these cgroups, and removes them: one hung test would fail every later one.
sweep() {
    local pattern group left=()
    sweep_unified "$@"
    for pattern in "$@"; do
        for group in /sys/fs/cgroup/*/$pattern /sys/fs/cgroup/$pattern; do
            if [ -e "$group/cgroup.procs" ]; then left+=("$group"); fi
        done
    done
    [ ${#left[@]} -gt 0 ] || return 0
    # The frozen do not die.
    find "${left[@]}" -name freezer.state -exec sh -c 'for f; do echo THAWED >"$f"; done' sh {} + 2>/dev/null
    find "${left[@]}" -name cgroup.freeze -exec sh -c 'for f; do echo 0 >"$f"; done' sh {} + 2>/dev/null
    find "${left[@]}" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u | xargs -r kill -KILL 2>/dev/null
    # The killed leave their cgroup a moment later.
    for _ in 1 2 3 4 5 6; do
        find "${left[@]}" -depth -type d -exec rmdir {} + 2>/dev/null && return 0
        sleep 0.1
    done
    return 0
}

# The suites want one executable path. A dhow binary is a runtime when it is called so.
as_one_executable() {
    local binary
    binary=$(command -v "$1") || die "no runtime $1"
    binary=$(readlink -f "$binary")
    case ${binary##*/} in
        # Not a link: some suites resolve the path first.
        dhow*) mkdir -p "$work/bin"; runtime=$work/bin/${called:-runc}; cp --reflink=auto "$binary" "$runtime" ;;
        *) runtime=$binary ;;
    esac
}

one_runtime() {
    work=$(mktemp -d "${TMPDIR:-/tmp}/suite-XXXXXX")
    # The tests have containers of other users read below it.
    chmod 755 "$work"
    logs=$work/logs
    mkdir "$logs"
    : >"$work/results"
    as_one_executable "$1"
    echo "== $name: $("$runtime" --version 2>&1 | head -n 1) =="
    local began=$SECONDS
    run_suite
    [ -s "$work/results" ] || die "not one test was run"
    echo "$(grep -c ^ok "$work/results") passed, $(grep -c ^FAIL "$work/results") failed," \
        "$(grep -c ^skip "$work/results") skipped, $(grep -c ^lost "$work/results") not run;" \
        "$(wc -l <"$work/results") in all, $((SECONDS - began)) s"
    grep -E '^(FAIL|lost)' "$work/results" | sed 's/^/  /' || true
    if [ -n "$keep" ]; then
        mkdir -p "$keep/${1##*/}"
        cp -r "$logs/." "$work/results" "$keep/${1##*/}/"
    fi
    # A mount that a test left is not followed.
    rm -rf --one-file-system "$work" 2>/dev/null || true
}

adapter() {
    local arguments=("$@") runtimes=() first=
    only='' keep='' suite=''
    while [ $# -gt 0 ]; do
        case $1 in
            --runtime) first=${2:?}; shift 2 ;;
            --compare) runtimes+=("${2:?}"); shift 2 ;;
            --only) only=${2:?}; shift 2 ;;
            --logs) keep=$(realpath -m "${2:?}"); shift 2 ;;
            -*) usage ;;
            *) [ -z "$suite" ] || usage; suite=$(realpath "$1"); shift ;;
        esac
    done
    [ -n "$suite" ] || usage
    [ "$(id -u)" = 0 ] || die "run it as root"
    check_suite
    if [ -z "${DHOW_SUITE_NAMESPACE:-}" ]; then
        local own=(--mount --propagation private)
        if [ -n "${apart:-}" ]; then own+=(--pid --fork --kill-child); fi
        DHOW_SUITE_NAMESPACE=1 exec unshare "${own[@]}" -- "$0" "${arguments[@]}"
    fi
    if [ -n "${apart:-}" ]; then mount -t proc proc /proc || die "no /proc for the own process ids"; fi
    # crun refuses the hybrid layout, and the suites read it as version 2.
    if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
    # Tests write settings for criu there, and leave some behind for those who come later.
    if mkdir -p /etc/criu 2>/dev/null; then mount -t tmpfs criu /etc/criu; fi
    # A descriptor that the caller leaked must not count against the runtime.
    local fd
    for fd in /proc/self/fd/*; do
        fd=${fd##*/}
        [ "$fd" -le 2 ] || [ "$fd" = 255 ] || eval "exec $fd>&-" 2>/dev/null || true
    done
    [ -n "$first" ] || first=$(dirname "$0")/../../dist/dhow
    for first in "$first" "${runtimes[@]}"; do one_runtime "$first"; done
}
