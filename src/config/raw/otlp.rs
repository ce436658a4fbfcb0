//! The section `[otlp]` and the types of its values.

use std::{collections::BTreeMap, ops::Range};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::{
    HOUR, Time,
    discovery_fields::{SourceSecret, SourceTls, SourceWord},
    field::{Field, Key, Located, Node, bad_value, inline_schema, read_key, string, wrong_type},
    fields::{word, word_fields},
    section::section,
};
use crate::{
    base::{HttpUrl, OtlpSignal},
    config::{findings::Findings, otlp::Compression, secret::Secret, words::Words as _},
};

/// Most headers.
const MAX_HEADERS: usize = 16;

/// Longest name of a header in bytes.
const MAX_HEADER_BYTES: usize = 128;

/// Headers that are none of the operator's.
const OWN: [&str; 9] = [
    "accept",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "te",
    "transfer-encoding",
    "user-agent",
];

section! {
    /// An OpenTelemetry collector, or another program that takes OTLP, which gets the metrics and the connection log: by HTTP, in protobuf.
    Otlp {
        /// Where it listens, such as "http://127.0.0.1:4318". Metrics go to /v1/metrics below it, the connection log to /v1/logs: for Prometheus write "http://HOST:9090/api/v1/otlp".
        endpoint (required): OtlpEndpoint,
        /// Headers of each request, NAME = place of the whole value: "file:/etc/convey/otlp.key" is in that file, "${OTLP_KEY}" in the environment of the service. For authorization the value is such as "Bearer abc". Read again once a minute, and after a failure. Default: none.
        headers: OtlpHeaders,
        /// Whom to believe that it is the collector, where the endpoint begins with https://. Files are read again once a minute, and after a failure.
        tls: SourceTls,
        /// "gzip" (default), or "none" for a program that does not take that.
        compression: Compression,
        /// How long one request may take. Requests that fail for a while only are repeated. Default: "10s".
        timeout: Time<false, HOUR>,
        /// Export the metrics, those of GET /metrics by the same names. Default: true.
        metrics: bool,
        /// How often metrics are exported, at least "1s". Default: "60s".
        interval: Time<false, HOUR>,
        /// Export the connection log: a log record for each connection that a frontend's access_log and connection_log.sample want, with its fields as attributes. Default: true.
        connections: bool,
        /// What this load balancer is called, the attribute service.instance.id; Prometheus makes the label instance of it. Two on one host need two names. Default: the name of the host.
        instance: SourceWord,
    }
}

word_fields!(Compression);

/// `endpoint`; `None` if it is none, which has been said.
#[derive(Debug, Clone)]
pub struct OtlpEndpoint(pub Option<HttpUrl>);

impl Field for OtlpEndpoint {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        const EXAMPLE: &str = "write a URL such as \"http://127.0.0.1:4318\"";
        let Some(text) = string(value, "a URL in quotes", findings) else {
            return Some(Self(None));
        };
        let url = match text.parse::<HttpUrl>() {
            Ok(url) => endpoint(url, value, findings),
            // what stands before the @ may be a secret
            Err(error) if text.contains('@') => {
                let message = format!("`{}` is not a URL that can be asked: {error}", findings.key());
                let help = "write the URL without it, and a header: headers = { authorization = \"file:/etc/convey/otlp.key\" }";
                bad_value(value, message, help, findings)
            }
            Err(error) => {
                let help = match text.contains("://") {
                    false if !text.is_empty() => format!("write \"http://{text}\""),
                    _ => EXAMPLE.to_owned(),
                };
                let message = format!("\"{text}\" is not the URL of a collector: {error}");
                bad_value(value, message, help, findings)
            }
        };
        Some(Self(url))
    }
}
inline_schema!([] OtlpEndpoint, _g => json_schema!({ "type": "string", "minLength": 8 }));

fn endpoint(url: HttpUrl, value: &Node<'_>, findings: &mut Findings) -> Option<HttpUrl> {
    if url.target.contains('?') {
        return bad_value(
            value,
            format!(
                "`{}` has a query, and what is exported has paths of its own",
                findings.key()
            ),
            "write it without; what is a secret in it may be a header: headers = { NAME = \"file:/etc/convey/otlp.key\" }",
            findings,
        );
    }
    let path = url.target.trim_end_matches('/');
    let added = OtlpSignal::ALL.map(|signal| format!("/v1/{}", signal.label()));
    let Some(base) = added.iter().find_map(|added| path.strip_suffix(added.as_str())) else {
        return Some(url);
    };
    bad_value(
        value,
        format!("`{}` ends with what is added to it", findings.key()),
        format!(
            "write \"{}\"",
            url.with_target(base).to_string().trim_end_matches('/')
        ),
        findings,
    )
}

/// `headers`, each with the place of its name.
#[derive(Debug, Clone)]
pub struct OtlpHeaders(pub BTreeMap<Box<str>, (Secret, Range<usize>)>);

impl Field for OtlpHeaders {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            let help = "write headers = { authorization = \"file:/etc/convey/otlp.key\" }".to_owned();
            return wrong_type(value, "a table of secrets by name", Some(help), findings);
        };
        if table.iter().count() > MAX_HEADERS {
            let message = format!("`{}` has more than {MAX_HEADERS} headers", findings.key());
            return bad_value(
                value,
                message,
                "write those that the collector asks for",
                findings,
            );
        }
        let mut headers = BTreeMap::new();
        for (name, value) in table {
            let read: Option<Located<SourceSecret>> = read_key(name, value, findings);
            let known = header_name(name, &headers, findings);
            if let (
                Some(name),
                Some(Located {
                    value: SourceSecret(Some(secret)),
                    key,
                    ..
                }),
            ) = (known, read)
            {
                headers.insert(name, (secret, key));
            }
        }
        Some(Self(headers))
    }
}
inline_schema!([] OtlpHeaders, generator => {
    let of = generator.subschema_for::<SourceSecret>();
    json_schema!({ "type": "object", "additionalProperties": of, "propertyNames": { "minLength": 1, "maxLength": MAX_HEADER_BYTES } })
});

/// The name of a header in lower case (RFC 9110, section 5.6.2: a token).
fn header_name(
    name: &Key<'_>,
    before: &BTreeMap<Box<str>, (Secret, Range<usize>)>,
    findings: &mut Findings,
) -> Option<Box<str>> {
    let text = name.get_ref();
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let lower = text.to_ascii_lowercase();
    let (message, help) = if text.is_empty() || text.len() > MAX_HEADER_BYTES || !text.bytes().all(is_token) {
        (
            format!("\"{}\" is not the name of a header", text.escape_debug()),
            "write one such as authorization or \"x-api-key\"",
        )
    } else if OWN.contains(&lower.as_str()) {
        (format!("Convey itself says what `{lower}` is"), "remove it")
    } else if before.contains_key(lower.as_str()) {
        (
            format!("the header `{lower}` is there twice: their letters may be large or small"),
            "keep one of them",
        )
    } else {
        return Some(lower.into());
    };
    findings.within(text, |findings| {
        findings.error(name.span(), message, help.to_owned());
    });
    None
}
