//! The file as it is written: every section and key, with its type, its description and its place.
//!
//! This is the one list of keys. The reader, the suggestions for unknown keys and the JSON Schema are all made from
//! it by the `section!` macro; a key cannot be in one and not in another.

mod access;
mod acme;
mod admin;
mod balancing;
mod checks;
mod commands;
mod connection_log;
mod discovery;
mod discovery_fields;
mod field;
mod fields;
mod otlp;
mod packet;
mod process;
mod routing;
mod section;
mod server_place;
mod socket_options;
mod tls;
mod tls_sections;

use std::net::IpAddr;

use section::section;

pub use access::{FilePath, Files, RuleList};
pub use acme::{Acme, AcmeText, ExternalAccount, OrderedCertificate};
pub use admin::{Admin, AdminListenAddr, AdminTls, Stats};
pub use balancing::Sticky;
pub use checks::{AgentCheck, Given, HealthCheck, PassiveCheck};
pub use commands::Hooks;
pub use connection_log::ConnectionLog;
pub use discovery::Discovery;
pub use discovery_fields::{JsonPaths, SourceTls};
pub use field::Located;
pub use fields::{Int, ListenAddrs, Named, Time, WorkerCount};
pub use otlp::Otlp;
pub use packet::{InterfaceName, NatAddresses};
pub use process::{DirectoryPath, GroupName, UserName};
pub use routing::{
    AlpnNames, Destinations, HostPatterns, ProxyPeers, ProxyVersion, Routes, Subjects, TlvList,
};
pub use section::{Section, read_file};
pub use server_place::ServerPlace;
pub use socket_options::{NOT_A_ZONE, ServerSocketOptions, SocketOptions};
pub use tls::is_tls_name;
pub use tls_sections::{BackendTls, FrontendTls};

use super::{
    check_addr::CheckAddr,
    model::{
        AccessLog, Algorithm, DsrMethod, EngineChoice, HashSeed, LogFormat, LogLevel, Mode, OnDown,
        PortsPerClient, XdpMode,
    },
    named_server::Resolve,
    routing::{NonTls, UnexpectedSni},
    source::SourceAddress,
};
use crate::base::SocketMode;
use crate::{
    access::Action,
    base::{PortRanges, Protocol},
};

/// Bounds of durations, in milliseconds.
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
/// The longest of them.
pub const YEAR: u64 = 365 * DAY;

/// Longest time of TCP keep-alive, in milliseconds: below the kernel's 32,767 s (tcp(7)).
const KEEPALIVE: u64 = 9 * HOUR;

/// Most flows that `max_flows` may ask for: some 4 GB of tables.
pub const MAX_FLOWS: u64 = 1 << 24;

type KeyList = fn() -> Vec<&'static str>;

/// Where the unknown keys of one section might have been meant for.
const ELSEWHERE: &[(&str, KeyList)] = &[
    ("[global]", Global::keys),
    ("[admin]", Admin::keys),
    ("tls of [admin]", AdminTls::keys),
    ("[stats]", Stats::keys),
    ("[frontends.NAME]", Frontend::keys),
    ("[backends.NAME]", Backend::keys),
    ("[backends.NAME.servers.NAME]", Server::keys),
    ("[backends.NAME.health_check]", HealthCheck::keys),
    ("[backends.NAME.passive_check]", PassiveCheck::keys),
    ("[packet]", Packet::keys),
    ("[hooks]", Hooks::keys),
    ("[acme]", Acme::keys),
    ("acme of [frontends.NAME.tls]", OrderedCertificate::keys),
    ("eab of [acme]", ExternalAccount::keys),
    ("[frontends.NAME.client_keepalive]", KeepAlive::keys),
    ("[frontends.NAME.client_socket]", SocketOptions::keys),
    ("[backends.NAME.server_socket]", ServerSocketOptions::keys),
    ("[frontends.NAME.access]", Access::keys),
    ("[frontends.NAME.limits]", Limits::keys),
    ("[frontends.NAME.limits.per_client]", PerClient::keys),
    ("[frontends.NAME.proxy_protocol]", ProxyProtocol::keys),
    ("[[frontends.NAME.routes]]", Route::keys),
    ("[frontends.NAME.tls]", FrontendTls::keys),
    ("certificates of [frontends.NAME.tls]", Certificate::keys),
    ("[frontends.NAME.udp]", Udp::keys),
    ("[frontends.NAME.connection_log]", ConnectionLog::keys),
    ("[backends.NAME.sticky]", Sticky::keys),
    ("[backends.NAME.tls]", BackendTls::keys),
    ("[backends.NAME.agent_check]", AgentCheck::keys),
    ("[backends.NAME.discovery]", Discovery::keys),
    ("[backends.NAME.discovery.tls]", SourceTls::keys),
    ("[backends.NAME.discovery.json]", JsonPaths::keys),
    ("[otlp]", Otlp::keys),
    ("the top of the file", File::keys),
];

