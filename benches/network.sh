#!/bin/bash
# What a container's network carries, beside the same topology made by hand: pairs of veth on a bridge, a DNAT rule of nft.
# Usage: benches/network.sh [SECONDS [ROUNDS]], as root, with iperf3, ip, nft and jq; DHOW is the program (default dist/dhow).
# Both sides of a row are measured in turn in every round; a row is the medians in Gbit/s and the median of the ratios.
set -u
SECONDS_OF_RUN=${1:-3}
ROUNDS=${2:-5}
DHOW=$(realpath "${DHOW:-$(dirname "$0")/../dist/dhow}")
work=$(mktemp -d)
root=$work/root
dhow() { "$DHOW" --root "$root" "$@"; }

finish() {
    [ -s "$work/servers" ] && kill $(cat "$work/servers") 2>/dev/null
    for id in $(dhow ps -aq); do dhow rm -f "$id" >/dev/null; done
    dhow system teardown >/dev/null 2>&1
    for name in hand-a hand-b out; do ip netns del "bench-$name" 2>/dev/null; done
    ip link del bench-br 2>/dev/null
    ip link del bench-up 2>/dev/null
    nft delete table inet bench-hand 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT

# The image is busybox, which runs nothing but sleep: iperf3 is the host's, in the container's network.
mkdir -p "$work/tree/bin" && cp "$(command -v busybox)" "$work/tree/bin/busybox" && ln -s busybox "$work/tree/bin/sleep"
tar -C "$work/tree" -c . | dhow import - bench >/dev/null || exit 1

dhow run -d --name one bench sleep 100000 >/dev/null || exit 1
dhow run -d --name two -p 5401:5201 bench sleep 100000 >/dev/null || exit 1
pid() { dhow inspect -f '{{.State.Pid}}' "$1"; }
address=$(dhow inspect -f '{{.NetworkSettings.IPAddress}}' two)
# It follows the uplink; packets of another size would be compared with it otherwise.
mtu=$(nsenter -n -t "$(pid one)" ip -j link show eth0 | jq ".[0].mtu")

# By hand: two namespaces on a bridge, as a container has it; forwarding, masquerading and one published port.
ip link add bench-br type bridge && ip addr add 10.213.0.1/24 dev bench-br && ip link set bench-br mtu "$mtu" up
for end in a:2 b:3; do
    name=${end%:*}
    ip netns add "bench-hand-$name"
    ip link add "bench-$name" mtu "$mtu" type veth peer name eth0 mtu "$mtu" netns "bench-hand-$name"
    ip link set "bench-$name" master bench-br up
    ip -n "bench-hand-$name" addr add "10.213.0.${end#*:}/24" dev eth0
    ip -n "bench-hand-$name" link set eth0 up
    ip -n "bench-hand-$name" link set lo up
    ip -n "bench-hand-$name" route add default via 10.213.0.1
done
# Somebody outside, on a wire of the host.
ip netns add bench-out
ip link add bench-up type veth peer name eth0 netns bench-out
ip addr add 10.214.0.1/24 dev bench-up && ip link set bench-up up
ip -n bench-out addr add 10.214.0.2/24 dev eth0 && ip -n bench-out link set eth0 up && ip -n bench-out link set lo up
ip -n bench-out route add default via 10.214.0.1
sysctl -qw net.ipv4.ip_forward=1
nft -f - <<'RULES'
table inet bench-hand {
    chain pre { type nat hook prerouting priority -100; fib daddr type local tcp dport 5402 dnat ip to 10.213.0.3:5201; }
    chain out { type nat hook output priority -100; fib daddr type local tcp dport 5402 dnat ip to 10.213.0.3:5201; }
    chain post { type nat hook postrouting priority 100; ip saddr 10.213.0.0/24 oifname != "bench-br" masquerade; }
}
RULES

serve() { "$@" iperf3 -s -p 5201 >/dev/null 2>&1 & echo $! >> "$work/servers"; }
serve nsenter -n -t "$(pid two)"
serve ip netns exec bench-hand-b
sleep 1

# Gbit/s of one stream: command prefix, address, port, further options of iperf3.
rate() {
    local where=$1 host=$2 port=$3
    shift 3
    $where iperf3 -c "$host" -p "$port" -t "$SECONDS_OF_RUN" -J "$@" 2>/dev/null \
        | jq '.end.sum_received.bits_per_second / 1e9'
}

row() { # name, ours (words), by hand (words)
    : > "$work/row"
    for _ in $(seq "$ROUNDS"); do
        printf '[%s,%s]\n' "$(eval "$2")" "$(eval "$3")" >> "$work/row"
    done
    jq -rs --arg name "$1" '
        def median: sort | if length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end;
        def hundredth: . * 100 | round / 100;
        "\($name)\t\([.[][0]] | median | hundredth)\t\([.[][1]] | median | hundredth)\t\([.[] | .[0] / .[1]] | median | . * 1000 | round / 1000)"' "$work/row"
}

printf 'what\tdhow Gbit/s\tby hand Gbit/s\tratio\n'
ours="nsenter -n -t $(pid one)"
hand="ip netns exec bench-hand-a"
outside="ip netns exec bench-out"
row 'container to container' "rate '$ours' $address 5201" "rate '$hand' 10.213.0.3 5201"
row 'container to container, back' "rate '$ours' $address 5201 -R" "rate '$hand' 10.213.0.3 5201 -R"
row 'container to container, 4 streams' "rate '$ours' $address 5201 -P 4" "rate '$hand' 10.213.0.3 5201 -P 4"
row 'outside to a published port' "rate '$outside' 10.214.0.1 5401" "rate '$outside' 10.214.0.1 5402"
row 'outside to a published port, back' "rate '$outside' 10.214.0.1 5401 -R" "rate '$outside' 10.214.0.1 5402 -R"
row 'host to a published port' "rate '' 10.214.0.1 5401" "rate '' 10.214.0.1 5402"

# What has no counterpart by hand: beside the packet filter's way to the same container.
row 'host to ::1, by the relay' "rate '' ::1 5401" "rate '' 127.0.0.1 5401"
