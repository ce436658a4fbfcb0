//! What has no equal: why, and what to do instead.

use super::{
    Context,
    file::{Line, Section},
    proxies::Proxy,
};
use crate::import::At;

/// Accounts for the lines that nothing else has accounted for.
pub fn rest(proxies: &[Proxy], others: &[Section], context: &mut Context<'_>) {
    for proxy in proxies {
        for line in &proxy.lines {
            let home = match home(proxy, context) {
                Some(home) if !line.is_inherited => home,
                _ => At::Top,
            };
            explain(line, home, false, context);
        }
    }
    for line in others.iter().flat_map(|section| &section.lines) {
        explain(line, At::Top, true, context);
    }
}

/// Where the proxy has its comments.
fn home(proxy: &Proxy, context: &mut Context<'_>) -> Option<At> {
    if let Some(out) = context.frontends.get(&proxy.name).filter(|_| proxy.is_frontend) {
        return Some(At::In(*out));
    }
    let name = context
        .names
        .get(&proxy.name)
        .filter(|_| proxy.is_backend)?
        .clone();
    Some(At::In(context.draft.section(&["backends", &name])))
}

fn explain(line: &Line, home: At, is_global: bool, context: &mut Context<'_>) {
    if context.draft.is_accounted_for(line.id) {
        return;
    }
    match fate(line, is_global) {
        Some("") => context.draft.translated(line.id),
        Some(why) => context.draft.no_equal(line.id, home, why),
        None => context.draft.no_equal(line.id, home, ""),
    }
}

const HTTP: &str = "Convey does not read HTTP";

/// Why a line has no equal; empty if it needs none, `None` if it is not known.
#[expect(clippy::match_same_arms, reason = "a table, by what lines are about")]
fn fate(line: &Line, is_global: bool) -> Option<&'static str> {
    if line.is_negated {
        // it takes back what is not there
        return Some("");
    }
    Some(match (line.name(), line.word(1)) {
        ("option", option) => return self::option(option),
        ("timeout", word) => return timeout(word),
        ("stats", "socket" | "timeout" | "maxconn") => "",
        ("stats", _) => "see [stats], `convey status` and the page of [admin]",
        ("log", "global" | "/dev/log" | "stdout" | "stderr") => "",
        ("log", _) => "connections are logged to the journal; see connection_log for files and syslog",
        (
            "log-format" | "log-format-sd" | "error-log-format" | "log-tag" | "unique-id-format"
            | "log-steps",
            _,
        ) => "the log has every field by its name: see connection_log",
        // how the process runs, which the package and its service say
        (
            "daemon"
            | "user"
            | "group"
            | "uid"
            | "gid"
            | "chroot"
            | "pidfile"
            | "nbproc"
            | "cpu-map"
            | "master-worker"
            | "quiet"
            | "node"
            | "description"
            | "ulimit-n"
            | "maxpipes"
            | "default-path"
            | "id"
            | "debug"
            | "zero-warning"
            | "thread-groups"
            | "thread-group"
            | "set-dumpable"
            | "numa-cpu-mapping"
            | "cpu-policy"
            | "strict-limits"
            | "nosplice"
            | "noepoll"
            | "nopoll"
            | "nokqueue"
            | "noevports"
            | "noreuseport"
            | "nogetaddrinfo"
            | "spread-checks"
            | "max-spread-checks"
            | "fd-hard-limit"
            | "localpeer"
            | "insecure-fork-wanted"
            | "insecure-setuid-wanted"
            | "external-check"
            | "h1-case-adjust"
            | "h1-case-adjust-file"
            | "h2-workaround-bogus-websocket-clients"
            | "expose-experimental-directives"
            | "grace"
            | "enabled"
            | "bind-process"
            | "load-server-state-from-file"
            | "server-state-file"
            | "server-state-base"
            | "server-state-file-name"
            | "log-send-hostname"
            | "setcap"
            | "harden.reject-privileged-ports.tcp",
            _,
        ) => "",
        ("maxconn", _) if is_global => "a limit of the whole process: see max_connections of each frontend",
        ("maxconn", _) => "see max_connections of each frontend",
        ("maxconnrate" | "maxsessrate" | "maxsslrate" | "maxsslconn", _) => {
            "a limit of the whole process: see `limits` of each frontend, and max_handshakes"
        }
        (
            "ssl-default-server-options"
            | "ssl-default-server-ciphers"
            | "ssl-default-server-ciphersuites"
            | "ssl-default-server-curves",
            _,
        ) => "to servers Convey speaks TLS 1.2 and 1.3 with what both sides like best",
        ("ssl-server-verify", _) => "see `verify` in a backend's tls",
        ("ssl-dh-param-file" | "tune.ssl.default-dh-param", _) => {
            "there is no finite-field Diffie-Hellman here"
        }
        (
            "ssl-mode-async"
            | "ssl-engine"
            | "ssl-load-extra-files"
            | "ssl-skip-self-issued-ca"
            | "ssl-propquery"
            | "ssl-provider",
            _,
        ) => "",
        ("lua-load" | "lua-load-per-thread" | "lua-prepend-path", _) => "there is no Lua here",
        (name, _) if name.starts_with("tune.") || name.starts_with("profiling.") => "",
        (
            "http-request"
            | "http-response"
            | "http-after-response"
            | "http-error"
            | "http-reuse"
            | "http-send-name-header"
            | "http-restrict-req-hdr-names"
            | "errorfile"
            | "errorfiles"
            | "errorloc"
            | "errorloc302"
            | "errorloc303"
            | "redirect"
            | "reqadd"
            | "reqdel"
            | "reqrep"
            | "reqirep"
            | "rspadd"
            | "rspdel"
            | "rspidel"
            | "rsprep"
            | "rspirep"
            | "capture"
            | "compression"
            | "monitor-uri"
            | "monitor"
            | "monitor-net"
            | "acl"
            | "block"
            | "use-fcgi-app"
            | "max-session-srv-conns",
            _,
        ) => HTTP,
        ("http-check", _) => "without option httpchk it has no effect",
        ("tcp-check", _) => "without option tcp-check it has no effect",
        ("persist", _) => {
            "Convey reads no cookies of RDP: `sticky` of a backend keeps a client at its server"
        }
        ("cookie" | "appsession" | "force-persist" | "ignore-persist", _) => {
            "Convey reads no HTTP: `sticky` of a backend keeps a client at its server"
        }
        ("stick-table" | "stick", _) => "see `sticky` of a backend, and limits.per_client of a frontend",
        ("tcp-request", _) => "see `access`, `limits` and `routes` of the frontends that lead here",
        ("tcp-response", _) => "what servers answer is not looked at",
        ("filter", _) => "there are no filters here",
        ("use-server", _) => "see `sni` of a server",
        ("fullconn" | "minconn", _) => "limits do not follow the load: see max_connections of a server",
        ("maxqueue", _) => "see max_queue of a backend",
        ("declare", _) => "",
        ("email-alert", _) => "see [hooks]: a command is told what happens",
        ("default_backend" | "use_backend", _) => "it leads to no backend here",
        ("setenv" | "presetenv" | "unsetenv" | "resetenv", _) => "",
        ("disabled", _) => "it is turned off there: remove it here",
        ("transparent", _) => "connections go to servers of the backend: see the mode passthrough",
        (
            "default-server"
            | "hash-type"
            | "hash-balance-factor"
            | "hash-preserve-affinity"
            | "balance"
            | "source"
            | "retries"
            | "backlog"
            | "rate-limit"
            | "retry-on"
            | "default"
            | "mode"
            | "guid",
            _,
        ) => "",
        _ => return None,
    })
}