section! {
    /// Configuration of Convey, a layer-4 load balancer.
    File {
        /// The process as a whole.
        global: Global,
        /// The control socket that `convey status`, `convey reload` and the others talk to, and the admin API on TCP.
        admin: Admin,
        /// Counters as JSON over HTTP, `GET /stats`, in the form of Convey 0.3.5.
        stats: Stats,
        /// Defaults for every frontend and backend, unless they set the key themselves.
        defaults: Defaults,
        /// Settings of both packet modes, passthrough and dsr.
        packet: Packet,
        /// The name of [packet] in Convey 0.3.5: the same section with the same keys. Use one of the two.
        passthrough: Packet,
        /// Files of networks for access rules, NAME = "/path": a network or address a line, # begins a comment. A change of a file is a reload.
        network_lists: Files,
        /// Commands that Convey runs when something happens.
        hooks: Hooks,
        /// Certificates that are ordered and renewed by themselves.
        acme: Acme,
        /// An OpenTelemetry collector that gets metrics and the connection log.
        otlp: Otlp,
        /// Where clients connect: one section [frontends.NAME] each.
        frontends: Named<Frontend>,
        /// Pools of servers: one section [backends.NAME] each.
        backends: Named<Backend>,
    }
}

section! {
    /// The process as a whole.
    Global {
        /// How much is logged. Default: "info", which includes the access log.
        log_level: LogLevel,
        /// Form of the log on stderr. Default: "text". Under systemd the log goes to the journal instead.
        log_format: LogFormat,
        /// Maximum number of connections logged a second; more are counted and said, not logged, so that a flood of connections leaves room in the log for everything else. Default: 1000.
        access_log_per_second: Int<1, 1_000_000>,
        /// Reload when the file changes. Default: true.
        watch_config: bool,
        /// User to become when started as root. Default: "convey", or "nobody" where there is no such user.
        user: UserName,
        /// Worker threads of the proxy: a number, or "auto" (default) for one on each CPU the process may use.
        workers: WorkerCount,
        /// How long a stopping process waits for its connections to end. Default: "30s".
        shutdown_timeout: Time<true, DAY>,
        /// Directory for what outlives the process: overrides of servers, scripts for the servers of DSR frontends. Made at the start if it is missing; each running convey needs its own. Default: $STATE_DIRECTORY, as systemd sets it, or "/var/lib/convey". Needs a restart.
        state_dir: DirectoryPath,
        /// File with the keys of TLS session tickets, which several load balancers share so that a session begun at one is resumed at another: a key a line in base64, 80 or 48 bytes, as HAProxy has it. The last but one encrypts, so that a new one at the end is known everywhere before it is used. A change of the file is a reload. Default: keys of this one's own, in state_dir.
        ticket_keys_file: FilePath,
        /// Secret text that makes the choices of "maglev", "source_hash" and the packet modes unpredictable: without it they can be computed, and an attacker can aim many connections at one server. Load balancers that back each other up need the same one. Default: a published hash.
        hash_seed: HashSeed,
    }
}

