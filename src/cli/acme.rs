//! `convey acme`.

use std::io::Write as _;

use super::{
    args::{AcmeCommand, AcmeRenewArgs, AcmeStatusArgs},
    client::{Client, Patience, percent_encode},
    outcome::CommandResult,
    table::{Align, Table},
    text::{Cell, Style, colour_wanted, harmless, terminal_columns, time},
};
use crate::{
    admin::views::{Acme, Certificate, CertificateState, Renewing},
    base::{FrontendName, exit},
};

/// Shows or renews ordered certificates.
pub fn run(command: &AcmeCommand, client: &Client) -> CommandResult {
    match command {
        AcmeCommand::Status(args) => status(args, client),
        AcmeCommand::Renew(args) => renew(args, client),
    }
}

fn status(args: &AcmeStatusArgs, client: &Client) -> CommandResult {
    let answer = client.get("/v1/acme")?;
    let acme: Acme = answer.parse()?;
    let mut stdout = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut stdout, &acme).map_err(std::io::Error::from)?;
        writeln!(stdout)?;
    } else {
        let (colour, width) = (colour_wanted(&stdout), terminal_columns(&stdout));
        stdout.write_all(draw(&acme, width, colour).as_bytes())?;
    }
    stdout.flush()?;
    Ok(exit::OK)
}

fn renew(args: &AcmeRenewArgs, client: &Client) -> CommandResult {
    let mut stdout = std::io::stdout().lock();
    let paths: Vec<String> = match args.names.is_empty() {
        true => vec!["/v1/acme/renew".to_owned()],
        false => (args.names.iter())
            .map(|name| format!("/v1/acme/renew?name={}", percent_encode(name)))
            .collect(),
    };
    for path in paths {
        let renewing: Renewing = client.post(&path, None, Patience::Short)?.parse()?;
        for name in renewing.certificates {
            writeln!(stdout, "{}: ordered; see convey acme status", harmless(&name))?;
        }
    }
    stdout.flush()?;
    Ok(exit::OK)
}

/// The certificates as a table.
fn draw(acme: &Acme, width: Option<usize>, colour: bool) -> String {
    let Some(directory) = &acme.directory else {
        return "no section [acme]: no certificate is ordered\n".to_owned();
    };
    let role = match acme.leads {
        true => "",
        false => ", which another load balancer asks (lead = false)",
    };
    let mut out = format!("certificates of {}{role}\n", harmless(directory));
    if acme.certificates.is_empty() {
        out.push_str("\nno frontend orders one\n");
        return out;
    }
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("EXPIRES", Align::Left),
        ("NEXT ORDER", Align::Left),
        ("CHALLENGE", Align::Left),
        ("FRONTENDS", Align::Left),
        ("NOTE", Align::Left),
    ]);
    for certificate in &acme.certificates {
        table.row(row(certificate));
    }
    out.push('\n');
    out.push_str(&table.fit(width, &["FRONTENDS", "CHALLENGE"]).render(colour));
    out
}

fn row(certificate: &Certificate) -> Vec<Cell> {
    let more = certificate.names.len().saturating_sub(1);
    let name = match more {
        0 => certificate.name.clone(),
        more => format!("{} +{more}", certificate.name),
    };
    let style = match certificate.state.known() {
        Some(CertificateState::Valid) => Style::Good,
        Some(CertificateState::Missing) => Style::Notice,
        Some(CertificateState::Expired) | None => Style::Bad,
    };
    let expires = match certificate.expires_seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds < 0.0 => format!("{} ago", time(-seconds)),
        Some(seconds) => format!("in {}", time(seconds)),
    };
    let next = match (certificate.ordering_seconds, certificate.next_order_seconds) {
        (Some(_), _) => "under way".to_owned(),
        (None, None) => "-".to_owned(),
        (None, Some(seconds)) if seconds < 1.0 => "now".to_owned(),
        (None, Some(seconds)) => format!("in {}", time(seconds)),
    };
    let frontends: Vec<&str> = certificate.frontends.iter().map(FrontendName::as_str).collect();
    let note = match &certificate.problem {
        Some(problem) => Cell::new(
            format!("fails for {}: {}", time(problem.seconds), problem.text),
            Style::Bad,
        ),
        None => Cell::plain(""),
    };
    vec![
        Cell::plain(name),
        Cell::new(&certificate.state, style),
        Cell::plain(expires),
        Cell::plain(next),
        Cell::plain(&certificate.challenge),
        Cell::plain(frontends.join(", ")),
        note,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admin::views::CertificateProblem, config::Challenge};

    #[test]
    fn a_certificate_says_how_it_is_when_it_is_ordered_next_and_what_the_ca_said() {
        let mut certificate = Certificate {
            name: "www.example.com".into(),
            names: vec!["www.example.com".into(), "example.com".into()],
            frontends: vec![FrontendName::new("web").unwrap()],
            challenge: Challenge::TlsAlpn01.into(),
            state: CertificateState::Valid.into(),
            ordering_seconds: None,
            expires_seconds: Some(60.0 * 86_400.0),
            serial: None,
            next_order_seconds: Some(30.0 * 86_400.0),
            problem: None,
        };
        let shown = |certificate: &Certificate| {
            let acme = Acme {
                directory: Some("letsencrypt".into()),
                leads: true,
                certificates: vec![certificate.clone()],
            };
            draw(&acme, None, false).lines().last().unwrap().to_owned()
        };
        assert_eq!(
            shown(&certificate),
            "www.example.com +1  valid  in 60d 0h  in 30d 0h   tls-alpn-01  web"
        );
        certificate.state = CertificateState::Expired.into();
        (certificate.expires_seconds, certificate.next_order_seconds) = (Some(-61.0), Some(0.0));
        certificate.problem = Some(CertificateProblem {
            reason: "rate_limited".into(),
            text: "too many certificates (rateLimited)".into(),
            seconds: 7.0,
        });
        assert_eq!(
            shown(&certificate),
            "www.example.com +1  expired  1m 1s ago  now         tls-alpn-01  web        fails for 7s: too many certificates (rateLimited)"
        );
        assert_eq!(
            draw(&Acme::default(), None, false),
            "no section [acme]: no certificate is ordered\n"
        );
    }
}
