//! The JSON Schema: it accepts what loads and refuses what does not.
//!
//! The validator below knows the keywords that the schema uses and fails on any other. A full one would bring some
//! fifty crates for this one use.

use std::collections::BTreeSet;

use convey::config;
use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use super::top;

/// One test for each example, and what must be refused.
pub fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = ["configs", "tests/config/good"]
        .into_iter()
        .flat_map(|dir| super::files(dir).unwrap_or_default())
        .map(|path| {
            let name = format!(
                "accepts_{}",
                path.file_stem().unwrap_or_default().to_string_lossy()
            );
            Trial::test(name, move || {
                let text = std::fs::read_to_string(&path)?;
                accepts(text.strip_prefix('\u{feff}').unwrap_or(&text))
            })
        })
        .collect();
    trials.push(Trial::test("refuses_what_does_not_load", refuses));
    trials.push(Trial::test("refuses_too_many_items_and_one_twice", refuses_items));
    trials.push(Trial::test("describes_every_key", describes));
    trials.push(Trial::test("accepts_the_printed_full_example", || {
        let loaded = super::load(&super::source(&top().join("configs/full.toml"))?)?;
        accepts(&config::print(&loaded.config))
    }));
    trials
        .into_iter()
        .map(|trial| trial.with_kind("schema"))
        .collect()
}

fn accepts(toml: &str) -> Result<(), Failed> {
    let schema = config::schema();
    let faults = validate(&schema, &schema, &to_json(toml)?, "");
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults.join("\n").into())
    }
}

fn refuses() -> Result<(), Failed> {
    let schema = config::schema();
    for (toml, path) in [
        ("frobnicate = 1", "/frobnicate"),
        ("[global]\nlog_levl = \"info\"", "/global/log_levl"),
        ("[global]\nlog_level = \"loud\"", "/global/log_level"),
        ("[stats]\nlisten_addr = \"::1\"", "/stats/port"),
        ("[frontends.a]\nbackend = \"b\"", "/frontends/a/listen_addr"),
        ("[frontends.a]\nlisten_addr = \"0.0.0.0:80\"", "/frontends/a"),
        (
            "[frontends.a]\nlisten_addr = \"0.0.0.0:80\"\n[[frontends.a.routes]]\nsni = \"a.example.com\"",
            "/frontends/a/routes/0",
        ),
        (
            "[frontends.a]\nlisten_addr = \"0.0.0.0:80\"\nroutes = []",
            "/frontends/a/routes",
        ),
        (
            "[backends.a]\nsend_proxy_tlvs = [\"netns\"]",
            "/backends/a/send_proxy_tlvs/0",
        ),
        (
            "[backends.a.servers.s]\naddr = \"10.0.0.1:80\"\nweight = 65536",
            "/backends/a/servers/s/weight",
        ),
        (
            "[backends.a.servers.s]\naddr = \"10.0.0.1\"",
            "/backends/a/servers/s/addr",
        ),
        (
            "[backends.a.health_check]\ninterval = \"3 s\"",
            "/backends/a/health_check/interval",
        ),
        ("[packet]\nnat_ports = \"61000\"", "/packet/nat_ports"),
        ("[packet]\nnat_address = [\"x\"]", "/packet/nat_address"),
        (
            "[packet]\nmax_ports_per_client = \"1:8\"",
            "/packet/max_ports_per_client",
        ),
        ("[packet]\nmax_flows = 1", "/packet/max_flows"),
        ("[packet]\nengine = \"ebpf\"", "/packet/engine"),
        ("[passthrough]\nengine = \"ebpf\"", "/passthrough/engine"),
        ("[passthrough]\n[packet]\n", ""),
        (
            "[frontends.a]\nlisten_addr = \"10.0.0.1:80\"\nbackend = \"b\"\ninterface = \"a-name-of-17-byte\"",
            "/frontends/a/interface",
        ),
        (
            "[defaults]\nlisten_addr = \"0.0.0.0:80\"",
            "/defaults/listen_addr",
        ),
    ] {
        let faults = validate(&schema, &schema, &to_json(toml)?, "");
        if faults.len() != 1 || !faults.iter().any(|fault| fault.starts_with(&format!("{path}: "))) {
            return Err(format!("{toml}\n{faults:?}").into());
        }
    }
    Ok(())
}

/// By `nat_address`: the first of each is the most that loads.
fn refuses_items() -> Result<(), Failed> {
    let schema = config::schema();
    let judged = |addresses: &[String]| -> Result<bool, Failed> {
        let toml = format!("[packet]\nnat_address = {addresses:?}");
        Ok(validate(&schema, &schema, &to_json(&toml)?, "").is_empty())
    };
    let some = |many: u8| -> Vec<String> { (1..=many).map(|host| format!("10.0.0.{host}")).collect() };
    let twice = [some(2), some(1)].concat();
    let found = [
        judged(&some(16))?,
        judged(&some(17))?,
        judged(&some(2))?,
        judged(&twice)?,
    ];
    if found == [true, false, true, false] {
        Ok(())
    } else {
        Err(format!("16, 17, 2, one twice: {found:?}").into())
    }
}