section! {
    /// Settings of both packet modes, passthrough and dsr.
    Packet {
        /// What moves the packets: "raw" (AF_PACKET sockets), "xdp" (a program in the kernel for packets of ordinary flows, AF_PACKET sockets for all others), or "auto" (default), which is "raw" in this version. Needs a restart.
        engine: EngineChoice,
        /// Where engine "xdp" attaches its program to an interface: "native" (in the driver), "generic" (behind it: slower, and every driver has it), or "auto" (default) for native, else generic. Where it cannot be attached, AF_PACKET sockets move all packets. Needs a restart.
        xdp_mode: XdpMode,
        /// Worker threads of the engine: a number, or "auto" (default) for one on each CPU the process may use. Needs a restart.
        workers: WorkerCount,
        /// Maximum number of flows of both modes together; new ones beyond are refused and counted. Default: 1048576. Needs a restart.
        max_flows: Int<64, MAX_FLOWS>,
        /// Source ports of passthrough flows, "FIRST-LAST,FIRST-LAST…"; new flows use changed ones at once. Default: every port from 10000 that is neither ephemeral on this host nor reserved, nor a node port (30000-32767) beside kube-proxy, looked up at the start and at each reload; usually "10000-32767,61000-65535".
        nat_ports: PortRanges,
        /// Accept packets of passthrough servers by any interface, not only by those that the routes to them use: for networks where answers take another way. Default: false.
        any_interface: bool,
        /// NAT ports of one server that the passthrough connections of one client network may hold: a part of them such as "1/8" (default; at least 32), a number, or "off", which a site needs whose clients share a few addresses, behind a CDN or another NAT. A client network is an IPv4 address or an IPv6 /64, unless the frontend sets limits.per_client.prefix4 and prefix6.
        max_ports_per_client: PortsPerClient,
        /// Source address of passthrough flows, or a list: flows use all of their family. Default: an address of the interface towards the server, if possible one that is no frontend's, since a fail-over moves those.
        nat_address: NatAddresses,
        /// Remove a flow of a packet mode that has been idle this long. Overrides [defaults]; overridden by the frontend. Default: "15m" for TCP, "60s" for UDP.
        idle_timeout: Time<false, YEAR>,
        /// As in 0.3.5: minimum number of flows. Raises max_flows, which is the limit, to at least this. Needs a restart.
        connection_tracker_capacity: Int<0, { i64::MAX as u64 }>,
        /// As in 0.3.5; changes nothing, for the counters are always current.
        stats_update_frequency: Time<true, YEAR>,
    }
}

section! {
    /// Defaults for every frontend and backend, unless they set the key themselves.
    Defaults {
        ..frontend: FrontendOptions,
        ..backend: BackendOptions,
    }
}

section! {
    /// An address that clients connect to, and where they are sent.
    Frontend needs backend or routes {
        /// Address to listen on, IP:port or IP:first-last, or a list of them. In packet modes a VIP, no wildcard. The first port of a range leads to the port in a server's addr, each other as far above it; in packet modes a client's address has one server for a whole range. Mode "proxy" only: "[fe80::1%eth0]:80", and "unix:/run/convey/web.sock", a socket for programs of this host.
        listen_addr (required): ListenAddrs,
        /// Name of the backend that serves the connections. With routes, those that no route matches: without it they are reset.
        backend: BackendRef,
        /// Other backends for some of the connections, mode "proxy" only: one section [[frontends.NAME.routes]] each, in the order in which they are tried.
        routes: Routes,
        ..options: FrontendOptions,
    }
}

