# shellcheck shell=bash
# A real LXD in the acceptance: its containers are servers as long as they run. Sourced. On demand, in an image of its own.

: "${here:?the acceptance says where it is}" "${talk:?and how it talks}"

# An image that has nothing but busybox: it greets whoever connects with its name, and goes when it is told to.
make_lxd_image() {
    local image=/tmp/lxd-image
    mkdir -p $image/rootfs/{bin,sbin,dev,etc,proc,root,run,sys,tmp,usr,var}
    cp /bin/busybox $image/rootfs/bin/
    printf 'architecture: x86_64\ncreation_date: 1700000000\nproperties: { description: busybox }\n' >$image/metadata.yaml
    cat >$image/rootfs/sbin/init <<'END'
#!/bin/busybox sh
trap 'exit 0' PWR TERM
/bin/busybox ip link set lo up
/bin/busybox ip link set eth0 up
/bin/busybox udhcpc -b -i eth0 -s /etc/udhcpc.script
/bin/busybox nc -ll -p 8000 -e /bin/busybox hostname &
/bin/busybox nc -ll -p 9000 -e /bin/busybox hostname &
while :; do
    /bin/busybox sleep 3600 &
    wait $!
done
END
    cat >$image/rootfs/etc/udhcpc.script <<'END'
#!/bin/busybox sh
[ "$1" != bound ] || /bin/busybox ip address add "$ip/$mask" dev "$interface"
END
    chmod 755 $image/rootfs/sbin/init $image/rootfs/etc/udhcpc.script
    tar -c -C $image --owner=0 --group=0 -f $image.tar metadata.yaml rootfs
    lxc image import $image.tar --alias busybox
}

# What `lxd init` asks for.
init_lxd() {
    lxd init --preseed <<'END'
networks:
- { name: lxdbr0, type: bridge, config: { ipv4.address: 10.78.0.1/24, ipv6.address: none } }
storage_pools:
- { name: default, driver: dir }
profiles:
- name: default
  devices:
    eth0: { type: nic, name: eth0, network: lxdbr0 }
    root: { type: disk, path: /, pool: default }
- { name: web, config: { user.role: web } }
END
}

# make_container NAME NUMBER ARGUMENTS... : it will be given the address 10.78.0.NUMBER.
make_container() {
    lxc --quiet init busybox "$1" "${@:3}" && lxc config device override "$1" eth0 "ipv4.address=10.78.0.$2"
}

make_containers() {
    make_container web-a 11 --profile default --profile web && make_container web-b 12 --profile default --profile web &&
        make_container db 13
}

# The network over which a client of LXD's is asked who it is, and the certificate of this one.
lxd_by_network() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=convey \
        -keyout /etc/convey/lxd.key -out /etc/convey/lxd.crt &&
        cp /var/lib/lxd/server.crt /etc/convey/lxd-server.crt && chgrp convey /etc/convey/lxd* && chmod 640 /etc/convey/lxd* &&
        lxc config trust add /etc/convey/lxd.crt && lxc config set core.https_address "127.0.0.1:8443"
}

# lxd_configuration MORE : a frontend with the containers that have user.role=web.
lxd_configuration() {
    cat <<END
[global]
watch_config = false
shutdown_timeout = "5s"

[frontends.apps]
listen_addr = "10.77.0.1:80"
backend = "apps"

[backends.apps]
balance = "round_robin"
health_check = { interval = "2s", timeout = "10s" }

[backends.apps.discovery]
kind = "lxd"
labels = ["user.role=web"]
port = 8000
interval = "2s"
timeout = "60s"
$1
END
}

# servers_are NAME=ADDRESS... : these are the servers, and all of them are eligible; of a weight beyond 1 NAME=ADDRESS*WEIGHT.
servers_are() {
    local shown
    shown=$(convey status --json | python3 -c 'import json, sys
servers = json.load(sys.stdin)["backends"]["apps"]["servers"].items()
weight = lambda server: "" if server["weight"] == 1 else "*%d" % server["weight"]
print(*(name + "=" + server["addr"] + weight(server) for name, server in sorted(servers) if server["eligible"]))')
    [ "$shown" = "$*" ] || { say "the servers are: $shown"; return 1; }
}

phase_lxd() {
    if ! command -v lxc >/dev/null; then
        record SKIPPED "there is no LXD in this machine"
        return
    fi
    check "LXD listens" within 300 lxc query /1.0 || return
    check "LXD has a bridge and a pool" init_lxd || return
    check "LXD takes an image" make_lxd_image || return
    check "LXD makes two containers of a profile, and one that is no web server" make_containers || return
    check "which start" lxc start web-a web-b db || return

    lxd_configuration '' | put_configuration
    check "a reload asks LXD" systemctl reload convey
    check "who does not let Convey in" within 120 journal_has 'unix.socket: permission denied \(this user may not write to the socket' -u convey
    check "README: usermod -aG lxd convey" usermod -aG lxd convey
    check "and a restart" systemctl restart convey
    check "the containers of the profile are servers" within 120 servers_are web-a=10.78.0.11:8000 web-b=10.78.0.12:8000
    check "and serve" within 60 answers 10.77.0.1:80 web-a web-b

    check "a container is stopped" lxc stop web-a --timeout 60
    check "and is no server any more" within 60 servers_are web-b=10.78.0.12:8000
    check "the other serves" answers 10.77.0.1:80 web-b
    check "it is started" lxc start web-a
    check "and is a server again" within 120 servers_are web-a=10.78.0.11:8000 web-b=10.78.0.12:8000
    check "both serve" within 60 answers 10.77.0.1:80 web-a web-b
    check "one is frozen" lxc pause web-b
    check "and is no server any more" within 60 servers_are web-a=10.78.0.11:8000
    check "it goes on" lxc start web-b
    check "and is a server again" within 120 servers_are web-a=10.78.0.11:8000 web-b=10.78.0.12:8000

    check "keys make a container a server" lxc config set db user.role=web user.convey.port=9000 user.convey.weight=3
    check "at the port and with the weight that they say" within 60 servers_are 'db=10.78.0.13:9000*3' web-a=10.78.0.11:8000 web-b=10.78.0.12:8000
    check "which serves" within 60 answers 10.77.0.1:80 db web-a web-b
    check "it is taken back" lxc config unset db user.role
    check "and the container is none any more" within 60 servers_are web-a=10.78.0.11:8000 web-b=10.78.0.12:8000

    check "LXD stops, its containers go on" systemctl stop lxd.service lxd.socket
    check "which is said" within 120 journal_has 'backend apps: instances user.role=web of unix:.*its servers stay as they are' -u convey
    check "the servers stay" servers_are web-a=10.78.0.11:8000 web-b=10.78.0.12:8000
    check "and serve on" answers 10.77.0.1:80 web-a web-b
    check "LXD starts" systemctl start lxd.socket lxd.service
    check "and is asked again" within 120 journal_has 'backend apps: instances user.role=web of unix:.* is read again' -u convey

    check "LXD listens on the network, and trusts a certificate" lxd_by_network || return
    lxd_configuration 'url = "https://127.0.0.1:8443"
tls = { ca = "/etc/convey/lxd-server.crt", cert = "/etc/convey/lxd.crt", key = "/etc/convey/lxd.key" }' | put_configuration
    check "a reload asks it there" systemctl reload convey
    check "it is stopped" lxc stop web-b --timeout 60
    check "and Convey hears of it" within 120 servers_are web-a=10.78.0.11:8000
    check "the other serves" answers 10.77.0.1:80 web-a
    # the machine's end would wait for them
    check "LXD stops them all" lxc stop --all --force
}
