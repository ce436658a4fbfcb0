//! What a configuration of the packet modes means: modes, defaults, what needs a restart, what is derived.

use std::time::Duration;

use convey::{
    base::{Endpoint, PortRanges, Protocol},
    config::{self, Algorithm, Config, DsrMethod, EngineChoice, Mode, Options, XdpMode},
};
use libtest_mimic::{Failed, Trial};

use super::{
    load,
    meaning::{Outcome, SECOND, Test, config_of, number, same},
    text,
};

/// The tests of this file.
pub fn trials() -> Vec<Trial> {
    let all: [(&str, Test); 15] = [
        ("the_packet_modes_have_their_documented_defaults", defaults),
        (
            "a_flow_is_forgotten_after_the_nearest_idle_timeout",
            idle_timeouts,
        ),
        ("the_section_is_the_same_by_its_name_of_0_3_5", old_name),
        ("the_capacity_of_0_3_5_is_a_floor_of_max_flows", capacity),
        (
            "nat_addresses_are_one_or_a_list_in_the_order_of_the_file",
            nat_addresses,
        ),
        ("the_flags_set_the_mode_of_frontends_that_name_none", flags),
        ("files_of_0_3_5_run_in_both_packet_modes", files_of_0_3_5),
        ("tcp_and_udp_of_one_address_are_two_services", two_protocols),
        ("one_frontend_may_have_addresses_of_both_families", both_families),
        ("a_vip_may_stand_beside_a_proxy_on_every_address", wildcard_beside),
        ("a_backend_of_packet_modes_alone_balances_by_maglev", balance),
        ("dsr_by_nft_maps_ports_and_speaks_ipv6", nft),
        ("the_packet_services_are_those_of_the_packet_modes", services),
        ("a_diff_of_packet_modes_says_what_needs_a_restart", restart),
        ("a_printed_configuration_warns_of_nothing_new", printed_warnings),
    ];
    all.into_iter()
        .map(|(name, test)| Trial::test(name, test).with_kind("packets"))
        .collect()
}

/// A frontend `f` at 192.0.2.1:80 with more lines, and a backend `b` with a server at 10.0.0.1:80.
fn site(frontend: &str, more: &str) -> String {
    format!(
        "[frontends.f]\nlisten_addr = \"192.0.2.1:80\"\nbackend = \"b\"\n{frontend}\n\
         [backends.b.servers.s]\naddr = \"10.0.0.1:80\"\n{more}"
    )
}

fn frontend_of(toml: &str) -> Result<config::Frontend, Failed> {
    let config = config_of(toml)?;
    config
        .frontends
        .get("f")
        .map(|frontend| (**frontend).clone())
        .ok_or_else(|| "no frontend".into())
}

fn defaults() -> Outcome {
    let config = config_of(&site("mode = \"passthrough\"", ""))?;
    let packet = &config.packet;
    same(packet.engine, EngineChoice::Auto)?;
    same(packet.xdp_mode, XdpMode::Auto)?;
    same(packet.workers, None)?;
    same(packet.max_flows, number(1 << 20))?;
    same(packet.nat_ports, PortRanges::STOCK)?;
    same(packet.nat_addresses.len(), 0)?;
    let frontend = config.frontends.get("f").ok_or("no frontend")?;
    same(
        (frontend.mode, frontend.protocol, &frontend.interface),
        (Mode::Passthrough, Protocol::Tcp, &None),
    )?;
    let backend = config.backends.get("b").ok_or("no backend")?;
    same(backend.dsr_method, DsrMethod::Tc)
}