section! {
    /// Settings of a frontend that [defaults] may have too.
    FrontendOptions {
        /// "proxy": connections end here and a second one goes to the server. "passthrough": packets are forwarded with both addresses rewritten. "dsr": only the destination is rewritten, and servers answer the clients directly. Default: "proxy", or the mode set by -p or -d.
        mode: Mode,
        /// Protocol on the listen addresses: "tcp" (default) or "udp".
        protocol: Protocol,
        /// Interface on which packets for a VIP arrive. Default: the one that has the address, so a VIP on lo needs this key. In mode "proxy" only what arrives on it is served (SO_BINDTODEVICE), and frontends on other interfaces may have the same address, none without `interface`; a VRF is one, too. It must be there when Convey starts. Default there: every interface.
        interface: InterfaceName,
        /// Source address of connections to the servers, mode "proxy" only: "own" (default), this host's, or the backend's source_addr; "client": the client's own, with a port of the kernel's choice, so that servers see it. An IPv4 client then gets IPv4 servers alone, an IPv6 client IPv6 servers. Servers must route their answers through this host, and this host must keep them: `convey check` prints the commands. A daemon that was taken over could then connect and send datagrams from any source address to any server, hear the answers that these rules bring here, and listen on any address from port 1024; without such a frontend it could not. Health checks come from this host's own address.
        source: SourceAddress,
        /// Maximum number of open connections; more wait in the kernel's accept queue, and of UDP are dropped. Default: no limit.
        max_connections: Int<1, { u32::MAX as u64 }>,
        /// Close a connection that has been idle this long; 0 disables. Default: "10m". Of UDP end the session; in packet modes remove the flow; 0 is not allowed for both. Default for UDP "60s", for TCP in packet modes "15m".
        idle_timeout: Time<true, YEAR>,
        /// Another idle_timeout once one side has closed its half; 0 leaves it at idle_timeout. Default: 0.
        fin_timeout: Time<true, YEAR>,
        /// End a connection, or a session of UDP, this long after it began, whatever moves on it; 0 never does. For clients that are to be spread anew over the servers once in a while. Mode "proxy" only. Default: 0.
        max_lifetime: Time<true, YEAR>,
        /// Close a connection whose sent data has been unacknowledged this long, also while its peer is alive but reads nothing; 0 leaves it to the kernel. Default: 0.
        tcp_user_timeout: Time<true, DAY>,
        /// TCP keep-alive of the clients' connections. On by default.
        client_keepalive: KeepAlive,
        /// Let clients that have been here before send data with their first packet (TCP Fast Open). What they send so may come twice. Mode "proxy" only. Default: false.
        tcp_fast_open: bool,
        /// Accept a connection when its client has sent something, or after a second: for protocols in which clients speak first, mode "proxy" only. Default: false.
        defer_accept: bool,
        /// Maximum number of connections that wait to be accepted, in each thread; the kernel allows at most net.core.somaxconn. Mode "proxy" only. Default: as many as that.
        backlog: Int<1, 65_535>,
        /// Most bytes a second that a connection takes from its client; more wait at the client's. Mode "proxy" and protocol "tcp" only. Default: no limit.
        upload_rate: Int<1, 1_000_000_000_000>,
        /// Most bytes a second that a connection takes from its server; more wait at the server's. Mode "proxy" and protocol "tcp" only. Default: no limit.
        download_rate: Int<1, 1_000_000_000_000>,
        /// Who may connect to the unix sockets of listen_addr: the permissions of their files, of which that to write counts. "0666" lets every user of this host in. Default: "0660", owner and group.
        socket_mode: SocketMode,
        /// The group of those files, to which the user that Convey runs as must belong. Default: that user's own.
        socket_group: GroupName,
        /// Options of the sockets that clients connect to, mode "proxy" only.
        client_socket: SocketOptions,
        /// Log one line for each connection: true (default), false, or "errors" for those that ended otherwise than both sides wanted.
        access_log: AccessLog,
        /// Where those lines go, mode "proxy" only. Default: to the journal alone.
        connection_log: ConnectionLog,
        /// Connections whose name (SNI) no route and no server of the backend expects: "default" (default) sends them to the servers without `sni`, "reject" resets them, "any" sends them to any server. Counts where a route or a server has `sni` or `alpn`.
        unexpected_sni: UnexpectedSni,
        /// Connections that do not begin with a TLS ClientHello: "reject" (default) resets them, "backend" routes them as if they named no host and no protocol. Counts where a route or a server has `sni` or `alpn`.
        non_tls: NonTls,
        /// How long a client may take for its ClientHello. Counts where a route or a server has `sni` or `alpn`; elsewhere nothing is waited for. Default: "5s".
        client_hello_timeout: Time<false, HOUR>,
        /// TLS that ends here, mode "proxy" only: the servers get what is inside. On where a frontend has this section; [defaults] may have some of its keys.
        tls: FrontendTls,
        /// Sessions of protocol "udp" in mode "proxy": what comes from one client address and port, and the answers. They end by idle_timeout.
        udp: Udp,
        /// PROXY protocol of the clients' connections, mode "proxy" only: the address in the header is the client's for rules, limits, balancing and logs. Off unless `from` is given.
        proxy_protocol: ProxyProtocol,
        /// Which clients may connect; others are reset, of UDP and in packet modes ignored. Default: all.
        access: Access,
        /// How many connections are accepted; more are reset, of UDP and in packet modes ignored. Default: no limits.
        limits: Limits,
    }
}

