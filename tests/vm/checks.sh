# shellcheck shell=bash
# How the acceptance checks. Sourced.

: "${results:?the acceptance says where they go}"

say() { printf '%s\n' "$*"; }

record() {
    printf '%s %s\n' "$1" "$2" >>"$results/checks"
    say "$(cut -d. -f1 /proc/uptime)s $1 $2"
}

# check WHAT COMMAND... : one check; its output is kept when it fails.
check() {
    local what=$1 output
    shift
    if output=$("$@" 2>&1 </dev/null); then
        record ok "$what"
    else
        record FAILED "$what: $(printf '%s' "$output" | tail -n 5 | tr '\n' '|' | cut -c1-600)"
        return 1
    fi
}

# within SECONDS COMMAND... : until it succeeds.
within() {
    local end=$(($(date +%s) + $1)) output
    shift
    until output=$("$@" 2>&1); do
        [ "$(date +%s)" -lt "$end" ] || {
            say "$output"
            return 1
        }
        sleep 0.3
    done
}

not() { ! "$@"; }

has() { grep -qE -- "$1" <<<"$2" || { say "no \`$1' in: $2"; return 1; }; }

property() { systemctl show --value -p "$1" "${2:-convey.service}"; }

# drop_in UNIT : settings for it, from stdin, until drop_out UNIT.
drop_in() {
    mkdir -p "/run/systemd/system/$1.service.d"
    cat >"/run/systemd/system/$1.service.d/acceptance.conf"
    systemctl daemon-reload
}

drop_out() {
    rm -r "/run/systemd/system/$1.service.d"
    systemctl daemon-reload
}

running() { [ "$(property ActiveState)/$(property SubState)" = active/running ] || { systemctl status convey --no-pager; return 1; }; }

journal_has() {
    journalctl --sync
    local lines
    lines=$(journalctl -b --no-pager -o cat "${@:2}")
    grep -qE -- "$1" <<<"$lines" || { say "no \`$1' in the journal ${*:2}: $(tail -n 3 <<<"$lines")"; return 1; }
}
