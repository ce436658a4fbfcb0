
# names of frontends, backends and servers: of the running convey, else of its configuration
complete -c convey -n "__fish_seen_subcommand_from status" -f -a "(convey names any 2>/dev/null)"
complete -c convey -n "__fish_seen_subcommand_from status connections" -l frontend -x -a "(convey names frontends 2>/dev/null)"
complete -c convey -n "__fish_seen_subcommand_from connections" -l backend -x -a "(convey names backends 2>/dev/null)"
complete -c convey -n "__fish_seen_subcommand_from connections" -l server -x -a "(convey names servers 2>/dev/null)"
complete -c convey -n "__fish_seen_subcommand_from server; and __fish_seen_subcommand_from drain maintenance ready weight close remove" -f -a "(convey names pairs 2>/dev/null)"
complete -c convey -n "__fish_seen_subcommand_from server; and __fish_seen_subcommand_from add" -f -a "(convey names backends 2>/dev/null)"
complete -c convey -n "__fish_seen_subcommand_from backend; and __fish_seen_subcommand_from drain maintenance ready weight close" -f -a "(convey names backends 2>/dev/null)"
complete -c convey -n "__fish_seen_subcommand_from overrides; and __fish_seen_subcommand_from clear" -f -a "(convey names pairs 2>/dev/null)"
complete -c convey -n "__fish_seen_subcommand_from backend-script" -f -a "(convey names frontends 2>/dev/null)"
