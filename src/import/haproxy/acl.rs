//! Conditions: what they ask about a connection, as far as Convey can ask the same.

use std::collections::BTreeMap;

use super::{file::Line, pattern};
use crate::import::{Files, address};

/// What one test asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// The name in the ClientHello is one of these patterns, as Convey writes them.
    Sni(Vec<String>),
    /// One of these protocols is offered.
    Alpn(Vec<String>),
    /// The client is in one of these networks.
    Source(Vec<String>),
    /// Clients are listed in a file.
    SourceFile(String),
    /// The address or port that the client has connected to is one of these, as `destination` of a route has them.
    Destination(Vec<String>),
    /// The connection begins with a ClientHello.
    IsTls,
    /// So few servers of a backend are up: none.
    NoServer(String),
    /// Always so; such as that the time for looking into the connection is over.
    Always,
    /// Never so.
    Never,
    /// Convey cannot ask this: why.
    Unknown(String),
}

impl Test {
    /// How many values it has.
    fn values(&self) -> usize {
        match self {
            Self::Sni(values) | Self::Alpn(values) | Self::Source(values) | Self::Destination(values) => {
                values.len()
            }
            _ => 1,
        }
    }
}

/// The pattern of every name.
pub const ANY_NAME: &str = "~.";

/// What is said of values that come from a file.
pub const READ_NOW: &str = "the lines of its file are taken over as they are now: what changes in the file later does not count here";

/// Whether the words of tests name a file whose lines become part of the configuration. Convey reads a list of clients itself.
pub fn is_read_now(words: &[String]) -> bool {
    let mut tests = words.split(|word| word == "{" || word == "}");
    tests.any(|test| {
        let names_file = test.iter().any(|word| word == "-f" || word == "-M");
        names_file && !matches!(test, [sample, flags @ .., _] if sample == "src" && flags == ["-f"])
    })
}

/// Most values of one condition.
const MAX_VALUES: usize = 4_096;

/// A test, or its opposite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Literal {
    /// `!`.
    pub is_negated: bool,
    /// The test; several are alternatives.
    pub any: Vec<Test>,
}

/// One of the alternatives of a condition: all of it must be so.
pub type Term = Vec<Literal>;

/// The named tests of a proxy. Lines with one name are alternatives.
pub type Acls = BTreeMap<String, Vec<Test>>;

/// How many values the tests of a term have.
pub fn values(term: &Term) -> usize {
    term.iter()
        .flat_map(|literal| &literal.any)
        .map(Test::values)
        .sum()
}

/// The named tests of some lines.
pub fn acls(lines: &[Line], files: &mut dyn Files) -> Acls {
    let mut acls = Acls::new();
    for line in lines.iter().filter(|line| line.name() == "acl") {
        let test = test(line.from(2), files);
        acls.entry(line.word(1).to_owned()).or_default().push(test);
    }
    acls
}

/// The alternatives of the condition behind `if` or `unless`; without either it always holds.
///
/// # Errors
/// Why it cannot be translated.
pub fn condition(words: &[String], acls: &Acls, files: &mut dyn Files) -> Result<Vec<Term>, String> {
    let always = || vec![Vec::new()];
    let Some((first, rest)) = words.split_first() else {
        return Ok(always());
    };
    let terms = terms(rest, acls, files)?;
    match first.as_str() {
        "if" => Ok(terms),
        // not (a and b) is not a or not b; alternatives would multiply
        "unless" => match <[Term; 1]>::try_from(terms) {
            Ok([term]) => Ok(term.into_iter().map(|literal| vec![opposite(literal)]).collect()),
            Err(terms) if terms.iter().all(|term| term.len() == 1) => {
                Ok(vec![terms.into_iter().flatten().map(opposite).collect()])
            }
            Err(_) => Err("its condition is the opposite of alternatives of several tests each".to_owned()),
        },
        other => Err(format!("`{other}` is neither `if` nor `unless`")),
    }
}

