//! `convey check`.

use std::{collections::BTreeMap, io::Write, net::IpAddr, path::Path};

use serde::Serialize;

use super::{
    args::{CheckArgs, Format, ModeArgs},
    check_admin, check_commands, check_discovery, check_otlp, check_sockets, check_tls, gateways, others,
    outcome::{CommandResult, Failure},
    source_notes, target,
    text::colour_wanted,
    xdp_memory,
};
use crate::{
    access::{MAX_LIST_BYTES, Networks},
    base::{PortRange, Protocol, exit},
    config::{self, Config, Diagnostic, Here, Loaded, Options, Severity, Source},
    engine::network::{self, Wanted},
    firewall::{self, FirewallError},
    sys::{config_file, interfaces},
};

/// Checks a configuration, or prints the schema of all of them.
pub fn run(args: &CheckArgs, config: Option<&Path>, mode: ModeArgs) -> CommandResult {
    let mut out = std::io::stdout().lock();
    if args.schema {
        serde_json::to_writer_pretty(&mut out, &config::schema()).map_err(std::io::Error::from)?;
        writeln!(out)?;
        return Ok(exit::OK);
    }
    let source = target::read_config(args.file.as_deref().or(config))?;
    let options = args.mode.or(mode).options();
    let checked = look(&source, options, args.ephemeral);
    match args.format {
        Format::Json => {
            let report = Report::new(&source.name, &checked);
            serde_json::to_writer_pretty(&mut out, &report).map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
        Format::Human => {
            let config = checked.as_ref().ok().map(|loaded| &loaded.config);
            let notes = config
                .map(|config| notes(config, args.ephemeral))
                .unwrap_or_default();
            human(&checked, &source, &notes, args.print, &mut out)?;
        }
    }
    out.flush()?;
    Ok(match checked {
        Ok(_) => exit::OK,
        Err(_) => exit::CONFIG,
    })
}

/// Everything that is wrong with a configuration, and with the files that it names. `ephemeral` are another host's ports.
pub fn look(
    source: &Source,
    options: Options,
    ephemeral: Option<PortRange>,
) -> Result<Loaded, Vec<Diagnostic>> {
    // the file may be another host's; the start and a reload refuse what this warns about
    let here = Here {
        addresses: interfaces::own_addresses(),
        severity: Severity::Warning,
    };
    let checked = match ephemeral {
        Some(ephemeral) => {
            let default_nat_ports = Some(firewall::default_nat_ports_beside(ephemeral));
            let options = Options {
                default_nat_ports,
                ..options
            };
            config::load(source, options)
        }
        None => firewall::load_for_host(source, options, Some(&here)).map(|(mut loaded, _)| {
            loaded
                .warnings
                .extend(gateways::warnings(&loaded.config, &source.name));
            loaded
        }),
    };
    (checked.and_then(with_lists).and_then(with_tls))
        .and_then(check_admin::with_tokens)
        .map(with_sources)
}

/// With what is wrong with the network lists. One that cannot be read here is a warning, as the file may be another host's; the
/// start and a reload refuse it.
fn with_lists(mut loaded: Loaded) -> Result<Loaded, Vec<Diagnostic>> {
    let (mut unread, mut broken) = (Vec::new(), Vec::new());
    for (name, list) in &loaded.config.network_lists {
        let finding = |severity, message: String, help: &str| Diagnostic {
            severity,
            file: list.path.display().to_string(),
            line: 0,
            column: 0,
            span: 0..0,
            path: format!("network_lists.{name}"),
            message: format!("network list {name}: {message}"),
            help: Some(help.to_owned()),
        };
        match config_file::read(&list.path, MAX_LIST_BYTES) {
            Err(error) => unread.push(finding(
                Severity::Warning,
                error.of_file_named_in("[network_lists]"),
                "convey does not start where it cannot read it",
            )),
            Ok(bytes) => broken.extend(Networks::parse(&bytes).err().map(|error| {
                finding(
                    Severity::Error,
                    error.to_string(),
                    "write a network or address a line; # begins a comment",
                )
            })),
        }
    }
    loaded.warnings.extend(unread);
    if broken.is_empty() {
        return Ok(loaded);
    }
    broken.append(&mut loaded.warnings);
    Err(broken)
}

/// With what is wrong with certificates and other files about TLS.
fn with_tls(mut loaded: Loaded) -> Result<Loaded, Vec<Diagnostic>> {
    let mut found = check_tls::look(&loaded.config);
    loaded.warnings.append(&mut found.warnings);
    if found.errors.is_empty() {
        return Ok(loaded);
    }
    found.errors.append(&mut loaded.warnings);
    Err(found.errors)
}

/// With what is wrong with files that name servers, and those that exports need.
fn with_sources(mut loaded: Loaded) -> Loaded {
    loaded.warnings.extend(check_discovery::warnings(&loaded.config));
    loaded.warnings.extend(check_otlp::warnings(&loaded.config));
    loaded
}

/// Findings go to stderr with their excerpts; stdout has the verdict, or the configuration in full.
fn human(
    checked: &Result<Loaded, Vec<Diagnostic>>,
    source: &Source,
    notes: &[String],
    print: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut stderr = std::io::stderr().lock();
    let findings = findings(checked);
    stderr.write_all(config::render(findings, source, colour_wanted(&stderr)).as_bytes())?;
    for note in notes {
        writeln!(stderr, "note: {note}")?;
    }
    match checked {
        Ok(loaded) if print => out.write_all(config::print(&loaded.config).as_bytes())?,
        Ok(_) => writeln!(out, "{}: {}", source.name, verdict(findings))?,
        // the findings speak for themselves, and stdout stays empty for who reads --print
        Err(_) => writeln!(stderr, "\n{}: {}", source.name, verdict(findings))?,
    }
    Ok(())
}

/// What a valid configuration meets with on this host, or on one with other `ephemeral` ports.
pub fn notes(config: &Config, ephemeral: Option<PortRange>) -> Vec<String> {
    let services = config.packet_services();
    let mut notes: Vec<String> = udp_super_frames(config, &kernel_release()).into_iter().collect();
    if services.iter().any(|service| service.nat_ports.is_some()) {
        notes.extend(few_ephemeral(config, ephemeral));
    }
    notes.extend(xdp_memory::note(config, &services));
    notes.extend(source_notes::notes(config));
    notes.extend(check_discovery::notes(config));
    // the file may be meant for another host
    if ephemeral.is_none() {
        notes.extend(others::notes(config));
        notes.extend(check_sockets::notes(config));
        notes.extend(check_commands::notes(config));
        // where the kernel is not to be asked, there is nothing to say
        if let Ok(network) = network::look(Wanted::of(config, &services)) {
            notes.extend(moving_sources(&network.moving));
        }
    }
    notes
}

/// That the NAT ports leave too few ephemeral ports.
fn few_ephemeral(config: &Config, ephemeral: Option<PortRange>) -> Option<String> {
    let nat_ports = config.packet.nat_ports;
    let judged = match ephemeral {
        Some(ephemeral) => firewall::check_ephemeral_beside(ephemeral, nat_ports),
        None => {
            let record = firewall::record_path(config.admin.socket.as_deref());
            firewall::check_ephemeral(&record, nat_ports)
        }
    };
    match judged {
        Ok(warning) => warning,
        Err(error @ FirewallError::TooFewPorts { .. }) => {
            Some(format!("the start and a reload will be refused: {error}"))
        }
        // what cannot be read here cannot be judged here
        Err(_) => None,
    }
}

/// That flows get a VIP as their source, by servers.
fn moving_sources(moving: &BTreeMap<IpAddr, IpAddr>) -> Vec<String> {
    let mut by_vip: BTreeMap<IpAddr, Vec<IpAddr>> = BTreeMap::new();
    for (server, vip) in moving {
        by_vip.entry(*vip).or_default().push(*server);
    }
    (by_vip.into_iter())
        .map(|(vip, servers)| {
            let named: Vec<String> = servers.iter().take(3).map(ToString::to_string).collect();
            let more = match servers.len().saturating_sub(named.len()) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!(
                "passthrough flows to {}{more} have the source address {vip}, a frontend's: a fail-over moves it. If \
                 another load balancer may take over, give the interface an address that stays, or name one: \
                 nat_address = \"…\" in [packet]",
                named.join(", ")
            )
        })
        .collect()
}

fn kernel_release() -> String {
    nix::sys::utsname::uname().map_or_else(
        |_| String::new(),
        |names| names.release().to_string_lossy().into_owned(),
    )
}

/// What an older kernel cannot do for UDP in packet modes: it has no mark for super-frames of UDP in the header that
/// packet sockets give them (VIRTIO_NET_HDR_GSO_UDP_L4, Linux 6.2), and drops them.
fn udp_super_frames(config: &Config, release: &str) -> Option<String> {
    let has_udp = (config.frontends.values()).any(|f| f.mode.is_packet() && f.protocol == Protocol::Udp);
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return None;
    };
    (has_udp && (major, minor) < (6_u32, 2_u32)).then(|| {
        format!(
            "this kernel ({release}) drops UDP packets that the interface has merged (GRO) or that a local sender has not \
             segmented yet (UDP_SEGMENT) before the packet engine gets them: use kernel 6.2 or later, or here \
             `ethtool -K DEVICE rx-udp-gro-forwarding off rx-gro-list off` keeps interfaces from merging"
        )
    })
}

