//! Any sections about the process and the packet modes.

use std::{net::IpAddr, num::NonZeroU32};

use convey::{
    base::{PortRange, Role},
    config::{
        Admin, AdminApi, AdminEntry, CertificateFiles, Command, EngineChoice, Global, HashSeed, Hooks,
        LogFormat, LogLevel, PacketModes, PortsPerClient, XdpMode,
    },
};
use proptest::{option, prelude::*};

use super::{
    configs::{DAY, count, millis},
    tls::path,
};

/// Any `[hooks]`.
pub fn hooks() -> impl Strategy<Value = Hooks> {
    option::of(command()).prop_map(|on_change| Hooks { on_change })
}

/// Any command line.
pub fn command() -> impl Strategy<Value = Command> {
    let program = prop_oneof!["/[a-z/]{1,20}", "[a-z]{1,9}"];
    let words = prop::collection::vec("[^\\x00]{0,12}", 0..4);
    (program, words, millis(1, 600_000)).prop_map(|(program, words, timeout)| Command {
        line: [vec![program], words].concat(),
        timeout,
    })
}

/// Any `[global]`.
pub fn global() -> impl Strategy<Value = Global> {
    use prop::sample::select;
    let levels = select(vec![
        LogLevel::Error,
        LogLevel::Warn,
        LogLevel::Info,
        LogLevel::Debug,
        LogLevel::Trace,
    ]);
    let formats = select(vec![LogFormat::Text, LogFormat::Json]);
    (
        levels,
        (formats, count(1_000_000)),
        any::<bool>(),
        option::of("[a-z_][a-z0-9_-]{0,20}"),
        option::of(count(1_024)),
        millis(0, DAY),
        option::of(path()),
        (option::of(path()), option::of("\\PC{1,20}")),
    )
        .prop_map(
            |(
                log_level,
                (log_format, access_log_per_second),
                watch_config,
                user,
                workers,
                shutdown_timeout,
                state_dir,
                (ticket_keys_file, hash_seed),
            )| {
                Global {
                    log_level,
                    log_format,
                    access_log_per_second,
                    watch_config,
                    user,
                    workers,
                    shutdown_timeout,
                    state_dir,
                    ticket_keys_file,
                    hash_seed: hash_seed.map(HashSeed),
                }
            },
        )
}

/// Any `[admin]`.
pub fn admin() -> impl Strategy<Value = Admin> {
    (option::of(path()), option::of(admin_api()), any::<bool>()).prop_map(
        |(socket, api, allow_config_writes)| Admin {
            socket,
            api,
            allow_config_writes,
        },
    )
}

/// Any API on TCP. Nothing else listens on these addresses.
fn admin_api() -> impl Strategy<Value = AdminApi> {
    let file = || path().prop_map(|cert| (cert, None));
    let two_files = (path(), path()).prop_map(|(cert, key)| (cert, Some(key)));
    let tls = prop_oneof![file(), two_files].prop_map(|(cert, key)| CertificateFiles {
        cert,
        key,
        ocsp: None,
    });
    let role = prop::sample::select(Role::ALL.to_vec());
    let entry = prop_oneof![
        path().prop_map(AdminEntry::Tokens),
        role.prop_map(AdminEntry::Loopback)
    ];
    let hosts = prop::collection::vec("[a-z]{1,9}(\\.[a-z]{1,9}){0,2}", 0..3);
    let origins = prop::collection::vec("https?://[a-z]{1,9}\\.example(:8[0-9]{3})?", 0..3);
    (any::<bool>(), option::of(tls), entry, hosts, origins).prop_map(
        |(everywhere, tls, entry, hosts, origins)| {
            let is_safe = tls.is_some() && matches!(entry, AdminEntry::Tokens(_));
            let ip = if everywhere && is_safe {
                "198.51.100.7"
            } else {
                "127.9.9.9"
            };
            AdminApi {
                listen: format!("{ip}:7001").parse().expect("an address"),
                tls,
                entry,
                allowed_hosts: hosts.iter().map(|host| host.parse().expect("a name")).collect(),
                allowed_origins: origins
                    .iter()
                    .map(|page| page.parse().expect("an origin"))
                    .collect(),
            }
        },
    )
}

/// Any `[packet]`.
pub fn packet() -> impl Strategy<Value = PacketModes> {
    const MOST: u32 = 1 << 24;
    let engine = prop::sample::select(vec![EngineChoice::Auto, EngineChoice::Xdp, EngineChoice::Raw]);
    let xdp_mode = prop::sample::select(vec![XdpMode::Auto, XdpMode::Native, XdpMode::Generic]);
    let ports = (1_024..=u16::MAX, 1_024..=u16::MAX).prop_map(|(one, other)| PortRange {
        first: one.min(other),
        last: one.max(other),
    });
    let address = prop_oneof![
        (1..=254_u8).prop_map(|host| IpAddr::from([192, 0, 2, host])),
        any::<u16>().prop_map(|host| IpAddr::from([0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, host])),
    ];
    let addresses = prop::collection::hash_set(address, 0..=16).prop_map(|all| all.into_iter().collect());
    (
        (engine, xdp_mode),
        option::of(count(1_024)),
        64..=MOST,
        (ports, any::<bool>(), ports_per_client()),
        addresses,
        option::of(prop_oneof![0..=u64::MAX / 2, 0..=1_000_000_u64]),
        option::of(millis(0, 365 * DAY)),
    )
        .prop_map(
            |(
                (engine, xdp_mode),
                workers,
                flows,
                (nat_ports, any_interface, max_ports_per_client),
                nat_addresses,
                capacity,
                stats_update_frequency,
            )| {
                let floor = u32::try_from(capacity.unwrap_or(0)).unwrap_or(MOST).min(MOST);
                PacketModes {
                    engine,
                    xdp_mode,
                    workers,
                    max_flows: NonZeroU32::new(flows.max(floor)).unwrap_or(NonZeroU32::MIN),
                    nat_ports: nat_ports.into(),
                    any_interface,
                    max_ports_per_client,
                    nat_addresses,
                    connection_tracker_capacity: capacity,
                    stats_update_frequency,
                }
            },
        )
}

fn ports_per_client() -> impl Strategy<Value = PortsPerClient> {
    let part = |(one, other): (NonZeroU32, NonZeroU32)| PortsPerClient::Part(one.min(other), one.max(other));
    prop_oneof![
        Just(PortsPerClient::Unlimited),
        count(u32::MAX).prop_map(PortsPerClient::Count),
        (count(u32::MAX), count(u32::MAX)).prop_map(part),
    ]
}