fn opposite(literal: Literal) -> Literal {
    Literal {
        is_negated: !literal.is_negated,
        ..literal
    }
}

fn terms(words: &[String], acls: &Acls, files: &mut dyn Files) -> Result<Vec<Term>, String> {
    let mut terms = vec![Vec::new()];
    let mut words = words.iter();
    let mut is_negated = false;
    let mut values = 0;
    while let Some(word) = words.next() {
        let word = match word.as_str() {
            "or" | "||" | "OR" => {
                terms.push(Vec::new());
                continue;
            }
            "and" | "&&" | "AND" => continue,
            "!" => {
                is_negated = !is_negated;
                continue;
            }
            word => word,
        };
        let (word, exclaimed) = match word.strip_prefix('!') {
            Some(word) => (word, true),
            None => (word, false),
        };
        let any = if word == "{" {
            let inner: Vec<String> = words.by_ref().take_while(|word| *word != "}").cloned().collect();
            vec![test(&inner, files)]
        } else {
            match (acls.get(word), word) {
                (Some(tests), _) => tests.clone(),
                (None, "TRUE" | "WAIT_END" | "REQ_CONTENT") => vec![Test::Always],
                (None, "FALSE") => vec![Test::Never],
                (None, "LOCALHOST") => vec![Test::Source(vec!["127.0.0.0/8".to_owned(), "::1".to_owned()])],
                (None, "RDP_COOKIE") => {
                    vec![Test::Unknown(
                        "it asks for a cookie of RDP, which Convey does not read".to_owned(),
                    )]
                }
                (None, name) if name.starts_with("METH_") || name == "HTTP" || name.starts_with("HTTP_") => {
                    vec![Test::Unknown("it asks about HTTP".to_owned())]
                }
                (None, name) => return Err(format!("there is no acl `{name}`")),
            }
        };
        if let Some(term) = terms.last_mut() {
            values += any.iter().map(Test::values).sum::<usize>() + 1;
            if values > MAX_VALUES {
                return Err(format!("it has more than {MAX_VALUES} values"));
            }
            let is_negated = std::mem::take(&mut is_negated) != exclaimed;
            term.push(Literal { is_negated, any });
        }
    }
    Ok(terms)
}

/// What the words of a test ask: a sample, flags, values.
pub fn test(words: &[String], files: &mut dyn Files) -> Test {
    let Some((sample, rest)) = words.split_first() else {
        return Test::Unknown("it asks nothing".to_owned());
    };
    let (sample, method) = with_method(sample);
    let mut values = Vec::new();
    let mut from_files = Vec::new();
    let mut method = method.to_owned();
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            // names in a ClientHello have no case here
            "-i" | "-n" | "-u" => {}
            "-m" => method = rest.next().cloned().unwrap_or_default(),
            "-f" | "-M" => from_files.extend(rest.next().cloned()),
            "--" => {
                values.extend(rest.by_ref().cloned());
            }
            value => values.push(value.to_owned()),
        }
    }
    match sample {
        "always_true" | "wait_end" => return Test::Always,
        "always_false" => return Test::Never,
        "src" if values.is_empty() && from_files.len() == 1 => return Test::SourceFile(from_files.remove(0)),
        _ => {}
    }
    for pattern in from_files {
        match files.read(&pattern) {
            Ok(read) => values.extend(
                read.iter()
                    .flat_map(|file| lines_of(&file.text))
                    .map(str::to_owned),
            ),
            Err(why) => return Test::Unknown(format!("{pattern} was not read: {why}")),
        }
    }
    of_sample(sample, &method, values)
}