fn findings(checked: &Result<Loaded, Vec<Diagnostic>>) -> &[Diagnostic] {
    match checked {
        Ok(loaded) => &loaded.warnings,
        Err(findings) => findings,
    }
}

fn verdict(findings: &[Diagnostic]) -> String {
    let count = |severity| {
        findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    };
    let counted = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    match (count(Severity::Error), count(Severity::Warning)) {
        (0, 0) => "OK".to_owned(),
        (0, warnings) => format!("OK, {}", counted(warnings, "warning")),
        (errors, 0) => counted(errors, "error"),
        (errors, warnings) => format!(
            "{} and {}",
            counted(errors, "error"),
            counted(warnings, "warning")
        ),
    }
}

/// `--format json`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    /// The file.
    file: &'a str,
    /// Whether it is valid.
    valid: bool,
    /// Errors and warnings, in the order of the file.
    findings: &'a [Diagnostic],
}

impl<'a> Report<'a> {
    fn new(file: &'a str, checked: &'a Result<Loaded, Vec<Diagnostic>>) -> Self {
        Self {
            file,
            valid: checked.is_ok(),
            findings: findings(checked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity) -> Diagnostic {
        Diagnostic {
            severity,
            file: "c.toml".into(),
            line: 3,
            column: 1,
            span: 10..12,
            path: "frontends.web.listen_adr".into(),
            message: "unknown key".into(),
            help: Some("did you mean `listen_addr`?".into()),
        }
    }

    #[test]
    fn the_verdict_counts_errors_and_warnings() {
        use Severity::{Error, Warning};
        for (severities, text) in [
            (vec![], "OK"),
            (vec![Warning], "OK, 1 warning"),
            (vec![Error], "1 error"),
            (vec![Error, Warning, Error, Warning], "2 errors and 2 warnings"),
        ] {
            let findings: Vec<_> = severities.into_iter().map(finding).collect();
            assert_eq!(verdict(&findings), text);
        }
    }

    #[test]
    fn the_json_report_has_a_verdict_and_every_finding_with_its_place() {
        let checked = Err(vec![finding(Severity::Error)]);
        let report = serde_json::to_value(Report::new("c.toml", &checked)).expect("JSON");
        assert_eq!(
            report,
            serde_json::json!({
                "file": "c.toml",
                "valid": false,
                "findings": [{
                    "severity": "error",
                    "file": "c.toml",
                    "line": 3,
                    "column": 1,
                    "path": "frontends.web.listen_adr",
                    "message": "unknown key",
                    "help": "did you mean `listen_addr`?",
                }],
            })
        );
    }

    #[test]
    fn a_source_that_a_fail_over_moves_is_named_once_with_its_servers() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let moving = [("10.0.0.1", "10.0.0.80"), ("10.0.0.2", "10.0.0.80")];
        let notes = moving_sources(&moving.map(|(server, vip)| (ip(server), ip(vip))).into());
        let [note] = notes.as_slice() else {
            panic!("{notes:?}")
        };
        assert!(
            note.contains("flows to 10.0.0.1, 10.0.0.2 have the source address 10.0.0.80"),
            "{note}"
        );
        assert!(note.contains("nat_address"), "{note}");
        assert!(moving_sources(&BTreeMap::new()).is_empty());
    }

    #[test]
    fn nat_ports_that_leave_a_host_few_ephemeral_ones_are_noted() {
        let config = |nat_ports: &str| {
            let text = format!(
                "[packet]\nnat_ports = \"{nat_ports}\"\n[frontends.a]\nlisten_addr = \"192.0.2.1:53\"\n\
                 mode = \"passthrough\"\nbackend = \"b\"\n[backends.b]\nservers.s = {{ addr = \"10.0.0.1:53\" }}\n"
            );
            let source = Source {
                name: "c.toml".to_owned(),
                bytes: text.into_bytes(),
            };
            let loaded = config::load(&source, Options::default());
            loaded.expect("a valid configuration").config
        };
        let beside = Some(PortRange {
            first: 32_768,
            last: 60_999,
        });
        let note = |nat_ports| few_ephemeral(&config(nat_ports), beside);
        assert_eq!(note("10000-32767,61000-65535"), None);
        assert!(note("40000-65535").is_some_and(|note| note.contains("leave only 7232")));
        assert!(
            note("33768-65535")
                .is_some_and(|note| note.starts_with("the start and a reload will be refused"))
        );
    }

    #[test]
    fn a_kernel_that_drops_merged_udp_packets_is_named_where_that_matters() {
        let load = |protocol: &str| {
            let text = format!(
                "[frontends.a]\nlisten_addr = \"192.0.2.1:53\"\nmode = \"dsr\"\nprotocol = \"{protocol}\"\n\
                 backend = \"b\"\n[backends.b]\nservers.s = {{ addr = \"10.0.0.1:53\" }}\n"
            );
            let source = Source {
                name: "c.toml".to_owned(),
                bytes: text.into_bytes(),
            };
            config::load(&source, Options::default())
                .expect("a valid configuration")
                .config
        };
        let note = udp_super_frames(&load("udp"), "6.1.0-40-amd64").expect("a note");
        assert!(note.contains("6.1.0-40-amd64") && note.contains("6.2"), "{note}");
        for (protocol, release) in [
            ("udp", "6.2.0"),
            ("udp", "6.18.5"),
            ("tcp", "6.1.0"),
            ("udp", "odd"),
        ] {
            assert_eq!(
                udp_super_frames(&load(protocol), release),
                None,
                "{protocol} {release}"
            );
        }
    }
}
