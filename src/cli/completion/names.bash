
# names of frontends, backends and servers: of the running convey, else of its configuration
_convey_with_names() {
    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" kind="" name word i
    local -a where=() words=() names=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${COMP_WORDS[i]}"
        case "$word" in
            -c|--config|--socket)
                # what follows is still being typed
                ((i + 1 < COMP_CWORD)) && where+=("$word" "${COMP_WORDS[i+1]}")
                ((i++))
                ;;
            -*) ;;
            *) words+=("$word") ;;
        esac
    done
    case "$prev,${words[0]-},${words[1]-}" in
        -c,*|--config,*|--socket,*) ;;
        --frontend,*) kind=frontends ;;
        --backend,*) kind=backends ;;
        --server,*) kind=servers ;;
        *,server,drain|*,server,maintenance|*,server,ready|*,server,weight|*,server,close|*,server,remove) kind=pairs ;;
        *,overrides,clear) kind=pairs ;;
        *,server,add|*,backend,drain|*,backend,maintenance|*,backend,ready|*,backend,weight|*,backend,close) kind=backends ;;
        *,enable,*|*,disable,*) kind=pairs ;;
        *,status,*) kind=any ;;
        *,backend-script,) kind=frontends ;;
        *,backend-script,*) kind=servers ;;
    esac
    if [[ -z "$kind" || "$cur" == -* ]]; then
        _convey "$@"
        return
    fi
    COMPREPLY=()
    mapfile -t names < <("$1" names "$kind" "${where[@]}" 2>/dev/null)
    for name in "${names[@]}"; do
        if [[ "$name" == "$cur"* ]]; then
            COMPREPLY+=("$(printf %q "$name")")
        fi
    done
}

complete -F _convey_with_names -o bashdefault -o default convey
