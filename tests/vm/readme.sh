# shellcheck shell=bash
# The README followed word by word, by an ordinary user with sudo, beside the service. Sourced.
#
# Blocks ```sh are typed in their order; those of a checkout (```sh checkout: what builds the program and its packages) have
# been run where the packages come from, and their results are in place here. A block ```toml NAME is a file of that name.

: "${here:?the acceptance says where it is}" "${readme:?and the README}"
operator=/home/newcomer
session=/run/user/4711

# readme_blocks INFO : the blocks with this word after the fence, each line after its block's number and a tab. What is typed
# on the servers of mode dsr is another phase's.
readme_blocks() {
    awk -v info="$1" '/^#/ && !code { elsewhere = /servers of a frontend in mode dsr/ }
        /^```/ { code = !code; ours = code && $0 == "```" info && !elsewhere; number += ours; next }
        code && ours { print number "\t" $0 }' "$readme"
}

# What a checkout has after its commands, at the operator's home.
prepare_operator() {
    useradd --create-home --uid 4711 newcomer
    echo 'newcomer ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/newcomer
    mkdir -p $operator/convey/target/{release,deb}
    ln -s /usr/bin/convey $operator/convey/target/release/convey
    cp "$here"/convey_*.deb $operator/convey/target/deb/
    readme_blocks 'toml convey.toml' | cut -f2- >$operator/convey/convey.toml
    # who edits takes the README's file over
    # shellcheck disable=SC2016 # the editor's own argument
    printf '#!/bin/sh\ncat %s >"$1"\n' $operator/convey/convey.toml >$operator/editor
    chmod 755 $operator/editor
    chown -R newcomer: $operator
    install -d -o newcomer -g newcomer -m 700 $session
}

# One shell for all that is typed: what runs in its background goes on.
open_shell() {
    coproc typed { cd $operator/convey && exec runuser -u newcomer -- env HOME=$operator XDG_RUNTIME_DIR=$session SUDO_EDITOR=$operator/editor bash 2>&1; }
}

# type_in LINE : what it says; its exit status.
type_in() {
    local said
    printf 'eval %q </dev/null; echo "exit status $?"\n' "$1" >&"${typed[1]}"
    while IFS= read -r -t 300 said <&"${typed[0]}"; do
        [[ $said =~ ^'exit status '([0-9]+)$ ]] && return "${BASH_REMATCH[1]}"
        say "$said"
    done
    return 1
}

# What the operator waits for before the next line, after one that runs in the background.
is_at_work() {
    if [[ $1 =~ http.server\ ([0-9]+) ]]; then
        python3 -c "import socket; socket.create_connection(('127.0.0.1', ${BASH_REMATCH[1]}))"
    else
        [ -S $session/convey/admin.sock ]
    fi
}

# What one of the two servers of the README gives through Convey.
is_served() { python3 -c 'import urllib.request as r; assert r.urlopen("http://127.0.0.1:8080/", timeout=5).status == 200'; }

phase_readme() {
    local line before
    before=$(property MainPID)
    prepare_operator
    open_shell
    check "the README has commands" [ "$(readme_blocks sh | wc -l)" -ge 10 ]
    check "and the smallest file" [ -s $operator/convey/convey.toml ]
    while IFS=$'\t' read -r _ line; do
        # the answer comes by the coprocess, so the check has no subshell
        if said=$(type_in "$line"); then record ok "README: $line"; else record FAILED "README: $line: ${said:0:600}"; fi
        [[ $line != *'&' ]] || check "README: and it works" within 60 is_at_work "$line"
        case $line in
            *release/convey\ status*)
                check "README: the frontend is shown with both servers" has '127.0.0.1:8001' "$said"
                check "README: the servers answer through it" within 60 is_served
                check "README: the service beside it was not disturbed" [ "$(property MainPID)" = "$before" ]
                # as the README says; the service is about to listen there
                type_in 'kill %3' >/dev/null
                check "README: and kill ends it" within 60 not is_at_work convey
                ;;
            'sudo convey status') check "README: and the service has the frontend" has '^web ' "$said" ;;
        esac
    done < <(readme_blocks sh)
    type_in 'kill %1 %2' >/dev/null
    echo exit >&"${typed[1]}"
    # shellcheck disable=SC2154 # coproc sets it
    wait "$typed_PID"
    userdel --remove newcomer
    rm -rf /etc/sudoers.d/newcomer $session
}
