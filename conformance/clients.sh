#!/usr/bin/env bash
# Do engines take our runtime for theirs? podman, docker and containerd of the distribution run containers with it, each
# with a private store, socket and state, and what they see is compared with what was asked for.
#   conformance/clients.sh [podman] [docker] [containerd]     as root; all three when none is named
#   DHOW=path names another binary than dist/dhow: one that is a runtime when it is called by the name runc
# One line per check: ok, FAILED or skipped with the reason. It exits non-zero when one failed. Nothing it started stays.
set -euo pipefail
cd "$(dirname "$0")/.."

DHOW=$(realpath -m "${DHOW:-dist/dhow}")
[ -x "$DHOW" ] || { echo "clients: no binary $DHOW: run cargo xtask dist" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "clients: run it as root: it installs packages, starts daemons and makes containers" >&2; exit 1; }
[ $# -gt 0 ] || set -- podman docker containerd
for engine in "$@"; do
    case $engine in podman | docker | containerd) ;; *) echo "clients: no such engine: $engine" >&2; exit 2 ;; esac
done
PATH=$PATH:/usr/sbin:/sbin

need=()
for tool in "$@"; do
    case $tool in
        podman) command -v podman >/dev/null || need+=(podman) ;;
        docker) command -v dockerd >/dev/null || need+=(docker.io) ;;
        containerd) command -v containerd >/dev/null && command -v ctr >/dev/null || need+=(containerd) ;;
    esac