fn describes() -> Result<(), Failed> {
    let schema = config::schema();
    let mut bare = Vec::new();
    visit(&schema, &mut |name, property| {
        let described = property["description"]
            .as_str()
            .is_some_and(|text| text.ends_with('.') && text.len() > 10);
        if !described {
            bare.push(name.to_owned());
        }
    });
    let draft = "https://json-schema.org/draft/2020-12/schema";
    if bare.is_empty() && schema["$schema"] == draft {
        Ok(())
    } else {
        Err(format!("{bare:?} {}", schema["$schema"]).into())
    }
}

/// Every key of every section.
pub fn every_key() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    visit(&config::schema(), &mut |name, _| {
        keys.insert(name.to_owned());
    });
    keys
}

/// Every key that a document has, at any depth.
pub fn keys_in(value: &toml::Value) -> BTreeSet<String> {
    match value {
        toml::Value::Table(table) => (table.iter())
            .flat_map(|(key, value)| std::iter::once(key.clone()).chain(keys_in(value)))
            .collect(),
        toml::Value::Array(items) => items.iter().flat_map(keys_in).collect(),
        _ => BTreeSet::new(),
    }
}

fn visit(schema: &Value, each: &mut impl FnMut(&str, &Value)) {
    let definitions = schema["$defs"]
        .as_object()
        .into_iter()
        .flat_map(|all| all.values());
    for section in definitions.chain([schema]) {
        for (name, property) in section["properties"].as_object().into_iter().flatten() {
            each(name, property);
        }
    }
}

fn to_json(toml: &str) -> Result<Value, Failed> {
    let table: toml::Table = toml.parse()?;
    Ok(serde_json::to_value(table)?)
}

/// Faults of a value, each `path: what`.
fn validate(root: &Value, schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let Some(keywords) = schema.as_object() else {
        return vec![format!("{path}: a schema that is no object")];
    };
    let mut fault = |what: String| faults.push(format!("{path}: {what}"));
    let mut inner = Vec::new();
    for (keyword, wanted) in keywords {
        match keyword.as_str() {
            "$ref" => {
                let target = wanted
                    .as_str()
                    .and_then(|at| root.pointer(at.trim_start_matches('#')));
                inner.extend(target.map_or_else(
                    || vec![format!("{path}: {wanted} leads nowhere")],
                    |s| validate(root, s, value, path),
                ));
            }
            "type" => {
                let right = match wanted.as_str() {
                    Some("object") => value.is_object(),
                    Some("array") => value.is_array(),
                    Some("string") => value.is_string(),
                    Some("integer") => value.is_i64() || value.is_u64(),
                    Some("boolean") => value.is_boolean(),
                    _ => false,
                };
                if !right {
                    fault(format!("not of type {wanted}"));
                }
            }
            "properties" => {
                for (name, schema) in wanted.as_object().into_iter().flatten() {
                    if let Some(value) = value.get(name) {
                        inner.extend(validate(root, schema, value, &format!("{path}/{name}")));
                    }
                }
            }
            "additionalProperties" => {
                let known = |name: &String| {
                    keywords
                        .get("properties")
                        .is_some_and(|all| all.get(name).is_some())
                };
                for (name, value) in value
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter(|(name, _)| !known(name))
                {
                    let path = format!("{path}/{name}");
                    match wanted {
                        Value::Bool(false) => inner.push(format!("{path}: unknown key")),
                        schema => inner.extend(validate(root, schema, value, &path)),
                    }
                }
            }
            "propertyNames" => {
                for name in value.as_object().into_iter().flatten().map(|(name, _)| name) {
                    inner.extend(validate(
                        root,
                        wanted,
                        &Value::from(name.as_str()),
                        &format!("{path}/{name}"),
                    ));
                }
            }
            "required" => {
                for name in wanted.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    if value.is_object() && value.get(name).is_none() {
                        inner.push(format!("{path}/{name}: missing"));
                    }
                }
            }
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    inner.extend(validate(root, wanted, value, &format!("{path}/{index}")));
                }
            }
            "anyOf" => {
                let fits = wanted
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|schema| validate(root, schema, value, path).is_empty());
                if !fits {
                    fault("fits none of the alternatives".to_owned());
                }
            }
            "not" if validate(root, wanted, value, path).is_empty() => {
                fault("is what it must not be".to_owned());
            }
            "enum" if !wanted.as_array().is_some_and(|all| all.contains(value)) => {
                fault(format!("not one of {wanted}"));
            }
            "const" if value != wanted => fault(format!("not {wanted}")),
            "minimum" if value.as_i64().zip(wanted.as_i64()).is_some_and(|(v, w)| v < w) => {
                fault(format!("below {wanted}"));
            }
            "maximum" if value.as_u64().zip(wanted.as_u64()).is_some_and(|(v, w)| v > w) => {
                fault(format!("above {wanted}"));
            }
            "minItems" if value.as_array().is_some_and(Vec::is_empty) => fault("empty".to_owned()),
            "maxItems"
                if value
                    .as_array()
                    .zip(wanted.as_u64())
                    .is_some_and(|(v, w)| v.len() as u64 > w) =>
            {
                fault(format!("more than {wanted}"));
            }
            "uniqueItems" if *wanted == true && value.as_array().is_some_and(|all| has_twice(all)) => {
                fault("an item twice".to_owned());
            }
            "minLength"
                if value
                    .as_str()
                    .zip(wanted.as_u64())
                    .is_some_and(|(v, w)| (v.chars().count() as u64) < w) =>
            {
                fault("too short".to_owned());
            }
            "maxLength"
                if value
                    .as_str()
                    .zip(wanted.as_u64())
                    .is_some_and(|(v, w)| v.chars().count() as u64 > w) =>
            {
                fault("too long".to_owned());
            }
            "pattern" => match wanted.as_str().map(|pattern| (pattern, regex(pattern))) {
                Some((_, Some(regex))) => {
                    if value.as_str().is_some_and(|text| !regex(text)) {
                        fault(format!("does not match {wanted}"));
                    }
                }
                other => fault(format!(
                    "a pattern that this validator does not know: {:?}",
                    other.map(|(pattern, _)| pattern)
                )),
            },
            "format" if wanted == "ip" => {
                if value
                    .as_str()
                    .is_some_and(|text| text.parse::<std::net::IpAddr>().is_err())
                {
                    fault("not an IP address".to_owned());
                }
            }
            // Notes, and limits that hold.
            "$schema" | "$defs" | "title" | "description" | "not" | "enum" | "const" | "minimum"
            | "maximum" | "minItems" | "maxItems" | "uniqueItems" | "minLength" | "maxLength" => {}
            other => fault(format!("a keyword that this validator does not know: {other}")),
        }
    }
    faults.extend(inner);
    faults
}