fn idle_timeouts() -> Outcome {
    let idle = |frontend: &str, more: &str| -> Result<Option<Duration>, Failed> {
        Ok(frontend_of(&site(frontend, more))?.idle_timeout)
    };
    let dsr = "mode = \"dsr\"";
    let own = "mode = \"dsr\"\nidle_timeout = 5";
    let packet = "[packet]\nidle_timeout = 7\n";
    let both = "[packet]\nidle_timeout = 7\n[defaults]\nidle_timeout = 9\n";
    let general = "[defaults]\nidle_timeout = 9\n";
    same(idle(dsr, "")?, Some(900 * SECOND))?;
    same(idle("mode = \"dsr\"\nprotocol = \"udp\"", "")?, Some(60 * SECOND))?;
    same(idle(dsr, general)?, Some(9 * SECOND))?;
    same(idle(dsr, both)?, Some(7 * SECOND))?;
    same(idle(own, both)?, Some(5 * SECOND))?;
    same(idle("mode = \"proxy\"", packet)?, Some(600 * SECOND))?;
    same(idle("mode = \"proxy\"", both)?, Some(9 * SECOND))?;
    // Never is for proxied connections; that of [defaults] gives way to the packet modes' own.
    let never = "[packet]\nidle_timeout = 7\n[defaults]\nidle_timeout = 0\n";
    same(idle(dsr, never)?, Some(7 * SECOND))?;
    same(idle("mode = \"proxy\"", never)?, None)
}

fn old_name() -> Outcome {
    let keys = "engine = \"raw\"\nworkers = 2\nmax_flows = 5000\nnat_ports = \"40000-65535\"\n\
                nat_address = \"192.0.2.9\"\nidle_timeout = 7\nconnection_tracker_capacity = 1\n\
                stats_update_frequency = 5\n";
    let named = |name: &str| config_of(&site("mode = \"dsr\"", &format!("[{name}]\n{keys}")));
    let (old, new) = (named("passthrough")?, named("packet")?);
    same(&old, &new)?;
    same(config::diff(&old, &new), config::Diff::default())?;
    same(old.packet.workers, Some(number(2)))?;
    let printed = config::print(&old);
    same(printed.contains("\n[packet]\n"), true)?;
    same(printed.contains("[passthrough]"), false)
}

fn capacity() -> Outcome {
    let flows = |lines: &str| -> Result<u32, Failed> {
        Ok(config_of(&format!("[packet]\n{lines}"))?.packet.max_flows.get())
    };
    same(flows("connection_tracker_capacity = 1000")?, 1 << 20)?;
    same(flows("connection_tracker_capacity = 2_000_000")?, 2_000_000)?;
    same(flows("connection_tracker_capacity = 9_000_000_000")?, 1 << 24)?;
    same(flows("max_flows = 5000")?, 5_000)?;
    same(
        flows("max_flows = 5000\nconnection_tracker_capacity = 6000")?,
        6_000,
    )?;
    same(
        flows("max_flows = 7000\nconnection_tracker_capacity = 6000")?,
        7_000,
    )
}

fn nat_addresses() -> Outcome {
    let of = |value: &str| -> Result<_, Failed> {
        let packet = config_of(&format!("[packet]\nnat_address = {value}\n"))?.packet;
        let texts: Vec<_> = packet.nat_addresses.iter().map(ToString::to_string).collect();
        Ok(texts.join(" "))
    };
    let all = "2001:db8::1 192.0.2.2 192.0.2.1";
    same(of("\"192.0.2.1\"")?, "192.0.2.1".to_owned())?;
    same(of("\"2001:db8::1\"")?, "2001:db8::1".to_owned())?;
    same(
        of("[\"2001:db8::1\", \"192.0.2.2\", \"192.0.2.1\"]")?,
        all.to_owned(),
    )
}

fn with_mode(toml: &str, mode: Mode) -> Result<config::Loaded, Failed> {
    let source = text(toml);
    let options = Options {
        default_mode: Some(mode),
        ..Options::default()
    };
    config::load(&source, options).map_err(|found| config::render(&found, &source, false).into())
}

