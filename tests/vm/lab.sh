# shellcheck shell=bash
# The load balancer's surroundings in the acceptance: network, servers, clients, configuration. Sourced.

: "${kept:?the acceptance says where its programs are}" "${talk:?and how it talks}"

# ── the network ───────────────────────────────────────────────────────────────────────────────────────────────────────

host() {
    ip netns add "$1"
    ip -n "$1" link set lo up
    ip link add eth0 netns "$1" type veth peer name "p-$1" netns switch
    ip -n switch link set "p-$1" master br0 up
    ip -n "$1" address add "$2/24" dev eth0
    ip -n "$1" link set eth0 up
    # answers leave by it; clients are on the link, so nothing goes there
    [ "$1" = client ] || ip -n "$1" route add default via 10.77.0.100
}

network() {
    set -e
    ip netns add switch
    ip -n switch link add br0 type bridge
    ip -n switch link set br0 up
    ip link add lb0 type veth peer name p-lb netns switch
    ip -n switch link set p-lb master br0 up
    ip address add 10.77.0.1/24 dev lb0
    for vip in 80 90 91; do ip address add 10.77.0.$vip/32 dev lb0; done
    ip link set lb0 up
    host client 10.77.0.100
    # the kernel takes every other port first: of the usual 28,000 half would be searched through for each of the crowd's last
    # connections
    on client sysctl -q net.ipv4.ip_local_port_range="1024 65535"
    host one 10.77.0.11
    host two 10.77.0.12
    host three 10.77.0.13
}

# What stands in for other machines comes up at boot, as they would.
install_network() {
    cat >/etc/systemd/system/lab-network.service <<END
[Unit]
Before=network.target network-online.target convey.service
DefaultDependencies=no
After=local-fs.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=$kept/acceptance network
[Install]
WantedBy=network-online.target multi-user.target
END
    cat >/etc/systemd/system/lab-server@.service <<END
[Unit]
After=lab-network.service
[Service]
NetworkNamespacePath=/run/netns/%i
ExecStart=/usr/bin/${talk[*]} serve %i 0.0.0.0:8000 0.0.0.0:9000
LimitNOFILE=1048576
[Install]
WantedBy=multi-user.target
END
    local name
    for name in video-one video-two videonft-three; do
        # the unit of the package, on that host
        mkdir -p "/etc/systemd/system/convey-backend@$name.service.d"
        printf '[Unit]\nAfter=lab-network.service\n[Service]\nNetworkNamespacePath=/run/netns/%s\n' "${name#*-}" \
            >"/etc/systemd/system/convey-backend@$name.service.d/host.conf"
    done
    systemctl daemon-reload
    systemctl enable --quiet --now lab-network.service lab-server@{one,two,three}.service
}

on() { ip netns exec "$@"; }

# ── clients

# answers ADDRESS:PORT SERVERS... : these servers answer, and nothing fails.
answers() {
    local verb=ask said server
    [ "$1" != udp ] || { verb=datagrams; shift; }
    local to=$1
    shift
    said=$(on client "${talk[@]}" $verb "$to" 24)
    for server; do
        [[ " $said " =~ " $server="[0-9]+" " ]] || { say "$server is missing: $said"; return 1; }
    done
    [ "$(wc -w <<<"$said")" -eq $# ] || { say "more than that: $said"; return 1; }
}

all_modes_answer() {
    answers 10.77.0.1:80 one two three && answers 10.77.0.80:8000 one two three &&
        answers udp 10.77.0.80:5300 one two three && answers 10.77.0.90:9000 one two && answers 10.77.0.91:8080 three
}

# start_client NAME VERB ARGUMENTS... : runs on the client, once it has a connection, until stop_client NAME, which prints what
# it said last.
start_client() {
    local name=$1
    shift
    rm -f "/tmp/$name.stop"
    on client "${talk[@]}" "$@" "/tmp/$name.stop" >"/tmp/$name.said" 2>&1 </dev/null &
    printf '%s\n' $! >"/tmp/$name.pid"
    [ "$1" = idle ] || within 60 grep -q '^connected' "/tmp/$name.said"
}

stop_client() {
    touch "/tmp/$1.stop"
    tail --pid="$(cat "/tmp/$1.pid")" -f /dev/null
    tail -n 1 "/tmp/$1.said"
}

is_unbroken() { case $(cat "/tmp/$1.said") in *unbroken*) ;; *) cat "/tmp/$1.said"; return 1 ;; esac; }

# A connection that the killed process had may be reset.
none_refused() { grep -qE '(^| )ok=[0-9]' "/tmp/$1.said" && not grep ConnectionRefused "/tmp/$1.said"; }

only_ok() { grep -qE '^ok=[0-9]+$' "/tmp/$1.said" || { cat "/tmp/$1.said"; return 1; }; }

# ── what tc does on the first server

# What is done on lo, which nothing else touches, is seen after everything that was done before it.
tc_mark() {
    on one tc qdisc add dev lo clsact && on one tc qdisc del dev lo clsact
    grep -q 'dev lo' /tmp/tc.seen
}

watch_tc() {
    ip netns exec one tc monitor >/tmp/tc.seen &
    # shellcheck disable=SC2034 # for the acceptance
    tc_monitor=$!
    within 60 tc_mark
}

tc_marks() { grep -c 'dev lo' /tmp/tc.seen; }

has_more_marks_than() { [ "$(tc_marks)" -gt "$1" ]; }

# Everything until now that was done on other interfaces.
tc_seen() {
    local before
    before=$(tc_marks)
    tc_mark
    within 60 has_more_marks_than "$before" && { grep -v 'dev lo' /tmp/tc.seen || true; }
}

tc_did_nothing() {
    local seen
    seen=$(tc_seen) || return
    [ -z "$seen" ] || { say "$seen"; return 1; }
}

tc_added_before_it_deleted() {
    local seen
    seen=$(tc_seen) || return
    [[ $seen = *$'\n'deleted* && $seen != deleted* ]] || { say "$seen"; return 1; }
}

# ── the configuration ─────────────────────────────────────────────────────────────────────────────────────────────────

configuration() {
    cat <<'END'
[global]
watch_config = false      # reloads are told to happen here
shutdown_timeout = "5s"

[frontends.web]
listen_addr = "10.77.0.1:80"
backend = "web"

[frontends.plain]
listen_addr = "10.77.0.80:8000"
mode = "passthrough"
backend = "web"

[frontends.dns]
listen_addr = "10.77.0.80:5300"
mode = "passthrough"
protocol = "udp"
backend = "dns"

[frontends.video]
listen_addr = "10.77.0.90:9000"
mode = "dsr"
backend = "video"

[frontends.videonft]
listen_addr = "10.77.0.91:8080"
mode = "dsr"
backend = "videonft"

[backends.web]
balance = "round_robin"
servers.one = { addr = "10.77.0.11:8000" }
servers.two = { addr = "10.77.0.12:8000" }
servers.three = { addr = "10.77.0.13:8000" }

[backends.dns]
health_check.enabled = false
servers.one = { addr = "10.77.0.11:8000" }
servers.two = { addr = "10.77.0.12:8000" }
servers.three = { addr = "10.77.0.13:8000" }

[backends.video]
servers.one = { addr = "10.77.0.11:9000" }
servers.two = { addr = "10.77.0.12:9000" }

[backends.videonft]
dsr_method = "nft"
servers.three = { addr = "10.77.0.13:9000" }
END
}

put_configuration() { cat >/etc/convey/convey.toml; }