fn lines_of(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The sample and the method of matching that its name implies, in the old form: `ssl_fc_sni_end`.
fn with_method(sample: &str) -> (&str, &str) {
    let sample = sample.strip_suffix(",lower").unwrap_or(sample);
    for method in ["beg", "end", "dom", "sub", "reg", "str"] {
        let stem = sample
            .strip_suffix(method)
            .and_then(|stem| stem.strip_suffix('_'));
        if let Some(stem) = stem.filter(|stem| stem.ends_with("sni") || stem.ends_with("alpn")) {
            return (stem, method);
        }
    }
    (sample, "")
}

fn of_sample(sample: &str, method: &str, values: Vec<String>) -> Test {
    match sample {
        "req.ssl_sni" | "req_ssl_sni" | "ssl_fc_sni" if method == "found" => {
            Test::Sni(vec![ANY_NAME.to_owned()])
        }
        "req.ssl_sni" | "req_ssl_sni" | "ssl_fc_sni" => {
            let patterns: Result<Vec<_>, _> =
                values.iter().map(|value| pattern::host(method, value)).collect();
            patterns.map_or_else(Test::Unknown, Test::Sni)
        }
        "req.ssl_alpn" | "req_ssl_alpn" | "ssl_fc_alpn" if ["", "str"].contains(&method) => {
            Test::Alpn(values)
        }
        "req.ssl_hello_type" | "req_ssl_hello_type" | "req.ssl_ver" | "req_ssl_ver" => {
            match values.as_slice() {
                [value] if value == "1" && sample.ends_with("hello_type") => Test::IsTls,
                _ => Test::Unknown("it asks about the version or the kind of TLS message".to_owned()),
            }
        }
        "src" if ["", "ip"].contains(&method) => networks(&values).map_or_else(Test::Unknown, Test::Source),
        "dst" if ["", "ip"].contains(&method) => {
            networks(&values).map_or_else(Test::Unknown, Test::Destination)
        }
        "dst_port" | "fc_dst_port" => ports(&values),
        _ if sample.starts_with("nbsrv(") => no_server(sample, &values),
        _ => Test::Unknown(reason(sample)),
    }
}

fn networks(values: &[String]) -> Result<Vec<String>, String> {
    let network = |value: &String| {
        address::network(value).ok_or_else(|| {
            format!("`{value}` is not an address or network: Convey asks no name servers here")
        })
    };
    values.iter().map(network).collect()
}

fn ports(values: &[String]) -> Test {
    let values = match values {
        [operator, rest @ ..] if operator == "eq" => rest,
        values => values,
    };
    let mut all = Vec::new();
    for value in values {
        let (first, last) = value.split_once(':').unwrap_or((value, value));
        let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else {
            return Test::Unknown(format!("`{value}` is not a port or a range of ports"));
        };
        all.push(if first == last {
            format!(":{first}")
        } else {
            format!(":{first}-{last}")
        });
    }
    Test::Destination(all)
}

/// `nbsrv(app) lt 1`, `nbsrv(app) eq 0` and the like.
fn no_server(sample: &str, values: &[String]) -> Test {
    let backend = sample.trim_start_matches("nbsrv(").trim_end_matches(')');
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    match values.as_slice() {
        ["lt", "1"] | ["eq" | "le", "0"] | ["0"] if !backend.is_empty() => Test::NoServer(backend.to_owned()),
        _ => Test::Unknown("it counts the servers that are up: Convey has `fallback`, for none".to_owned()),
    }
}

fn reason(sample: &str) -> String {
    let stem = sample.split(['(', ',']).next().unwrap_or(sample);
    let http = [
        "path", "url", "hdr", "req.hdr", "req.fhdr", "method", "cook", "req.cook", "base", "urlp", "query",
        "http_", "status", "res.", "capture.",
    ];
    if http.iter().any(|beginning| stem.starts_with(beginning)) {
        "it asks about an HTTP request, which Convey does not read".to_owned()
    } else if stem == "src_is_local" || stem == "src_port" {
        format!("Convey cannot ask for `{stem}`")
    } else if stem.starts_with("sc") || stem.starts_with("src_") {
        "it asks a stick table: see `limits.per_client` of a frontend".to_owned()
    } else if stem.starts_with("ssl_c_") {
        "it asks about the client's certificate: Convey asks who signed it only (client_ca)".to_owned()
    } else {
        format!("Convey cannot ask for `{stem}`")
    }
}
