# shellcheck shell=bash
# Engine xdp in a driver, and what is left of it when the daemon dies, in the acceptance. Sourced.
#
# packaging/vm gives the machine network cards on one cable. One of them takes the place of the load balancer's end of its veth,
# and card 2 that of the switch's: the same addresses, servers and clients as ever.

: "${here:?the acceptance says where it is}" "${talk:?and how it talks}"

# card NUMBER : the name of a network card, which packaging/vm has given this address.
card() { ip -o link | sed -n "s/^[0-9]*: \([^:@]*\).*52:54:00:77:00:0$1.*/\1/p"; }

# plug_in INTERFACE : the load balancer's addresses move to it.
plug_in() {
    local other vip
    for other in lb0 "$(card 1)" "$(card 3)" "$(card 4)"; do
        [ "$other" = "$1" ] || { ip address flush dev "$other" && ip link set "$other" down; }
    done
    ip address add 10.77.0.1/24 dev "$1"
    for vip in 80 90 91; do ip address add 10.77.0.$vip/32 dev "$1"; done
    ip link set "$1" up
    # nobody remembers where they were
    for other in client one two three; do on "$other" ip neighbour flush to 10.77.0.0/24; done
}

packets_are_moved_by() { has "\"engine\": *\"$1\"" "$(convey status --json)"; }

with_engine_xdp() { configuration && printf '[packet]\nengine = "xdp"\n'; }

# attached INTERFACE PATTERN : what `convey status` says of the program there.
attached() { has "^xdp on $1: $2" "$(convey status)"; }

has_program() { ip -d link show dev "$1" | grep -q 'xdp'; }

# In the driver it is `xdp`, behind it `xdpgeneric`.
is_in_driver() { has 'xdp .*prog/xdp id [0-9]+ name convey' "$(ip -d link show dev "$1" | tr '\n' ' ')" && not grep -q xdpgeneric <<<"$(ip -d link show dev "$1")"; }

# What the program has left to packet sockets until now, but for what looks unfinished by chance (one packet of 65,536).
passed() {
    convey status --json | python3 -c 'import json, sys
passed = json.load(sys.stdin)["packet"]["xdp"]["passed"]
print(sum(count for why, count in passed.items() if why != "unfinished_checksum"))'
}

# Packets of ordinary flows: none comes to user space.
nothing_is_left_to_sockets() {
    local before
    before=$(passed)
    answers 10.77.0.80:8000 one two three || return
    answers udp 10.77.0.80:5300 one two three || return
    answers 10.77.0.90:9000 one two || return
    [ "$(passed)" -eq "$before" ] && return
    convey status --json | grep -A 20 '"passed"'
    return 1
}

# ── flows

# Flows of both packet modes that talk, some that are idle, and clients that come and go.
start_flows() {
    start_client nat hold 10.77.0.80:8000
    start_client dsr hold 10.77.0.90:9000
    start_client natstorm storm 10.77.0.80:8000
    start_client dsrstorm storm 10.77.0.90:9000
    start_client idle idle 10.77.0.80:8000 "$1" 1
    check "$1 idle connections are opened" within 60 idle_connections_are_open "$1"
}

# flows_lived_on WHAT IDLE : none of them broke, and no new one was refused or had to wait for long.
flows_lived_on() {
    local client
    for client in nat dsr natstorm dsrstorm; do stop_client $client >/dev/null; done
    check "$1: the flows that talked were not broken" both_unbroken
    check "$1: every new connection was served" both_storms_ok
    check "$1: the idle ones talk" has "^alive $2 of $2\$" "$(stop_client idle)"
}

both_unbroken() { is_unbroken nat && is_unbroken dsr; }
both_storms_ok() { only_ok natstorm && only_ok dsrstorm; }

# Nobody runs: and still it is answered.
answered_by_nobody() {
    waits_for_its_restart && answers 10.77.0.80:8000 one two three && answers 10.77.0.90:9000 one two && waits_for_its_restart
}

# open_flows MODE : how many there are by `convey status`.
open_flows() {
    convey status --json | python3 -c 'import json, sys
print(json.load(sys.stdin)["packet"]["flows"][sys.argv[1]])' "$1"
}