section! {
    /// Where some of a frontend's connections go. The first route that matches decides; every key that is given must match, and a key that is not given matches everything. TLS is not terminated: the ClientHello is read and passed on.
    Route needs backend or reject {
        /// Host names that the client asks for (SNI): a name, "*.example.com" for every name below it, "www.*" for every name that begins so, "~REGEX", or a list of them. Case does not matter. Connections without a name do not match.
        sni: HostPatterns,
        /// Protocols of which the client offers one (ALPN), such as "h2" or "http/1.1", or a list of them.
        alpn: AlpnNames,
        /// Networks of clients, or "file:NAME" for those of [network_lists], or a list of them.
        source: Subjects<{ routing::MAX_ITEMS }>,
        /// Addresses and ports of this host that the client has connected to, or those that its PROXY header names: "192.0.2.1:443", a network such as "192.0.2.0/24", a port ":8443", ports ":8000-8010", or a list of them.
        destination: Destinations,
        /// Name of the backend that serves these connections.
        backend: BackendRef,
        /// Reset these connections: reject = true.
        reject: bool,
    }
}

section! {
    /// The PEM files of a certificate.
    Certificate {
        /// The certificate and its chain, each followed by its issuer; the private key, too, unless `key` names another file.
        cert (required): FilePath,
        /// The private key of the certificate, unencrypted. Default: it is in cert.
        key: FilePath,
        /// OCSP response for the certificate, in DER, which clients get with it. Default: none.
        ocsp: FilePath,
    }
}

section! {
    /// PROXY protocol, versions 1 and 2: who may say whom a connection is from. A frontend takes the keys that it does not set from [defaults.proxy_protocol].
    ProxyProtocol {
        /// Networks of the load balancers and proxies that send the header, "file:NAME" for those of [network_lists], "unix" for whoever connects to the frontend's unix sockets, or a list of them. A header from anywhere else is not believed.
        from: ProxyPeers,
        /// Reset connections from elsewhere and those without a header. false: they are clients that speak for themselves. Default: true.
        required: bool,
        /// How long the header may take. Default: "3s".
        timeout: Time<false, HOUR>,
        /// Whether headers are read; false turns off what [defaults] says. Default: true.
        enabled: bool,
    }
}

section! {
    /// Sessions of UDP in mode "proxy". A session's datagrams all go to the server that its first one was given to.
    Udp {
        /// Maximum number of sessions; datagrams that would begin more are dropped and counted, and never end another session. Each needs a socket, some 3 KB in all. max_connections counts, too. Default: 16384.
        max_sessions: Int<1, 10_000_000>,
        /// Datagrams of a client after which its next one begins another session, so that it may go to another server. Default: no limit.
        max_requests: Int<1, { u32::MAX as u64 }>,
        /// Datagrams of the server after which the session ends: 1 for what asks once and is answered once, such as DNS with max_requests = 1. Default: no limit.
        max_responses: Int<1, { u32::MAX as u64 }>,
        /// Largest datagram that is passed on, in bytes; longer ones are dropped and counted. Default: 65535, all.
        buffer_size: Int<1, 65_535>,
    }
}

