//! What is said of certificates that are ordered: only of those that an operator should look at.

use crate::{
    admin::views::{Acme, Certificate, CertificateState},
    cli::text::{Style, harmless, time},
};

/// A line for each that is not there, has expired, or cannot be ordered.
pub fn lines(acme: &Acme, colour: bool) -> String {
    let lines = acme.certificates.iter().filter_map(|certificate| {
        let (text, style) = line(certificate)?;
        Some(format!("{}\n", style.paint(&harmless(&text), colour)))
    });
    lines.collect()
}

fn line(certificate: &Certificate) -> Option<(String, Style)> {
    let state = match (certificate.state.known(), certificate.expires_seconds) {
        (Some(CertificateState::Valid), Some(left)) => format!("valid for {}", time(left)),
        (Some(CertificateState::Expired), Some(left)) => format!("expired {} ago", time(-left)),
        _ => certificate.state.to_string(),
    };
    let name = &certificate.name;
    match &certificate.problem {
        Some(problem) => {
            let since = time(problem.seconds);
            let text = format!(
                "certificate {name}: {state}, ordering it fails for {since}: {}",
                problem.text
            );
            Some((text, Style::Bad))
        }
        None if certificate.state == CertificateState::Valid => None,
        None => {
            let how = match certificate.ordering_seconds {
                Some(seconds) => format!(", ordered {} ago", time(seconds)),
                None => String::new(),
            };
            Some((format!("certificate {name}: {state}{how}"), Style::Notice))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admin::views::CertificateProblem, config::Challenge};

    #[test]
    fn only_what_is_not_as_it_should_be_is_said() {
        let mut certificate = Certificate {
            name: "www.example.com".into(),
            names: vec!["www.example.com".into()],
            frontends: Vec::new(),
            challenge: Challenge::TlsAlpn01.into(),
            state: CertificateState::Valid.into(),
            ordering_seconds: None,
            expires_seconds: Some(86_400.0),
            serial: None,
            next_order_seconds: None,
            problem: None,
        };
        let said = |certificate: &Certificate| {
            let acme = Acme {
                directory: Some("letsencrypt".into()),
                leads: true,
                certificates: vec![certificate.clone()],
            };
            lines(&acme, false)
        };
        assert_eq!(said(&certificate), "");
        certificate.problem = Some(CertificateProblem {
            reason: "unreachable".into(),
            text: "ca.example: no route".into(),
            seconds: 61.0,
        });
        assert_eq!(
            said(&certificate),
            "certificate www.example.com: valid for 1d 0h, ordering it fails for 1m 1s: ca.example: no route\n"
        );
        certificate.problem = None;
        (certificate.state, certificate.expires_seconds) = (CertificateState::Missing.into(), None);
        certificate.ordering_seconds = Some(2.0);
        assert_eq!(
            said(&certificate),
            "certificate www.example.com: missing, ordered 2s ago\n"
        );
    }
}