# ── phases

# The switch gets a network card of its own.
wire_up() {
    [ -n "$(card 2)" ] || return 0
    ip link set "$(card 2)" netns switch name p-card
    ip -n switch link set p-card master br0 up
}

has_cards() { [ -n "$(card 1)" ] || { record SKIPPED "$1: the machine has no network cards, for its host has no /dev/net/tun"; return 1; }; }

# dies_and_comes_back IDLE : the daemon is killed under load, is away for ten seconds, and systemd starts it again.
dies_and_comes_back() {
    local before
    before=$(property MainPID)
    printf '[Service]\nRestartSec=10s\n' | drop_in convey
    start_flows "$1"
    kill -9 "$before"
    check "kill -9 with engine xdp: a pause comes after it" within 60 waits_for_its_restart
    check "in which the program answers new clients" answered_by_nobody
    check "then systemd starts it again" within 60 started_again "$before"
    drop_out convey
    flows_lived_on "kill -9 with engine xdp" "$1"
    check "and it has taken everything over" has_taken_over
    check "and serves it as before" within 60 all_modes_answer
}

has_taken_over() { journal_has 'its flows are taken over from' "_PID=$(property MainPID)"; }

is_restarted_under_load() {
    start_flows "$1"
    check "systemctl restart with engine xdp" systemctl restart convey
    check "and again" systemctl restart convey
    flows_lived_on "systemctl restart with engine xdp" "$1"
    check "and all are closed by convey status" within 60 none_is_open
    check "whose program is in the driver" attached "$(card 1)" native
}