section! {
    /// TCP keep-alive: probes of an idle connection keep the state of NATs and firewalls on the way, and find a peer that has vanished. No traffic in the sense of idle_timeout. Times are whole seconds, rounded up.
    KeepAlive {
        /// Whether connections are probed. Default: true.
        enabled: bool,
        /// How long nothing comes before the first probe. Default: "2m".
        idle: Time<false, KEEPALIVE>,
        /// Time between two probes. Default: "20s".
        interval: Time<false, KEEPALIVE>,
        /// Unanswered probes after which the connection is closed; tcp_user_timeout counts instead where it is set. Default: 6.
        count: Int<1, 127>,
    }
}

section! {
    /// Which clients may connect: the first rule that names a client decides. In packet modes this is asked for packets without a flow: flows from before go on.
    Access {
        /// Clients that no rule names: "allow" (default) or "deny".
        default: Action,
        /// "allow NETWORK", "deny NETWORK", or "allow file:NAME" for those of [network_lists]. An address is a network too.
        rules: RuleList,
    }
}

section! {
    /// How many connections a frontend accepts; more are reset, of UDP and in packet modes ignored. There each new session or flow is a connection, and anybody can use up a rate with forged packets.
    Limits {
        /// New connections a second of all clients; as many at once after a quiet second. Default: no limit.
        new_per_second: Int<1, 1_000_000>,
        /// What each client network may have.
        per_client: PerClient,
    }
}

section! {
    /// What each client network may have.
    PerClient {
        /// Bits of an IPv4 address that make a client network. Default: 32, each address.
        prefix4: Int<8, 32>,
        /// Bits of an IPv6 address that make a client network. Default: 64.
        prefix6: Int<16, 128>,
        /// Open connections. In mode passthrough they count once the client has answered the server, so that nobody can use up another's with forged packets; in mode dsr from their first packet. Default: no limit.
        connections: Int<1, { u32::MAX as u64 }>,
        /// New connections a second; as many at once after a quiet second. Default: no limit.
        new_per_second: Int<1, 1_000_000>,
        /// Datagrams a second, also of flows that exist; as many at once after a quiet second. Protocol "udp" only. Default: no limit.
        datagrams_per_second: Int<1, 100_000_000>,
        /// TLS handshakes a second, where TLS ends at the frontend; as many at once after a quiet second. More are reset before they cost anything. Default: no limit.
        handshakes_per_second: Int<1, 1_000_000>,
    }
}

section! {
    /// A pool of servers.
    Backend {
        /// The servers: one section [backends.BACKEND.servers.NAME] each.
        servers: Named<Server>,
        /// Name of the backend that serves the connections while this one has no eligible server, mode "proxy" only. It may have a fallback of its own.
        fallback: BackendRef,
        /// TLS to the servers, mode "proxy" only; health checks shake hands too. Without this section connections to them are plain.
        tls: BackendTls,
        /// What the servers themselves say that they should get.
        agent_check: AgentCheck,
        /// Servers that come by themselves, beside those of `servers`.
        discovery: Discovery,
        ..options: BackendOptions,
    }
}