fn flags() -> Outcome {
    let toml = site(
        "",
        "[frontends.p]\nlisten_addr = \"0.0.0.0:80\"\nbackend = \"b\"\nmode = \"proxy\"\n",
    );
    for mode in [Mode::Passthrough, Mode::Dsr, Mode::Proxy] {
        let config = with_mode(&toml, mode)?.config;
        let modes: Vec<_> = config.frontends.values().map(|f| f.mode).collect();
        same(modes, vec![mode, Mode::Proxy])?;
    }
    // [defaults] is nearer than the command line.
    let config = with_mode(&site("", "[defaults]\nmode = \"dsr\"\n"), Mode::Passthrough)?.config;
    same(config.frontends.get("f").map(|f| f.mode), Some(Mode::Dsr))
}

fn files_of_0_3_5() -> Outcome {
    let path = super::top().join("configs/convey-0.3.5-packets.toml");
    let toml = std::fs::read_to_string(path)?;
    for mode in [Mode::Passthrough, Mode::Dsr] {
        let loaded = with_mode(&toml, mode)?;
        same(loaded.config.frontends.values().all(|f| f.mode == mode), true)?;
        same(
            loaded
                .config
                .backends
                .values()
                .all(|b| b.balance == Algorithm::Maglev),
            true,
        )?;
        let warned: Vec<_> = loaded.warnings.iter().map(|d| d.path.as_str()).collect();
        same(warned, vec!["stats", "passthrough.connection_tracker_capacity"])?;
    }
    Ok(())
}

fn two_protocols() -> Outcome {
    let more = "[frontends.g]\nlisten_addr = \"192.0.2.1:80\"\nbackend = \"b\"\nmode = \"dsr\"\nprotocol = \"udp\"\n";
    let config = config_of(&site("mode = \"passthrough\"", more))?;
    let protocols: Vec<_> = config
        .packet_services()
        .into_iter()
        .map(|s| s.vip.protocol)
        .collect();
    same(protocols, vec![Protocol::Tcp, Protocol::Udp])
}

fn both_families() -> Outcome {
    let toml = "[frontends.f]\nlisten_addr = [\"192.0.2.1:80\", \"[2001:db8::1]:80\"]\nbackend = \"b\"\nmode = \"passthrough\"\n\
                [backends.b.servers]\na = { addr = \"10.0.0.1:80\" }\nb = { addr = \"[fd00::1]:80\" }\n";
    let loaded = load(&text(toml))?;
    same(loaded.warnings.len(), 0)?;
    let servers = |service: &config::PacketService| service.servers.len();
    let services = loaded.config.packet_services();
    same(services.iter().map(servers).collect::<Vec<_>>(), vec![1, 1])
}

fn wildcard_beside() -> Outcome {
    let more = "[frontends.g]\nlisten_addr = [\"0.0.0.0:80\", \"[::]:80\"]\nbackend = \"b\"\n";
    same(config_of(&site("mode = \"passthrough\"", more)).is_ok(), true)
}

fn balance() -> Outcome {
    let of = |toml: String| -> Result<Option<Algorithm>, Failed> {
        Ok(config_of(&toml)?.backends.get("b").map(|b| b.balance))
    };
    let other = "[frontends.g]\nlisten_addr = \"0.0.0.0:80\"\nbackend = \"b\"\n";
    same(of(site("mode = \"dsr\"", ""))?, Some(Algorithm::Maglev))?;
    same(of(site("mode = \"dsr\"", other))?, Some(Algorithm::RoundRobin))?;
    let random = "[defaults]\nbalance = \"random\"\n";
    same(of(site("mode = \"dsr\"", random))?, Some(Algorithm::Maglev))?;
    same(of(site("", random))?, Some(Algorithm::Random))
}

fn nft() -> Outcome {
    let toml = "[frontends.f]\nlisten_addr = \"[2001:db8::1]:80\"\nbackend = \"b\"\nmode = \"dsr\"\n\
                [backends.b]\ndsr_method = \"nft\"\nservers.s = { addr = \"[fd00::1]:8080\" }\n";
    let config = config_of(toml)?;
    same(
        config.backends.get("b").map(|b| b.dsr_method),
        Some(DsrMethod::Nft),
    )
}