# What has ended is not counted as open for ever.
none_is_open() {
    local shown
    shown=$(convey status --json | python3 -c 'import json, sys
print({name: frontend["traffic"]["connections_current"] for name, frontend in json.load(sys.stdin)["frontends"].items()}["plain"])')
    [ "$shown" -eq 0 ] || { say "$shown are open"; return 1; }
}

# falls_back INTERFACE WHY WHAT
falls_back() {
    # a restart would take over what is attached, and where
    systemctl stop convey
    plug_in "$1"
    check "$3: systemctl start" systemctl start convey
    check "$3: the program is behind it, for a reason that is said" attached "$1" "generic: .*($2)"
    check "$3: all modes answer" within 60 all_modes_answer
}

phase_xdp() {
    has_cards "engine xdp in a driver" || return 0
    local first
    first=$(card 1)
    wire_up
    plug_in "$first"
    with_engine_xdp | put_configuration
    check "systemctl restart with engine xdp" systemctl restart convey
    check "whose program this kernel loads" packets_are_moved_by xdp
    check "and the driver of a network card runs" attached "$first" native
    check "as ip link shows" is_in_driver "$first"
    check "all modes answer with it" within 60 all_modes_answer
    check "and none of their packets is left to packet sockets" nothing_is_left_to_sockets
    check "no process of the service is root" not pgrep -u root -x convey
    dies_and_comes_back 100
    is_restarted_under_load 100
    check "systemctl stop" systemctl stop convey
    check "takes the program away" not has_program "$first"
    check "and what systemd kept of it" [ "$(property NFileDescriptorStore)" -eq 0 ]
    check "and leaves no rule and no reserved port" nothing_of_the_packet_modes
    falls_back "$(card 3)" 'its driver has no native XDP, or none for what is turned on' "a driver that refuses"
    plug_in lb0
    configuration | put_configuration
    check "systemctl restart without" systemctl restart convey
    check "takes it away" not has_program "$(card 3)"
    check "and packet sockets do its work" packets_are_moved_by raw
    check "so that all modes answer" within 60 all_modes_answer
}

# ── on demand

# Ten thousand idle flows, bulk and requests, and a daemon that has a hard life.
crowded() {
    configuration
    cat <<'END'
[packet]
engine = "xdp"
nat_ports = "10000-50999"
max_ports_per_client = "off"
[frontends.bulk]
listen_addr = "10.77.0.80:5201"
mode = "passthrough"
backend = "bulk"
[frontends.requests]
listen_addr = "10.77.0.80:8080"
mode = "passthrough"
backend = "requests"
[backends.bulk]
health_check.enabled = false
servers.one = { addr = "10.77.0.11:5201" }
[backends.requests]
servers.two = { addr = "10.77.0.12:8080" }
END
}

# Lines of iperf3 in which something has arrived.
intervals() { grep ' sec ' /tmp/bulk.said | grep -vc ' 0.00 Bytes'; }

has_more_intervals_than() { [ "$(intervals)" -gt "$1" ]; }

bulk_goes_on() { kill -0 "$bulk" && within 60 has_more_intervals_than "$(($(intervals) + 3))"; }

no_request_failed() { grep -q 'requests in' /tmp/requests.said && not grep -E 'Socket errors|Non-2xx' /tmp/requests.said; }

# start_again_and_again COUNT : each of them dies while it starts.
start_again_and_again() {
    local turn before
    for ((turn = 0; turn < $1; turn++)); do
        before=$(property MainPID)
        kill -9 "$before"
        within 60 another_runs "$before" || return
        # a little further each time
        sleep "0.$((turn * 2))"
    done
}

another_runs() { [ "$(property MainPID)" -gt 0 ] && [ "$(property MainPID)" -ne "$1" ]; }

phase_survival() {
    has_cards "deaths of a daemon whose program is in a driver" || return 0
    local before requests bulk
    wire_up
    plug_in "$(card 1)"
    # most ports are to be translated to; those that were so far stay reserved over the restart
    sysctl -q -w net.ipv4.ip_local_port_range="51000 60999"
    crowded | put_configuration
    on one iperf3 -s >/dev/null 2>&1 &
    mkdir -p /tmp/web && echo fine >/tmp/web/index.html
    on two python3 -m http.server --directory /tmp/web 8080 >/dev/null 2>&1 &
    check "systemctl restart with engine xdp and a crowd" systemctl restart convey
    check "whose program is in the driver" attached "$(card 1)" native
    check "all modes answer" within 60 all_modes_answer
    start_flows 10000
    ip netns exec client iperf3 --forceflush -i 1 -b 10M -t 3600 -c 10.77.0.80 >/tmp/bulk.said 2>&1 &
    bulk=$!
    # not by `on`: a signal is to come to it
    ip netns exec client wrk -t1 -c2 -d3600s --timeout 60s http://10.77.0.80:8080/ >/tmp/requests.said 2>&1 &
    requests=$!
    check "bulk is sent" bulk_goes_on
    printf '[Service]\nRestartSec=3s\n' | drop_in convey
    before=$(property MainPID)
    kill -9 "$before"
    check "kill -9: it is started again after three seconds" within 60 started_again "$before"
    check "kill -9: bulk goes on" bulk_goes_on
    printf '[Service]\nRestartSec=100ms\n' | drop_in convey
    check "kill -9 during each of five starts" start_again_and_again 5
    check "the sixth is ready" within 60 running
    check "and bulk goes on" bulk_goes_on
    before=$(property MainPID)
    systemctl reload convey &
    kill -9 "$before"
    check "kill -9 in a reload: it is started again" within 60 started_again "$before"
    drop_out convey
    check "systemctl restart" systemctl restart convey
    check "a higher version is installed" apt_install --reinstall "$here"/convey_*.deb
    check "which runs" within 60 running
    check "bulk went on all the time" bulk_goes_on
    # wrk sleeps through the first
    within 60 sh -c "kill -INT $requests; ! kill -0 $requests" 2>/dev/null
    kill "$bulk"
    check "and no request failed" no_request_failed
    flows_lived_on "after all of it" 10000
    check "and all are closed by convey status" within 60 none_is_open
    check "all modes answer after it" within 60 all_modes_answer
    falls_back "$(card 4)" 'its driver has no native XDP' "a driver without XDP"
    ip link set "$(card 1)" mtu 9000
    falls_back "$(card 1)" 'its driver refuses native XDP.*large MTU' "a driver that refuses large packets"
    ip link set "$(card 1)" mtu 1500
}
