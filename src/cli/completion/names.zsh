# names of frontends, backends and servers: of the running convey, else of its configuration
_convey_names() {
    local -a names
    names=(${(f)"$(_call_program names convey names $1 2>/dev/null)"})
    compadd -a names
}
(( $+functions[_convey_names_frontends] )) || _convey_names_frontends() { _convey_names frontends }
(( $+functions[_convey_names_backends] )) || _convey_names_backends() { _convey_names backends }
(( $+functions[_convey_names_servers] )) || _convey_names_servers() { _convey_names servers }
(( $+functions[_convey_names_pairs] )) || _convey_names_pairs() { _convey_names pairs }
(( $+functions[_convey_names_any] )) || _convey_names_any() { _convey_names any }

