//! What this host's kernel makes of socket options that the configuration asks for.

use std::{fs, num::NonZeroU32, str::FromStr, sync::Arc};

use crate::{
    base::{FrontendName, SocketOptions},
    config::{Backend, Config},
};

/// Bit of net.ipv4.tcp_fastopen that lets listeners take data with a SYN (ip-sysctl of the kernel).
const FAST_OPEN_OF_SERVERS: u32 = 2;

/// What sysctls say of it.
#[derive(Debug, Clone, Copy, Default)]
struct Kernel {
    /// net.ipv4.tcp_fastopen.
    tcp_fastopen: Option<u32>,
    /// net.core.somaxconn.
    somaxconn: Option<u32>,
    /// net.core.rmem_max.
    rmem_max: Option<u32>,
    /// net.core.wmem_max.
    wmem_max: Option<u32>,
}

/// What is not as the configuration says, in a line each.
pub fn notes(config: &Config) -> Vec<String> {
    let kernel = Kernel {
        tcp_fastopen: read("/proc/sys/net/ipv4/tcp_fastopen"),
        somaxconn: read("/proc/sys/net/core/somaxconn"),
        rmem_max: read("/proc/sys/net/core/rmem_max"),
        wmem_max: read("/proc/sys/net/core/wmem_max"),
    };
    judge(config, kernel)
}

fn read<T: FromStr>(path: &str) -> Option<T> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn judge(config: &Config, kernel: Kernel) -> Vec<String> {
    let fast = names(config, |frontend| frontend.listener.fast_open);
    let fast_open = kernel
        .tcp_fastopen
        .filter(|bits| bits & FAST_OPEN_OF_SERVERS == 0);
    let fast_open = fast_open.filter(|_| !fast.is_empty()).map(|bits| {
        format!(
            "tcp_fast_open of {} has no effect: net.ipv4.tcp_fastopen is {bits}, which does not allow it to listeners; \
             write net.ipv4.tcp_fastopen = {} to /etc/sysctl.d/",
            fast.join(", "),
            bits | FAST_OPEN_OF_SERVERS
        )
    });
    let most = kernel.somaxconn.unwrap_or(u32::MAX);
    let long = names(config, |frontend| {
        frontend
            .listener
            .backlog
            .is_some_and(|backlog| backlog.get() > most)
    });
    let backlog = (!long.is_empty()).then(|| {
        format!(
            "backlog of {} is more than this host allows: net.core.somaxconn is {most}; raise it in /etc/sysctl.d/",
            long.join(", ")
        )
    });
    let receive = buffer(config, "receive_buffer", "rmem_max", kernel.rmem_max, |socket| {
        socket.receive_buffer
    });
    let send = buffer(config, "send_buffer", "wmem_max", kernel.wmem_max, |socket| {
        socket.send_buffer
    });
    [fast_open, backlog, receive, send]
        .into_iter()
        .flatten()
        .collect()
}

/// Backends whose sockets get less than a key says: only listeners are the broker's.
fn buffer(
    config: &Config,
    key: &str,
    sysctl: &str,
    most: Option<u32>,
    wanted: impl Fn(&SocketOptions) -> Option<NonZeroU32>,
) -> Option<String> {
    let most = most?;
    let exceeds = |backend: &&Arc<Backend>| {
        wanted(&backend.server_socket.common).is_some_and(|bytes| bytes.get() > most)
    };
    let names: Vec<_> = (config.backends.values().filter(exceeds))
        .map(|backend| format!("backend `{}`", backend.name))
        .collect();
    (!names.is_empty()).then(|| {
        format!(
            "server_socket.{key} of {} is more than this host allows: net.core.{sysctl} is {most}; raise it in /etc/sysctl.d/",
            names.join(", ")
        )
    })
}

/// The frontends of which something is so, each quoted.
fn names(config: &Config, is_so: impl Fn(&crate::config::Frontend) -> bool) -> Vec<String> {
    let quoted = |name: &FrontendName| format!("frontend `{name}`");
    let frontends = config.frontends.values().filter(|frontend| is_so(frontend));
    frontends.map(|frontend| quoted(&frontend.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Options, Source};

    fn config(settings: &str) -> Config {
        let text = format!(
            "[frontends.web]\nlisten_addr = '192.0.2.1:80'\nbackend = 'web'\n{settings}\n\
             [backends.web]\nservers.a = {{ addr = '10.0.0.1:80' }}\n"
        );
        let source = Source {
            name: "c.toml".into(),
            bytes: text.into(),
        };
        config::load(&source, Options::default()).expect("valid").config
    }

    fn said(settings: &str, tcp_fastopen: u32, somaxconn: u32) -> Vec<String> {
        let kernel = Kernel {
            tcp_fastopen: Some(tcp_fastopen),
            somaxconn: Some(somaxconn),
            rmem_max: Some(212_992),
            wmem_max: Some(212_992),
        };
        judge(&config(settings), kernel)
    }

    #[test]
    fn fast_open_that_the_kernel_forbids_is_named_with_what_allows_it() {
        for (bits, allowed) in [(0, 2), (1, 3)] {
            let notes = said("tcp_fast_open = true", bits, 4_096);
            let [note] = &notes[..] else { panic!("{notes:?}") };
            assert!(
                note.contains("frontend `web`") && note.contains(&format!("tcp_fastopen = {allowed} ")),
                "{note}"
            );
        }
        assert!(said("tcp_fast_open = true", 3, 4_096).is_empty());
        assert!(said("", 0, 4_096).is_empty(), "nobody wants it");
    }

    #[test]
    fn a_backlog_that_the_kernel_cuts_is_named() {
        let notes = said("backlog = 8192", 3, 4_096);
        assert!(
            notes.len() == 1 && notes[0].contains("somaxconn is 4096"),
            "{notes:?}"
        );
        assert!(said("backlog = 4096", 3, 4_096).is_empty());
    }

    #[test]
    fn a_buffer_that_the_kernel_cuts_is_named_where_no_broker_makes_the_socket() {
        let buffers = "client_socket.receive_buffer = 8388608\n[defaults]\nserver_socket = { receive_buffer = 212992, send_buffer = 300000 }";
        let notes = said(buffers, 3, 4_096);
        let named = "server_socket.send_buffer of backend `web` is more than this host allows: net.core.wmem_max is 212992";
        assert!(notes.len() == 1 && notes[0].contains(named), "{notes:?}");
    }

    #[test]
    fn what_cannot_be_read_is_not_judged() {
        assert!(judge(&config("tcp_fast_open = true\nbacklog = 8192"), Kernel::default()).is_empty());
    }
}
