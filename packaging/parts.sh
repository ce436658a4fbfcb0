# shellcheck shell=bash
# How packaging/test runs its parts beside each other, counts what they say, and tells how long each took. Sourced.
#
# A part is a command. It is either run in front, with its output as it comes, or begun behind (`begin`) and joined later
# (`join`), where its output stands as one piece. It is one check that its exit status decides; 77 is a skip. What `has_tests`
# names is counted by result lines in cargo's form instead, and has failed without one.

: "${bold?}" "${plain?}" "${red?}"

passed=0 failed=0 skipped=0 failures=() table=()
work=$(mktemp -d)
declare -A process=() with_tests=()

# Whatever was begun ends with us: every part is a process group of its own.
end_parts() {
    local group
    for group in "${process[@]}"; do kill -TERM -- "-$group" 2>/dev/null || true; done
    for group in "${process[@]}"; do wait "$group" 2>/dev/null || true; done
    rm -rf "$work"
}
trap end_parts EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# timed FILE COMMAND... : its exit status, its beginning and its length in seconds come to FILE. Not in a condition, where
# `set -e` would be off in all that the command calls.
timed() {
    local file=$1 begin=$SECONDS status
    shift
    part_began=$file.began
    set +e
    (
        set -e
        "$@"
    )
    status=$?
    set -e
    [ ! -s "$part_began" ] || begin=$(cat "$part_began")
    printf '%d %d %d\n' "$status" "$begin" $((SECONDS - begin)) >"$file"
}

file_of() { printf '%s/%s' "$work" "${1//[^a-zA-Z0-9]/-}"; }

has_tests() { with_tests[$1]=yes; }

# part NAME COMMAND... : in front.
part() {
    local name=$1 file
    shift
    file=$(file_of "$name")
    heading "[$(clock)] $name"
    timed "$file.end" "$@" </dev/null 2>&1 | tee "$file.log"
    count "$name"
}

# begin NAME COMMAND... : behind, until `join NAME`.
begin() {
    local name=$1 file
    shift
    file=$(file_of "$name")
    set -m
    timed "$file.end" "$@" </dev/null >"$file.log" 2>&1 &
    process[$name]=$!
    set +m
}

# after NAME... -- COMMAND... : for a part that needs what others behind make: once they have come to a good end.
after() {
    local file
    while [ "$1" != -- ]; do
        file=$(file_of "$1")
        while [ ! -s "$file.end" ] && kill -0 "${process[$1]}" 2>/dev/null; do sleep 0.5; done
        [ "$(cut -d' ' -f1 "$file.end" 2>/dev/null)" = 0 ] || fail "not run, for this failed: $1"
        shift
    done
    shift
    printf '%d\n' "$SECONDS" >"$part_began"
    "$@"
}

# join NAME... : waits for it, and shows what it said.
join() {
    local name file
    for name; do
        file=$(file_of "$name")
        wait "${process[$name]}" || true
        unset "process[$name]"
        heading "[$(clock)] $name (beside the others)"
        cat "$file.log"
        count "$name"
    done
}

# count NAME : takes its results in.
count() {
    local name=$1 file status begin took lines p f s
    file=$(file_of "$name")
    # one that was killed says nothing
    read -r status begin took <"$file.end" || { status=1 begin=0 took=0; }
    table+=("$(printf '%5d %6d  %s' "$begin" "$took" "$name")")
    lines=$(sed -n 's/^test result: [^.]*\. \([0-9]*\) passed; \([0-9]*\) failed; \([0-9]*\) ignored;.*/\1 \2 \3/p' "$file.log")
    if [ -z "${with_tests[$name]:-}" ] || [ -z "$lines" ]; then
        case $status${with_tests[$name]:+ without a result} in
            0) passed=$((passed + 1)) ;;
            77*) skip "$name" ;;
            *) failed=$((failed + 1)) failures+=("$name: exit status $status${with_tests[$name]:+, no result}") ;;
        esac
        return
    fi
    while read -r p f s; do
        passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
        [ "$f" -eq 0 ] || failures+=("$name: $f tests")
        [ "$s" -eq 0 ] || printf '%sSKIPPED: %s tests of %s%s\n' "$red" "$s" "$name" "$plain"
    done <<<"$lines"
    if [ "$status" -ne 0 ] && ! grep -q '^test result: FAILED' "$file.log"; then
        failed=$((failed + 1))
        failures+=("$name (exit status $status)")
    fi
}

skip() {
    printf '%sSKIPPED: %s%s\n' "$red" "$*" "$plain"
    skipped=$((skipped + 1))
}

clock() { printf '%d:%02d' $((SECONDS / 60)) $((SECONDS % 60)); }

# The table of seconds, what failed, and the line that counts.
finish() {
    heading "Seconds: begun at, took"
    printf '%s\n' "${table[@]}"
    printf '%5d %6d  %s\n' 0 "$SECONDS" "all of it"
    if [ "${#failures[@]}" -gt 0 ]; then
        heading "Failed:"
        printf '  %s\n' "${failures[@]}"
    fi
    printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
    [ "$failed" -eq 0 ]
}