fn services() -> Outcome {
    let config = config_of(
        "[packet]\nnat_ports = \"50000-50099\"\n\
         [frontends.p]\nlisten_addr = \"0.0.0.0:80\"\nbackend = \"b\"\n\
         [frontends.t]\nlisten_addr = [\"192.0.2.9:80\", \"192.0.2.1:80\"]\nbackend = \"b\"\nmode = \"passthrough\"\n\
         [frontends.d]\nlisten_addr = \"192.0.2.5:80\"\nbackend = \"b\"\nmode = \"dsr\"\nprotocol = \"udp\"\n\
         [backends.b.servers]\nz = { addr = \"10.0.0.1:80\" }\na = { addr = \"10.0.0.2:80\" }\n\
         twin = { addr = \"10.0.0.1:80\" }\n",
    )?;
    let services = config.packet_services();
    let seen: Vec<_> = services
        .iter()
        .map(|s| {
            (
                s.vip.listen.to_string(),
                s.vip.protocol.label(),
                s.nat_ports.map(|p| p.to_string()),
            )
        })
        .collect();
    let ports = || Some("50000-50099".to_owned());
    same(
        seen,
        vec![
            ("192.0.2.1:80".to_owned(), "tcp", ports()),
            ("192.0.2.5:80".to_owned(), "udp", None),
            ("192.0.2.9:80".to_owned(), "tcp", ports()),
        ],
    )?;
    for service in &services {
        let servers: Vec<_> = service.servers.iter().map(ToString::to_string).collect();
        same(servers, vec!["10.0.0.1:80".to_owned(), "10.0.0.2:80".to_owned()])?;
    }
    let idle: Config = config_of("[global]\n")?;
    same(idle.packet_services().is_empty(), true)?;
    same(services[0].vip, Endpoint::tcp("192.0.2.1:80".parse()?).into())
}

fn restart() -> Outcome {
    let diff = |lines: &str| -> Result<_, Failed> {
        let old = config_of("[packet]\n")?;
        Ok(config::diff(&old, &config_of(&format!("[packet]\n{lines}"))?))
    };
    let found = diff("engine = \"raw\"\nworkers = 2\nmax_flows = 5000\n")?;
    same(
        found.needs_restart.join(" "),
        "packet.engine packet.workers packet.max_flows".to_owned(),
    )?;
    let found = diff("nat_ports = \"40000-65535\"\nnat_address = \"192.0.2.1\"\n")?;
    same(found.needs_restart, Vec::new())?;
    same(
        found.changes.join("\n"),
        "packet: nat_ports 10000-32767,61000-65535 -> 40000-65535\n\
         packet: nat_address the route's choice -> [\"192.0.2.1\"]"
            .to_owned(),
    )?;
    let found = diff("max_ports_per_client = \"off\"\n")?;
    same(found.needs_restart, Vec::new())?;
    same(
        found.changes.join("\n"),
        "packet: max_ports_per_client 1/8 -> off".to_owned(),
    )?;
    let found = config::diff(
        &config_of(&site("", ""))?,
        &config_of(&site("mode = \"dsr\"\ninterface = \"eth0\"", ""))?,
    );
    same(
        found.changes.join("\n"),
        "frontend f: mode proxy -> dsr\n\
         frontend f: interface every interface -> eth0\n\
         frontend f: idle_timeout 10m -> 15m\n\
         backend b: balance round_robin -> maglev"
            .to_owned(),
    )
}

fn printed_warnings() -> Outcome {
    for name in ["passthrough.toml", "dsr.toml", "mixed.toml", "full.toml"] {
        let loaded = load(&super::source(&super::top().join("configs").join(name))?)?;
        let printed = load(&text(&config::print(&loaded.config)))?;
        let warnings = |loaded: &config::Loaded| -> Vec<String> {
            loaded.warnings.iter().map(|d| d.message.clone()).collect()
        };
        same(warnings(&printed), warnings(&loaded))?;
    }
    Ok(())
}
