//! What the host that a configuration is read on contradicts.

use std::collections::BTreeSet;

use crate::config::{
    Here, Severity,
    findings::Findings,
    model::{Config, Mode},
    raw,
};

/// Finds servers of the packet modes that are this host itself: packets to them would be sent to nobody.
pub fn check(file: &raw::File, config: &Config, here: &Here, findings: &mut Findings) {
    let forwarded: BTreeSet<&str> = (config.frontends.values())
        .filter(|frontend| frontend.mode != Mode::Proxy)
        .map(|frontend| frontend.backend.as_str())
        .collect();
    findings.within("backends", |findings| {
        for (name, backend) in file.backends.iter().flat_map(|at| &at.value.0) {
            if forwarded.contains(name.as_str()) {
                findings.within(name, |findings| in_backend(&backend.value, here, findings));
            }
        }
    });
}

fn in_backend(backend: &raw::Backend, here: &Here, findings: &mut Findings) {
    findings.within("servers", |findings| {
        for (name, server) in backend.servers.iter().flat_map(|at| &at.value.0) {
            let Some(addr) = &server.value.fixed() else {
                continue;
            };
            let Some(ip) = addr.value.ip() else { continue };
            // loopback addresses are refused wherever they are read
            if ip.is_loopback() || !here.addresses.contains(&ip) {
                continue;
            }
            let message =
                format!("packets cannot be forwarded to server `{name}`: {ip} is an address of this host");
            let help =
                "write the address of another host; only mode proxy reaches servers on this one".to_owned();
            findings.within(name, |findings| {
                findings.within("addr", |findings| match here.severity {
                    Severity::Error => findings.error(addr.span.clone(), message, help),
                    Severity::Warning => findings.warn(addr.span.clone(), message, help),
                });
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Options, Source, load_here, render};

    fn findings(mode: &str, severity: Severity) -> Result<String, String> {
        let source = Source {
            name: "c.toml".to_owned(),
            bytes: format!(
                "[frontends.web]\nlisten_addr = \"192.0.2.1:80\"\nmode = \"{mode}\"\nbackend = \"web\"\n\
                 [backends.web]\nservers.a = {{ addr = \"10.0.0.1:80\" }}\nservers.b = {{ addr = \"10.0.0.2:80\" }}\n"
            )
            .into_bytes(),
        };
        let here = Here {
            addresses: ["10.0.0.2".parse().unwrap(), "127.0.0.1".parse().unwrap()].into(),
            severity,
        };
        load_here(&source, Options::default(), Some(&here))
            .map(|loaded| render(&loaded.warnings, &source, false))
            .map_err(|findings| render(&findings, &source, false))
    }

    const FOUND: &str =
        "packets cannot be forwarded to server `b`: 10.0.0.2 is an address of this host\n --> c.toml:7:22\n";

    #[test]
    fn a_local_server_of_a_packet_mode_is_refused_where_it_is_to_run_and_warned_about_elsewhere() {
        for mode in ["passthrough", "dsr"] {
            let error = findings(mode, Severity::Error).unwrap_err();
            assert!(error.starts_with(&format!("error: {FOUND}")), "{error}");
            assert_eq!(error.matches("error: ").count(), 1, "{error}");
            let warning = findings(mode, Severity::Warning).unwrap();
            assert!(warning.starts_with(&format!("warning: {FOUND}")), "{warning}");
        }
        assert_eq!(findings("proxy", Severity::Error), Ok(String::new()));
    }
}
