# shellcheck shell=bash
# What the acceptance checks of the service's sandbox. Sourced.

: "${kept:?the acceptance says where its programs are}"

unit=/lib/systemd/system/convey.service
# no capability, as /proc shows it
# shellcheck disable=SC2034 # for the acceptance
none=0000000000000000

processes() { cat /sys/fs/cgroup/system.slice/convey.service/cgroup.procs; }

# threads_hold PID HELD INHERITABLE : every thread is the user's, has these capabilities and no others.
threads_hold() {
    local uid wanted shown
    uid=$(id -u convey)
    wanted=$(printf '%s\n' "CapAmb: $none" "CapBnd: $none" "CapEff: $2" "CapInh: $3" "CapPrm: $2" "NoNewPrivs: 1" "Seccomp: 2" \
        "Uid: $uid $uid $uid $uid")
    shown=$(sed -n 's/\t/ /g; /^\(Uid\|Cap[A-Z][a-z]*\|NoNewPrivs\|Seccomp\):/p' /proc/"$1"/task/*/status | sort -u)
    [ "$shown" = "$wanted" ] || { say "$shown"; return 1; }
}

words() { tr ' ' '\n' <<<"$1" | sort | tr '\n' ' '; }

# Every directive of [Service] has the value that the unit gives it. How systemd shows the others cannot be compared; the
# probe tries their effect.
directives_are_set() {
    local line key value bad=0 count=0
    local -A shown
    while IFS= read -r line; do shown[${line%%=*}]=${line#*=}; done < <(systemctl show convey)
    while IFS= read -r line; do
        key=${line%%=*} value=${line#*=}
        case $key in
            Exec* | SystemCall* | AppArmorProfile) continue ;;
            Ambient* | Capability*) value=${value,,} ;;
            *Sec) key=${key%Sec}USec ;;
        esac
        count=$((count + 1))
        [ "${shown[$key]-}" = "$value" ] || [ "$(words "${shown[$key]-}")" = "$(words "$value")" ] ||
            { say "$line, but ${shown[$key]-nothing}"; bad=1; }
    done < <(sed -n '/^\[Service\]/,/^\[Install\]/p' "$unit" | grep -E '^[A-Z].*=')
    [ "$count" -ge 40 ] || { say "only $count directives seen"; bad=1; }
    [ "$bad" -eq 0 ]
}

# What the probe is told of the host, with a file that the service must not see.
probe_arguments() {
    touch /tmp/acceptance.probe
    printf '%s,%s /tmp/acceptance.probe' "$(readlink /proc/self/ns/mnt)" "$(readlink /proc/self/ns/uts)"
}

probe_outside() {
    # shellcheck disable=SC2046 # two arguments
    setpriv --reuid convey --regid convey --clear-groups python3 "$kept/probe.py" $(probe_arguments) 2>&1
}

# The probe in a unit that is convey.service in all but the program.
probe_inside() {
    local said=/run/acceptance-probe
    cp "$unit" /run/systemd/system/acceptance-probe.service
    drop_in acceptance-probe <<END
[Service]
Type=oneshot
Restart=no
WatchdogSec=0
ExecStart=
ExecStart=/usr/bin/python3 $kept/probe.py $(probe_arguments)
ExecReload=
ExecStopPost=
RuntimeDirectory=
StateDirectory=
# the profile lets nothing but convey's programs run
AppArmorProfile=
StandardOutput=file:$said
END
    systemctl start acceptance-probe || return 1
    local able
    able=$(grep -vxF "$(beyond_the_unit)" "$said")
    [ -z "$able" ] || { say "$able"; return 1; }
}

# What systemd itself does not keep its word about, in any unit. Seen with /sys on 257 (Debian 13).
beyond_the_unit() {
    systemd-run --quiet --wait -p ProtectKernelTunables=yes test -w /sys || return 0
    record NOTE "this systemd leaves /sys writable in any unit with ProtectKernelTunables=" >&2
    say "ProtectKernelTunables, /sys"
}

cannot_write() {
    local pid
    pid=$(property MainPID)
    not nsenter -t "$pid" -m -- touch /usr/bin/x && not nsenter -t "$pid" -m -- touch /etc/x &&
        nsenter -t "$pid" -m -- touch /run/convey/x && rm /run/convey/x
}

files_are_its_own() {
    local others
    [ -S /run/convey/admin.sock ] || { ls -l /run/convey; return 1; }
    # fails when one of them is not there
    others=$(find /run/convey /var/lib/convey -not -user convey 2>&1)
    [ -z "$others" ] || { say "$others"; return 1; }
}

confined() {
    local pid
    for pid in $(processes); do
        has '^convey \(enforce\)$' "$(cat "/proc/$pid/attr/current")" || return 1
    done
}

# Root reads a file elsewhere, and with the profile it does not.
profile_holds() {
    echo 'nonsense = 1' >/srv/acceptance.toml
    has 'nonsense' "$(convey check /srv/acceptance.toml 2>&1)" &&
        has 'ermission denied' "$(aa-exec -p convey -- convey check /srv/acceptance.toml 2>&1)" &&
        within 60 has 'acceptance.toml' "$(denials)"
}

# What AppArmor has kept from the profile's processes since boot.
denials() {
    journalctl --sync
    journalctl --no-pager -b -o cat _TRANSPORT=kernel + _TRANSPORT=audit | grep 'apparmor="DENIED".*profile="convey"'
}

nothing_denied() {
    local denied
    # but what profile_holds tries
    denied=$(denials | grep -v 'acceptance.toml')
    [ -z "$denied" ] || { say "$denied"; return 1; }
}
