# shellcheck shell=bash
# High availability in the acceptance: the package's examples for keepalived and BIRD under a real systemd. Sourced.
#
# Which load balancer serves when is tests/suites/examples' matter; here it is the units that start and stop together.

examples=/usr/share/doc/convey/examples
vips=(10.77.0.80 10.77.0.90)

# ha_example FILE : with the addresses and the interface of this network, and patience with an emulated machine, in which a
# restart takes more than two seconds.
ha_example() {
    sed "s/192\.0\.2\.80/${vips[0]}/g; s/192\.0\.2\.90/${vips[1]}/g; s/interface eth0/interface lb0/; s/fall 2/fall 60/" \
        "$examples/ha/$1"
}

# has_vips INTERFACE
has_vips() {
    local vip
    for vip in "${vips[@]}"; do
        has "inet $vip/32" "$(ip -4 address show dev "$1")" || return
    done
}

no_vip() {
    local shown
    shown=$(ip -4 -o address)
    ! grep -F -e "${vips[0]}/" -e "${vips[1]}/" <<<"$shown"
}

# Monotonic time at which a unit entered or left a state, in microseconds.
since() { systemctl show --value -p "$2TimestampMonotonic" "$1"; }

# From clients that ask who has the addresses.
all_modes_answer_anew() {
    ip -n client neighbour flush all
    all_modes_answer
}

keepalived_ended_first() {
    local keepalived convey
    keepalived=$(since keepalived InactiveEnter) convey=$(since convey ActiveExit)
    [ "$keepalived" -gt 0 ] && [ "$keepalived" -le "$convey" ] && return
    say "keepalived $keepalived, convey $convey"
    return 1
}

# The commands that keepalived.service.conf gives in its comments, one a line.
commands_of_the_drop_in() { ha_example keepalived.service.conf | sed -n 's/^#   \(systemctl\)/\1/p'; }

of_this_keepalived() { printf '%s' "_SYSTEMD_INVOCATION_ID=$(property InvocationID keepalived)"; }

# Without init_fail it would become master before the script has ever succeeded.
keepalived_waited_for_convey() {
    local said
    said=$(journalctl --no-pager -o cat "$(of_this_keepalived)")
    awk '/VRRP_Script\(convey\) succeeded/ { seen = 1 } /Entering (BACKUP|MASTER)/ && !seen { exit 1 } END { exit !seen }' <<<"$said" ||
        { say "$said"; return 1; }
}

keepalived_outlives_a_restart() {
    local before monitor
    before=$(property MainPID keepalived)
    ip -o monitor address >/tmp/moves &
    monitor=$!
    check "systemctl restart convey with keepalived" systemctl restart convey
    check "all modes answer after it" within 60 all_modes_answer
    kill "$monitor"
    if [ "$(systemctl --version | awk 'NR == 1 { print $2 }')" -lt 253 ]; then
        check "it is the same keepalived" [ "$(property MainPID keepalived)" = "$before" ]
        check "and the addresses were here all the time" [ ! -s /tmp/moves ]
    else
        check "it is another keepalived" [ "$(property MainPID keepalived)" != "$before" ]
        check "and the addresses are here again" within 60 has_vips lb0
    fi
}

keepalived_leaves_in_a_crash() {
    local before monitor
    before=$(property MainPID keepalived)
    ip -o monitor address >/tmp/moves &
    monitor=$!
    kill -9 "$(property MainPID)"
    check "a crash of convey takes the addresses away" within 60 grep -q Deleted /tmp/moves
    kill "$monitor"
    check "they come back" within 60 has_vips lb0
    check "with convey: all modes answer" within 60 all_modes_answer_anew
    check "by a keepalived that has started again" [ "$(property MainPID keepalived)" != "$before" ]
}

keepalived_goes_with_convey() {
    ha_example keepalived.conf >/etc/keepalived/keepalived.conf
    mkdir -p /etc/systemd/system/keepalived.service.d
    ha_example keepalived.service.conf >/etc/systemd/system/keepalived.service.d/convey.conf
    check "keepalived.service.conf gives two commands" [ "$(commands_of_the_drop_in | wc -l)" -eq 2 ]
    check "which run" bash -ec "$(commands_of_the_drop_in)"
    check "systemctl restart convey starts keepalived too" systemctl restart convey
    check "keepalived brings the addresses here" within 60 has_vips lb0
    check "keepalived: all modes answer" within 60 all_modes_answer_anew
    keepalived_outlives_a_restart
    keepalived_leaves_in_a_crash
    check "systemctl stop convey stops keepalived" sh -c 'systemctl stop convey && ! systemctl is-active keepalived'
    check "so that the addresses are gone before convey stops serving" keepalived_ended_first
    check "none is left here" no_vip
    { configuration && echo 'nonsense = 1'; } | put_configuration
    check "with a wrong configuration convey does not start" not systemctl start convey
    check "which keepalived sees" within 60 journal_has 'VRRP_Script\(convey\) failed' "$(of_this_keepalived)"
    check "and takes no address" no_vip
    configuration | put_configuration
    check "with the right one convey starts" systemctl start convey
    check "and the addresses are here again" within 60 has_vips lb0
    check "as late as that" keepalived_waited_for_convey
    systemctl stop convey
    rm -r /etc/systemd/system/keepalived.service.d /etc/systemd/system/convey.service.wants
    rm /etc/keepalived/keepalived.conf
    systemctl daemon-reload
}

# BIRD announces what is on lo; that it does is shown elsewhere, too.
addresses_go_with_convey() {
    mkdir -p /etc/systemd/system/convey.service.d
    ha_example convey.service.conf >/etc/systemd/system/convey.service.d/vips.conf
    # long enough away to be seen
    printf '[Service]\nRestartSec=4s\n' | drop_in convey
    configuration | sed '/^mode = /a interface = "lb0"' | put_configuration
    check "with BIRD's drop-in systemctl start convey" systemctl start convey
    check "puts the addresses on lo" has_vips lo
    check "BIRD: all modes answer" within 60 all_modes_answer_anew
    local before
    before=$(property MainPID)
    kill -9 "$before"
    check "BIRD: a crash takes the addresses away" within 60 no_vip
    check "BIRD: systemd starts it again" within 60 started_again "$before"
    check "and the addresses are there again" within 60 has_vips lo
    check "BIRD: systemctl stop convey" systemctl stop convey
    check "leaves no address on lo" no_vip
    rm -r /etc/systemd/system/convey.service.d
    drop_out convey
    configuration | put_configuration
}

phase_ha() {
    check "keepalived is installed" command -v keepalived || return
    local vip
    for vip in "${vips[@]}"; do ip address del "$vip/32" dev lb0; done
    keepalived_goes_with_convey
    addresses_go_with_convey
    for vip in "${vips[@]}"; do ip address add "$vip/32" dev lb0; done
    systemctl start convey
    check "without them all modes answer as before" within 60 all_modes_answer_anew
}