#[expect(clippy::match_same_arms, reason = "a table, by what lines are about")]
fn option(option: &str) -> Option<&'static str> {
    Some(match option {
        // what is logged, what the kernel does with connections, how servers are tried again, and what is so here anyway
        "tcplog"
        | "dontlognull"
        | "dontlog-normal"
        | "logasap"
        | "log-separate-errors"
        | "log-health-checks"
        | "socket-stats"
        | "splice-auto"
        | "splice-request"
        | "splice-response"
        | "tcp-smart-accept"
        | "tcp-smart-connect"
        | "tcpka"
        | "clitcpka"
        | "srvtcpka"
        | "redispatch"
        | "allbackups"
        | "nolinger"
        | "contstats"
        | "independent-streams"
        | "prefer-last-server"
        | "persist"
        | "abortonclose"
        | "idle-close-on-response"
        | "checkcache"
        | "accept-invalid-http-request" => "",
        "httplog" | "httpslog" => "the log has one line for each connection, not for each request",
        "transparent" => "connections go to servers of the backend: see the mode passthrough",
        "forwardfor" | "originalto" => {
            "Convey adds no headers: send_proxy tells the servers the client's address"
        }
        "http-server-close"
        | "httpclose"
        | "forceclose"
        | "http-keep-alive"
        | "http-tunnel"
        | "http-pretend-keepalive"
        | "http-no-delay"
        | "http-ignore-probes"
        | "http-use-proxy-header"
        | "http-buffer-request"
        | "http-use-htx"
        | "accept-invalid-http-response"
        | "h1-case-adjust-bogus-client"
        | "h1-case-adjust-bogus-server"
        | "disable-h2-upgrade"
        | "http-restrict-req-hdr-names"
        | "forwarded"
        | "http_proxy" => HTTP,
        "httpchk" | "tcp-check" | "redis-check" | "mysql-check" | "pgsql-check" | "smtpchk"
        | "ldap-check" | "ssl-hello-chk" | "external-check" | "spop-check" => "",
        // those about violations of HTTP
        _ if option.starts_with("accept-") => HTTP,
        _ => return None,
    })
}

fn timeout(word: &str) -> Option<&'static str> {
    Some(match word {
        // of those that are there, the others count
        "client" | "server" | "tunnel" | "connect" | "queue" | "check" | "client-fin" => "",
        "server-fin" => "see fin_timeout of the frontend, which counts for both sides",
        "http-request" | "http-keep-alive" | "tarpit" => HTTP,
        "client-hs" => "see handshake_timeout in a frontend's tls",
        _ => return None,
    })
}