fn has_twice(items: &[Value]) -> bool {
    (items.iter().enumerate()).any(|(index, item)| items[..index].contains(item))
}

/// The patterns that the schema uses, each as a predicate.
fn regex(pattern: &str) -> Option<fn(&str) -> bool> {
    fn digits(text: &str) -> bool {
        (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
    }
    match pattern {
        "^[0-9]{1,5}$" => Some(digits),
        "^0?[2367][0-7]{2}$" => Some(|text| {
            let digits = text.strip_prefix('0').unwrap_or(text).as_bytes();
            digits.len() == 3
                && b"2367".contains(&digits[0])
                && digits[1..].iter().all(|digit| (b'0'..=b'7').contains(digit))
        }),
        "^[0-9]{1,3}%$" => Some(|text| {
            text.strip_suffix('%')
                .is_some_and(|share| digits(share) && share.len() <= 3)
        }),
        "^unix:/.|:[0-9]{1,5}$" => Some(|text| {
            let is_path = text.strip_prefix("unix:/").is_some_and(|rest| !rest.is_empty());
            is_path || text.rsplit_once(':').is_some_and(|(_, port)| digits(port))
        }),
        "^unix:/.|:[0-9]{1,5}(-[0-9]{1,5})?$" => Some(|text| {
            if text.strip_prefix("unix:/").is_some_and(|rest| !rest.is_empty()) {
                return true;
            }
            let ports = text.rsplit_once(':').map_or("", |(_, ports)| ports);
            (ports.split_once('-')).map_or(digits(ports), |(first, last)| digits(first) && digits(last))
        }),
        "^[0-9]+-[0-9,-]+$" => Some(|text| {
            text.split(',').all(|range| {
                (range.split_once('-')).is_some_and(|(first, last)| digits(first) && digits(last))
            })
        }),
        "^[1-9][0-9]*/[1-9][0-9]*$" => Some(|text| {
            let plain = |text: &str| !text.starts_with('0') && text.parse::<u64>().is_ok();
            (text.split_once('/')).is_some_and(|(part, whole)| plain(part) && plain(whole))
        }),
        "^(/.*[^/])?$" => {
            Some(|text| text.is_empty() || (text.len() > 1 && text.starts_with('/') && !text.ends_with('/')))
        }
        "^/.*[^/]$" => Some(|text| text.len() > 1 && text.starts_with('/') && !text.ends_with('/')),
        "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$" => Some(|text| {
            ["d", "h", "m", "s", "ms"]
                .iter()
                .fold(text, |rest, unit| without(rest, unit))
                .is_empty()
        }),
        _ => None,
    }
}

/// A duration without its first number, if that has this unit.
fn without<'a>(text: &'a str, unit: &str) -> &'a str {
    let tail = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = tail.trim_start_matches(|c: char| c.is_ascii_lowercase());
    if tail.len() < text.len() && tail.strip_suffix(rest) == Some(unit) {
        rest
    } else {
        text
    }
}