done
command -v jq >/dev/null || need+=(jq)
[ -x /bin/busybox ] || need+=(busybox-static)
if [ ${#need[@]} -gt 0 ] && command -v apt-get >/dev/null; then
    # RUNLEVEL=1: the packages' own services are not wanted.
    { apt-get update -q && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${need[@]}"; } \
        >/dev/null 2>&1 || echo "clients: could not install ${need[*]}" >&2
fi

work=$(mktemp -d /tmp/clients.XXXXXX) # short: the sockets' paths may have 107 bytes
group=dhow-clients-$$
runtime=$work/bin/runc
controllers=" $(echo /sys/fs/cgroup/*/) "
mkdir -p "$work/bin" "$work/fs/bin" "$work/fs/tmp" "$work/fs/proc" "$work/fs/sys" "$work/fs/dev" "$work/fs/etc"
ln -s "$DHOW" "$runtime"
cp /bin/busybox "$work/fs/bin/busybox"
for name in sh cat echo sleep tty id tail true touch grep hostname pwd env stat wc; do ln -s busybox "$work/fs/bin/$name"; done
echo 'root:x:0:0:root:/:/bin/sh' >"$work/fs/etc/passwd"
echo text >"$work/fs/etc/plain"
tar -C "$work/fs" -cf "$work/fs.tar" .

daemon=
end_daemon() {
    [ -n "$daemon" ] || return 0
    kill "$daemon" 2>/dev/null || true
    for _ in $(seq 100); do kill -0 "$daemon" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
    daemon=
}
groups() { find /sys/fs/cgroup -depth -type d -path "*/$group*" 2>/dev/null || true; }
finish() {
    local pids path
    set +e
    trap - EXIT
    if [ -d "$work/podman" ]; then podman_ rm -fat 0 >/dev/null 2>&1; fi
    if [ -n "$daemon" ] && [ -S "$work/docker.sock" ]; then docker_ ps -aq | xargs -r env DOCKER_HOST="unix://$work/docker.sock" docker rm -f >/dev/null 2>&1; fi
    pids=$(groups | while read -r path; do cat "$path/cgroup.procs" 2>/dev/null; done | sort -u)
    if [ -n "$pids" ]; then kill -9 $pids 2>/dev/null; sleep 0.5; fi
    end_daemon
    # What a daemon left behind names this run's folder or group in its arguments: shims, conmon.
    for path in /proc/[0-9]*; do
        if cat "$path/cmdline" 2>/dev/null | tr '\0' ' ' | grep -q -F "$work/"; then kill -9 "${path#/proc/}" 2>/dev/null; fi
    done
    for _ in $(seq 20); do
        groups | while read -r path; do
            case $(stat -f -c %T "$path" 2>/dev/null) in
                tmpfs) rm -rf "$path" ;; # podman makes plain folders for controllers that are not mounted
                *) rmdir "$path" 2>/dev/null ;;
            esac
        done
        [ -n "$(groups)" ] || break
        sleep 0.1
    done
    for path in /sys/fs/cgroup/*/; do
        if [[ $controllers != *" $path "* && $(stat -f -c %T "$path") == tmpfs ]]; then rmdir "$path" 2>/dev/null; fi
    done
    awk '{print $5}' /proc/self/mountinfo | grep -F "$work/" | tac | while read -r path; do umount -l "$path" 2>/dev/null; done
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

passed=0 failed=0 skipped=0 engine=
check() { # sentence, command...
    local sentence="$engine: $1"; shift
    if "$@" >"$work/log" 2>&1; then
        passed=$((passed + 1)); echo "ok      $sentence"
    else
        failed=$((failed + 1)); echo "FAILED  $sentence"; sed 's/^/        /' "$work/log" | tail -n 8
    fi
}
skip() { skipped=$((skipped + 1)); echo "skipped $engine: $1: $2"; }
same() { [ "$1" = "$2" ] || { printf 'wanted: %s\ngot:    %s\n' "$1" "$2"; false; }; }
# What a command wrote, both streams, without carriage returns, and its exit code behind it: "text [code]".
said() {
    local text code=0
    text=$(timeout 60 bash -c '"$@"' said "$@" 2>&1 </dev/null | tr -d '\r'; exit "${PIPESTATUS[0]}") || code=$?
    echo "$text [$code]"
}
gives() { local wanted=$1; shift; same "$wanted" "$(said "$@")"; } # "text [code]", command...
# What a command writes that reads a word and then the end; the end comes late because ctr misses an early one.
fed() { { echo word; sleep 1; } | timeout 20 "$@" 2>&1 || echo "[$?]"; }
# The command ends with this code whatever it says; what it says is shown when it does not.
ends() { local code=$1 got; shift; got=$(said "$@"); [ "${got##* }" = "[$code]" ] || { printf 'wanted code %s\n%s\n' "$code" "$got"; false; }; }
has() { local got; got=$(said "${@:2}"); [[ $got == *"$1"* ]] || { printf 'wanted in it: %s\ngot: %s\n' "$1" "$got"; false; }; }
within() { local most=$1 before=$SECONDS; shift; timeout 60 bash -c '"$@"' within "$@" && [ $((SECONDS - before)) -le "$most" ] || { echo "took $((SECONDS - before)) s or failed"; false; }; }
# Until a command succeeds, five seconds at most.
until_() { for _ in $(seq 50); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done; echo "never: $*"; "$@"; }

# A file of the group of a process: pid, controller of version 1, its file there, the file of version 2.
limit() {
    local at
    at=$(sed -nE "s/^[0-9]+:([a-z_,]*,)?$2(,[a-z_,]*)?:(.*)/\3/p" "/proc/$1/cgroup")
    if [ -n "$at" ]; then cat "/sys/fs/cgroup/$2$at/$3"; else cat "/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$1/cgroup")/$4"; fi
}
frozen() { # pid, frozen or thawed
    local state at
    state=$(limit "$1" freezer freezer.state cgroup.events | tr '\n' ' ')
    # Beside version 1 a hierarchy of version 2 may be there, which freezes better.
    at=/sys/fs/cgroup/unified$(sed -n 's/^0:://p' "/proc/$1/cgroup")/cgroup.events
    if [ -f "$at" ]; then state+=$(cat "$at"); fi
    if [[ $state == *FROZEN* || $state == *"frozen 1"* ]]; then state=frozen; else state=thawed; fi
    same "$2" "$state"
}
# Where our state is: podman does not say where to keep it (its cleanup forgets --runtime-flag), the others do.
states() { find /run/runc "$work/state" "$work"/exec/runtime-* "$@" 2>/dev/null; }
trace() { find /sys/fs/cgroup -type d -name "*$1*" 2>/dev/null; states -name "*$1*"; grep -F "$1" /proc/self/mountinfo; }
# Engines clean up after the command has returned: a while is given.
none() { for _ in $(seq 50); do [ -n "$("$@")" ] || return 0; sleep 0.1; done; "$@"; false; }
no_trace() { none trace "$1"; } # name: neither a group, nor state of ours, nor a mount has it in its name
our_states() { states -type f -exec grep -lsF "$work/" {} +; }
some() { [ -n "$("$@")" ] || { echo "nothing: $*"; false; }; }
container_groups() { groups | grep -E '/((libpod-)?[0-9a-f]{64}|one|a|b|c)$'; }

podman_() (
    cd "$work" # its monitor notes a lack of memory in the folder it was started in
    CONTAINERS_CONF=$work/containers.conf podman --root "$work/podman" --runroot "$work/podman-run" --tmpdir "$work/podman-tmp" \
        --storage-driver vfs --cgroup-manager cgroupfs --events-backend file \
        --runtime "$runtime" "$@"
)
docker_() { DOCKER_CONFIG=$work/docker-config DOCKER_HOST=unix://$work/docker.sock docker "$@"; }
ctr_() { ctr --address "$work/containerd.sock" --namespace dhow "$@"; }
export -f podman_ docker_ ctr_
export work runtime group

# The command lines of docker and podman are alike: the same checks for both.
e() { bash -c '"$@"' e "${engine}_" "$@"; }
run() { e run --network none --cgroup-parent "/$group" "$@"; }
pid_of() { e inspect --format '{{.State.Pid}}' "$1"; }
state_of() { e inspect --format '{{.State.Status}} {{.State.ExitCode}}' "$1"; }
logged() { e logs "$1" 2>&1 | grep -q "$2"; }
export -f e run pid_of state_of logged

cases() {
    local pid id code
    export engine
    check "output and the exit code" gives 'out [7]' bash -c 'run --rm busy:1 sh -c "echo out; echo err >&2; exit 7" 2>/dev/null'
    check "what is written to standard error" gives 'err [0]' bash -c 'run --rm busy:1 sh -c "echo out; echo err >&2" 2>&1 >/dev/null'
    check "standard input" same word "$(fed bash -c 'run --rm -i busy:1 cat')"
    check "a terminal" gives '/dev/pts/0 [0]' bash -c 'run --rm -t busy:1 tty'
    check "a missing program gives 127" ends 127 bash -c 'run --rm busy:1 /no/such'
    check "a file that is no program gives 126" ends 126 bash -c 'run --rm busy:1 /etc/plain'
    check "a user, a folder, a variable" gives $'1234 5\n/tmp\nb [0]' bash -c 'run --rm -u 1234:5 -w /tmp -e A=b busy:1 sh -c "echo \$(id -u) \$(id -g); pwd; echo \$A"'
    check "a host name" gives 'elsewhere [0]' bash -c 'run --rm --hostname elsewhere busy:1 hostname'
    check "the filter of system calls is on" has $'Seccomp:\t2' bash -c 'run --rm busy:1 grep Seccomp: /proc/self/status'
    check "no new privileges" has $'NoNewPrivs:\t1' bash -c 'run --rm --security-opt no-new-privileges busy:1 grep NoNewPrivs /proc/self/status'
    check "no capability is left when all are dropped" has $'CapEff:\t0000000000000000' bash -c 'run --rm --cap-drop ALL busy:1 grep CapEff /proc/self/status'
    check "a root that cannot be written" ends 1 bash -c 'run --rm --read-only busy:1 touch /file'
    check "a folder of the host" gives 'text [0]' bash -c 'run --rm -v "$work/fs/etc:/host:ro" busy:1 cat /host/plain'
    check "a folder of the host, read-only" ends 1 bash -c 'run --rm -v "$work/fs/etc:/host:ro" busy:1 touch /host/file'
    check "a file system in memory" has 'tmpfs [0]' bash -c 'run --rm --tmpfs /mem busy:1 stat -f -c %T /mem'
    check "the host's network" same "$(readlink /proc/self/ns/net) [0]" "$(said bash -c 'e run --rm --cgroup-parent "/$group" --network host busy:1 /bin/busybox readlink /proc/self/ns/net')"
    check "the host's processes" same "$(readlink /proc/self/ns/pid) [0]" "$(said bash -c 'run --rm --pid host busy:1 /bin/busybox readlink /proc/self/ns/pid')"
    if [ $((0x$(sed -n 's/^CapBnd:\t//p' /proc/self/status))) != $(((1 << ($(cat /proc/sys/kernel/cap_last_cap) + 1)) - 1)) ] && [ "$engine" = docker ]; then
        skip "privileged" "docker asks for every capability, and this script's caller has not got them all"
    else check "privileged" has $'Seccomp:\t0' bash -c 'run --rm --privileged busy:1 grep Seccomp: /proc/self/status'; fi
    check "a process that takes too much memory is killed" ends 137 bash -c 'run --name "$group-oom" --memory 24m --memory-swap 24m busy:1 tail /dev/zero'
    if [ "$engine $cgroups" = "podman v1" ]; then
        skip "and the engine knows why" "podman 4.3 does not find its monitor's note of it on cgroup v1, with runc neither"
    else check "and the engine knows why" gives 'true [0]' e inspect --format '{{.State.OOMKilled}}' "$group-oom"; fi
    e rm -f "$group-oom" >/dev/null 2>&1 || true

    check "a container in the background" ends 0 bash -c 'run -d --name "$group-one" --memory 64m --cpus 0.5 --cpu-shares 512 --pids-limit 50 --cpuset-cpus 0 --device /dev/fuse \
        busy:1 sh -c "trap \"echo usr1\" USR1; trap \"exit 3\" TERM; echo ready; while :; do sleep 0.1; done"'
    check "its output is logged" until_ logged "$group-one" ready
    check "it runs" gives 'running 0 [0]' state_of "$group-one"
    check "our state has it" some our_states
    pid=$(pid_of "$group-one" || echo 0)
    check "its memory is limited" same 67108864 "$(limit "$pid" memory memory.limit_in_bytes memory.max)"
    check "its processes are limited" same 50 "$(limit "$pid" pids pids.max pids.max)"
    check "its time is limited" same 50000 "$(limit "$pid" cpu cpu.cfs_quota_us cpu.max | cut -d ' ' -f 1)"
    check "its processors are chosen" same 0 "$(limit "$pid" cpuset cpuset.cpus cpuset.cpus)"
    id=$(e inspect --format '{{.Id}}' "$group-one")
    check "exec: output and exit code" gives $'inside [5]' e exec "$group-one" sh -c 'echo inside; exit 5'
    check "exec: standard input" same word "$(fed bash -c 'e exec -i "$group-one" cat')"
    check "exec: a terminal" has '/dev/pts/' e exec -t "$group-one" tty
    check "exec: a user, a folder, a variable" gives $'77\n/tmp\nb [0]' e exec -u 77 -w /tmp -e A=b "$group-one" sh -c 'id -u; pwd; echo $A'
    code=127; if [ "$engine" = docker ] && [[ $(docker_ version --format '{{.Server.Version}}') == 20.* ]]; then code=126; fi # docker's own choice before 23
    check "exec: a missing program gives $code" ends "$code" e exec "$group-one" /no/such
    check "exec: in the background" ends 0 e exec -d "$group-one" sh -c 'echo there >/tmp/mark'
    check "and it ran" until_ e exec "$group-one" cat /tmp/mark
    check "top names its processes" has 'sleep 0.1' e top "$group-one"
    check "stats" has '/ 6' e stats --no-stream --format '{{.MemUsage}}' "$group-one"
    check "pause" ends 0 e pause "$group-one"
    check "it is frozen" frozen "$pid" frozen
    check "the engine sees it paused" gives 'paused 0 [0]' state_of "$group-one"
    check "unpause" ends 0 e unpause "$group-one"
    check "it is thawed" frozen "$pid" thawed
    check "update of memory" ends 0 e update --memory 96m --memory-swap 192m "$group-one"
    check "the limit is another" same 100663296 "$(limit "$pid" memory memory.limit_in_bytes memory.max)"
    check "a signal" ends 0 e kill -s USR1 "$group-one"
    check "arrives" until_ logged "$group-one" usr1
    check "stop in less than its time" within 5 e stop -t 20 "$group-one"
    check "the exit code is kept" gives 'exited 3 [0]' state_of "$group-one"
    check "no group and no state is left of it" no_trace "$id"
    check "start again" ends 0 e start "$group-one"
    check "restart" ends 0 e restart -t 5 "$group-one"
    check "rm of one that runs" ends 0 e rm -f "$group-one"
    check "nothing is left of that" no_trace "$id"

    ends 0 bash -c 'run -d --name "$group-two" busy:1 sleep 1000' >/dev/null || true
    id=$(e inspect --format '{{.Id}}' "$group-two")
    check "kill" ends 0 e kill "$group-two"
    check "wait gives 137" gives '137 [0]' e wait "$group-two"
    ends 0 e start "$group-two" >/dev/null || true
    check "stop of one that ignores the signal kills it after the time" within 6 e stop -t 1 "$group-two"
    check "with 137" gives 'exited 137 [0]' state_of "$group-two"
    check "rm" ends 0 e rm "$group-two"
    check "nothing is left of it" no_trace "$id"
    check "our state is empty" none our_states
    check "no group is left" none container_groups
}

podman_checks() {
    command -v podman >/dev/null || { skip "all" "podman is not installed"; return; }
    engine=podman
    # Without CAP_SYS_RESOURCE no limit can be raised: these are below any host's.
    printf '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\n' >"$work/containers.conf"
    echo "podman:     $(podman --version)"
    podman_ import "$work/fs.tar" busy:1 >/dev/null 2>"$work/log" || { cat "$work/log"; failed=$((failed + 1)); echo "FAILED  podman: import"; return; }
    check "it names our runtime" gives "$runtime [0]" podman_ info --format '{{.Host.OCIRuntime.Path}}'
    cases
}

docker_checks() {
    command -v dockerd >/dev/null && command -v docker >/dev/null || { skip "all" "docker is not installed"; return; }
    engine=docker
    mkdir -p "$work/docker-config"
    echo '{}' >"$work/daemon.json"
    dockerd --config-file "$work/daemon.json" --host "unix://$work/docker.sock" --data-root "$work/docker" --exec-root "$work/exec" \
        --pidfile "$work/docker.pid" --bridge none --iptables=false --ip6tables=false --storage-driver vfs \
        --exec-opt native.cgroupdriver=cgroupfs --add-runtime "dhow=$runtime" --default-runtime dhow >"$work/dockerd.log" 2>&1 &
    daemon=$!
    if ! until_ docker_ version >/dev/null && ! until_ docker_ version >/dev/null; then
        failed=$((failed + 1)); echo "FAILED  docker: dockerd does not start"; tail -n 5 "$work/dockerd.log"; end_daemon; return
    fi
    echo "docker:     server $(docker_ version --format '{{.Server.Version}}'), client $(docker_ version --format '{{.Client.Version}}')"
    docker_ import "$work/fs.tar" busy:1 >/dev/null
    check "it names our runtime" gives "dhow [0]" docker_ info --format '{{.DefaultRuntime}}'
    cases
    end_daemon
    check "nothing of the daemon is left mounted" same "" "$(grep -F "$work/" /proc/self/mountinfo | grep -v netns || true)"
}

if_ctr() { ctr_ run --runtime io.containerd.runc.v2 --runc-binary "$runtime" --runc-root "$work/state/containerd" --rootfs "$@"; }
task_is() { ctr_ task ls | awk -v id="$1" '$1 == id { print $3 }' | grep -qx "$2"; }
task_pid() { ctr_ task ls | awk -v id="$1" '$1 == id { print $2 }'; }
export -f if_ctr

containerd_checks() {
    local pid
    command -v containerd >/dev/null && command -v ctr >/dev/null || { skip "all" "containerd is not installed"; return; }
    engine=containerd
    printf 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n' >"$work/containerd.toml"
    containerd --config "$work/containerd.toml" --root "$work/containerd" --state "$work/containerd-state" \
        --address "$work/containerd.sock" >"$work/containerd.log" 2>&1 &
    daemon=$!
    if ! until_ ctr_ version >/dev/null; then
        failed=$((failed + 1)); echo "FAILED  containerd: does not start"; tail -n 5 "$work/containerd.log"; end_daemon; return
    fi
    echo "containerd: $(containerd --version)"
    check "output and exit code" gives 'out [7]' bash -c 'if_ctr --rm --cgroup "/$group/a" "$work/fs" ctr-a sh -c "echo out; echo err >&2; exit 7" 2>/dev/null'
    check "standard input" same word "$(fed bash -c 'if_ctr --rm --cgroup "/$group/b" "$work/fs" ctr-b cat')"
    check "a missing program is told" has 'no such file or directory' bash -c 'if_ctr --rm --cgroup "/$group/c" "$work/fs" ctr-c /no/such'
    check "nothing is left of these" no_trace ctr-
    check "a container in the background" ends 0 bash -c 'if_ctr -d --cgroup "/$group/one" --memory-limit 67108864 --cpus 0.5 "$work/fs" ctr-one sh -c "trap \"exit 3\" TERM; while :; do sleep 0.1; done"'
    check "it runs" task_is ctr-one RUNNING
    check "our state has it" some our_states
    pid=$(task_pid ctr-one)
    check "its memory is limited" same 67108864 "$(limit "$pid" memory memory.limit_in_bytes memory.max)"
    check "its time is limited" same 50000 "$(limit "$pid" cpu cpu.cfs_quota_us cpu.max | cut -d ' ' -f 1)"
    check "exec: output and exit code" gives 'inside [5]' ctr_ task exec --exec-id x1 ctr-one sh -c 'echo inside; exit 5'
    if command -v script >/dev/null; then
        check "exec: a terminal" has '/dev/pts/' script -qec 'ctr_ task exec -t --exec-id x2 ctr-one tty' /dev/null
    else
        skip "exec: a terminal" "script is not installed, and ctr wants one of its own"
    fi
    check "exec: a missing program is told" has 'no such file or directory' ctr_ task exec --exec-id x3 ctr-one /no/such
    check "ps names its process" has "$pid" ctr_ task ps ctr-one
    check "metrics" has memory ctr_ task metrics ctr-one
    check "pause" ends 0 ctr_ task pause ctr-one
    check "it is frozen" frozen "$pid" frozen
    check "containerd sees it paused" task_is ctr-one PAUSED
    check "resume" ends 0 ctr_ task resume ctr-one
    check "it is thawed" frozen "$pid" thawed
    skip "update of memory" "ctr has no such verb"
    check "kill with a signal" ends 0 ctr_ task kill -s TERM ctr-one
    check "it ends" until_ task_is ctr-one STOPPED
    check "the exit code is kept" has 'exit code 3' ctr_ task rm ctr-one
    check "rm" ends 0 ctr_ container rm ctr-one
    check "nothing is left of it" no_trace ctr-one
    check "no group is left" none container_groups
    check "our state is empty" none our_states
    end_daemon
}

kernel=$(uname -r); cgroups=$([ -f /sys/fs/cgroup/cgroup.controllers ] && echo v2 || echo v1)
echo "runtime:    $("$runtime" --version | head -n 1), Linux ${kernel%%-*}, cgroup $cgroups"
for wanted in "$@"; do engine=$wanted; "${wanted}_checks"; done

echo
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
