# shellcheck shell=bash
# What the scripts of packaging/ share. Sourced; the caller has set `-euo pipefail` and `root`.

if [ -t 1 ]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' plain=$'\e[0m'
else
    bold='' dim='' red='' plain=''
fi

# Where Cargo builds, as an absolute path.
: "${root:?the sourcing script names the root of the repository}"
target=${CARGO_TARGET_DIR:-$root/target}
case $target in
    /*) ;;
    *) target=$PWD/$target ;;
esac

heading() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }

fail() {
    printf '%s%s%s\n' "$red" "$*" "$plain" >&2
    exit "${status:-1}"
}

is_root() { [ "$(id -u)" -eq 0 ]; }

# Runs a build command with the toolchain of the person at the keyboard: sudo hides it, and whatever root builds in
# the checkout could not be cleaned by its owner.
as_builder() {
    local user=${SUDO_USER:-root} home
    if ! is_root || [ "$user" = root ]; then
        env PATH="${HOME:-/root}/.cargo/bin:$PATH" CARGO_TARGET_DIR="$target" "$@"
        return
    fi
    home=$(getent passwd "$user" | cut -d: -f6)
    runuser -u "$user" -- env HOME="$home" USER="$user" LOGNAME="$user" \
        PATH="${CARGO_HOME:-$home/.cargo}/bin:$PATH" CARGO_TARGET_DIR="$target" "$@"
}

need_cargo() {
    as_builder sh -c 'command -v cargo' >/dev/null && return
    status=69 fail "cargo is not in the PATH of ${SUDO_USER:-$(id -un)}: install Rust with rustup first."
}

# copy_checkout DIR : what git knows of the checkout, edits included.
copy_checkout() {
    as_builder mkdir -p "$1"
    git -C "$root" -c safe.directory="$root" ls-files -z | while IFS= read -rd '' file; do
        [ ! -e "$root/$file" ] || printf '%s\0' "$file"
    done | tar -c -C "$root" --null --files-from - | as_builder tar -x -C "$1"
}

# What install_missing has installed.
installed=()

# install_missing WHAT:PACKAGE... : installs with apt the packages whose command, or file with a slash, is absent. With
# `show_apt` set, what apt says is seen.
install_missing() {
    local pair packages=()
    for pair in "$@"; do
        # command -v takes a path as well, but wants it executable
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || [ -e "${pair%%:*}" ] || packages+=("${pair#*:}")
    done
    [ "${#packages[@]}" -eq 0 ] && return
    command -v apt-get >/dev/null || status=69 fail "Not Debian: install by other means: ${packages[*]}"
    is_root || status=77 fail "Missing: ${packages[*]}. Run this through sudo, or: apt-get install ${packages[*]}"
    printf '%sInstalling %s%s\n' "$dim" "${packages[*]}" "$plain"
    install_without_services "${packages[@]}" || exit
    installed+=("${packages[@]}")
    for pair in nginx:nginx haproxy:haproxy keepalived:keepalived bird2:bird redis-server:redis-server postgresql:postgresql bind9:named prometheus:prometheus; do
        case " ${packages[*]} " in
            *" ${pair%%:*} "*) systemctl disable "${pair#*:}" >/dev/null 2>&1 || true ;;
        esac
    done
}

# install_without_services PACKAGE... : wanted as programs, their services must not start now. A shell of its own, so that the
# file that says so to dpkg goes however this ends.
install_without_services() (
    policy=/usr/sbin/policy-rc.d
    log=$(mktemp)
    made=("$log")
    trap 'rm -f "${made[@]}"' EXIT
    for signal in INT TERM HUP; do
        # shellcheck disable=SC2064 # this very signal, and the caller ends by it, too
        trap "rm -f \"\${made[@]}\"; trap - $signal; kill -$signal \$BASHPID" "$signal"
    done
    if [ ! -e "$policy" ]; then
        made+=("$policy")
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    if [ -n "${show_apt:-}" ]; then show() { tee "$log"; }; else show() { cat >"$log"; }; fi
    if ! { apt-get update && mapfile -t fitting < <(with_fitting_qemu "$@") && apt_install "${fitting[@]}"; } 2>&1 </dev/null | show; then
        [ -n "${show_apt:-}" ] || cat "$log" >&2
        why=''
        ! grep -qE 'Could not (resolve|connect)|Temporary failure|Failed to fetch|Unable to connect' "$log" ||
            why=': this machine does not reach the mirror of Debian that /etc/apt names'
        status=69 fail "apt-get could not install $*$why"
    fi
)

apt_install() { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }

# with_fitting_qemu PACKAGE... : the same, with what lets apt take QEMU where a qemu-utils newer than this Debian's is
# installed: it would keep the rest of QEMU out.
with_fitting_qemu() {
    local version
    printf '%s\n' "$@"
    [[ " $* " = *' qemu-system-x86 '* ]] || return 0
    apt-get install -s --no-install-recommends "$@" >/dev/null 2>&1 && return
    version=$(apt-cache policy qemu-system-x86 | sed -n 's/^ *Candidate: //p')
    printf '%s\n' --allow-downgrades "qemu-utils=$version"
}

# debian_mirror : where this host's own packages come from.
# shellcheck disable=SC2016 # apt-get expands them
debian_mirror() {
    apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' 2>/dev/null |
        awk '$2 !~ /-/ && !found { print $1; found = 1 }'
}

# copy_debian SUITE DIR : a minimal Debian in DIR, which must not exist. The first call fetches it, whoever calls meanwhile
# waits, and later ones of the same week copy it.
copy_debian() {
    local suite=$1 dir=$2 tree=$target/debian/$1 mirror
    mirror=${CONVEY_DEBIAN_MIRROR:-$(debian_mirror)}
    mkdir -p "$target/debian"
    (
        flock 9
        [ "$(cat "$tree.of" 2>/dev/null)" = "$mirror" ] && [ -n "$(find "$tree.of" -mtime -7)" ] && exit
        rm -rf --one-file-system "$tree" "$tree.of"
        if ! debootstrap --variant=minbase "$suite" "$tree" "$mirror" >"$tree.log" 2>&1 </dev/null; then
            tail -n 20 "$tree.log" >&2
            fail "Debian $suite could not be fetched; all that was said: $tree.log"
        fi
        printf '%s\n' "$mirror" >"$tree.of"
    ) 9>"$target/debian/$suite.lock"
    mkdir -p "$(dirname "$dir")"
    cp -a "$tree" "$dir"
}