section! {
    /// Settings of a backend that [defaults] may have too.
    BackendOptions {
        /// How a server is chosen. Default: "round_robin". Packet modes always choose by "maglev", with weights and priorities; a warning says so where another is set.
        balance: Algorithm,
        /// Most connections of a server in percent of its share, where balance is "source_hash" or "maglev": at 125 a server has at most a quarter more than its weight gives it, and further clients of its hash get the next one. Mode "proxy" only. Default: no bound.
        hash_balance_factor: Int<101, 100_000>,
        /// Send a client to the server that it had before, mode "proxy" only. On where a backend or [defaults] has this section.
        sticky: Sticky,
        /// Time limit of one connection attempt. Default: "5s".
        connect_timeout: Time<false, HOUR>,
        /// Further attempts after a failed connect, on another server while there is one. Default: 2.
        retries: Int<0, 100>,
        /// How long a connection waits for a server below its max_connections. Default: "5s".
        queue_timeout: Time<false, HOUR>,
        /// Maximum number of connections waiting for a server. Default: 1024.
        max_queue: Int<0, 1_000_000>,
        /// TCP keep-alive of the connections to the servers. On by default.
        server_keepalive: KeepAlive,
        /// Options of the sockets towards the servers, those of health checks too; mode "proxy" only.
        server_socket: ServerSocketOptions,
        /// Source address of connections to the servers. Default: the kernel's choice.
        source_addr: IpAddr,
        /// As in 0.3.5: seconds between two checks of a server; one result decides. Not together with health_check.
        health_check_interval: Time<true, YEAR>,
        /// Active checks: a TCP connect to every server, and a TLS handshake where `tls` is set. On by default, unless only
        /// UDP frontends use the backend.
        health_check: HealthCheck,
        /// Passive checks: a server with failing client connections is ejected for a while. On by default.
        passive_check: PassiveCheck,
        /// Established connections of a server that goes down: "keep" (default) or "close".
        on_down: OnDown,
        /// How replies of DSR servers come from the VIP. "tc" (default; IPv4, same port) and "nft" (IPv6 too, ports can differ) have the servers rewrite them. With "l2" packets keep their addresses: the servers have the VIP on lo, listen there on the same port, and are reached without a router; health checks still go to the servers' own addresses.
        dsr_method: DsrMethod,
        /// Time over which a server that comes back gets its full weight. Default: 0, at once.
        slow_start: Time<true, DAY>,
        /// Tell the servers the client's address in a PROXY header, mode "proxy" only: "v1" (text), "v2" (binary) or "off" (default). They must expect it. Of UDP it stands before the first datagram of a session, and only "v2" is possible.
        send_proxy: ProxyVersion,
        /// What else a header of version 2 says: "authority" (the name that the client asks for), "alpn", "ssl" (TLS version, cipher, client certificate), "unique_id" (a number of the connection, as in the log), "crc32c" (a checksum). Default: none.
        send_proxy_tlvs: TlvList,
    }
}

section! {
    /// One server of a pool.
    Server {
        /// Address of the server, IP:port or HOST:port, where the first port of a frontend's range leads. A link-local one names its interface: "[fe80::1%eth0]:80" (mode "proxy" only). Or "unix:/run/app.sock", a stream socket of this host (mode "proxy" with TCP only) to which the user that convey runs as may write.
        addr (required): ServerPlace,
        /// The name of a host in addr is asked for as this host does it (resolv.conf, hosts), again when its time to live has passed; not beside a [discovery] section. Which of its addresses are servers: "first" (default), the lowest, IPv4 before IPv6, or "all", each called NAME@ADDRESS.
        resolve: Resolve,
        /// Share of the connections, relative to the others'; 0 takes the server out of service. Default: 1.
        weight: Int<0, { u16::MAX as u64 }>,
        /// Lower number = preferred: a group is used only when no server of a lower-numbered group is up. Default: 1.
        priority: Int<0, { u16::MAX as u64 }>,
        /// Maximum number of open connections; more go to other servers or wait. Default: no limit.
        max_connections: Int<1, { u32::MAX as u64 }>,
        /// Host names (SNI) that this server of the backend is for, mode "proxy" only, as in a route: a name, "*.example.com", "www.*", "~REGEX", or a list of them. Other names go to the servers without one: see unexpected_sni. Default: none.
        sni: HostPatterns,
        /// Where its health checks go instead, an IP address or IP:port, such as that of a network for management; not of a host that is named. Default: addr, and `port` of the health check.
        check_addr: CheckAddr,
    }
}

impl File {
    /// The section of both packet modes and its name in this file: `[packet]`, or `[passthrough]` as 0.3.5 calls it.
    pub fn packet_section(&self) -> Option<(&'static str, &Located<Packet>)> {
        let packet = self.packet.as_ref().map(|at| ("packet", at));
        packet.or_else(|| self.passthrough.as_ref().map(|at| ("passthrough", at)))
    }
}

/// `backend` of a frontend or route, or `fallback` of a backend, not yet looked up.
#[derive(Debug, Clone)]
pub struct BackendRef(pub String);

#[cfg(test)]
mod tests;
