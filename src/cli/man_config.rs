//! convey.toml(5): the reference of the configuration, made from its schema, so that no key is missing or outdated.

use std::fmt::Write;

use serde_json::Value;

/// Name of the page's file.
pub const FILE_NAME: &str = "convey.toml.5";

/// What the page says before the sections.
const BEGINNING: &str = include_str!("man_config_begin.roff");

/// The table of time-outs and limits, for tbl(1).
const TIMEOUTS: &str = include_str!("man_timeouts.roff");

/// What it says after them.
const ENDING: &str = include_str!("man_config_end.roff");

/// Sections in the order in which they are explained; any other comes after.
const ORDER: [&str; 10] = [
    "global",
    "admin",
    "stats",
    "defaults",
    "packet",
    "passthrough",
    "network_lists",
    "hooks",
    "frontends",
    "backends",
];

/// The page, in roff; `schema` is what [`crate::config::schema`] gives.
pub fn page(schema: &Value) -> String {
    let version = env!("CARGO_PKG_VERSION");
    // the first line has man(1) run tbl
    let mut page =
        format!("'\\\" t\n.TH convey.toml 5 \"\" \"convey {version}\" \"File Formats\"\n{BEGINNING}");
    let properties = schema["properties"].as_object();
    let mut names: Vec<&String> = properties.into_iter().flat_map(|all| all.keys()).collect();
    names.sort_by_key(|name| {
        ORDER
            .iter()
            .position(|known| known == name)
            .unwrap_or(ORDER.len())
    });
    for name in names {
        section(&mut page, schema, name, &schema["properties"][name.as_str()]);
    }
    page.push_str(TIMEOUTS);
    page.push_str(ENDING);
    page
}

/// One section with its keys, then those inside it.
fn section(page: &mut String, root: &Value, path: &str, property: &Value) {
    let target = resolve(root, property);
    let (each, item) = (&target["additionalProperties"], resolve(root, &target["items"]));
    let (path, object) = match each.is_object() {
        true => (format!("{path}.NAME"), resolve(root, each)),
        false if is_object(item) => (path.to_owned(), item),
        false => (path.to_owned(), target),
    };
    let heading = match is_object(item) {
        true => format!("[[{path}]]"),
        false => format!("[{path}]"),
    };
    let _ = writeln!(page, ".SH \"{}\"\n{}", escape(&heading), description(property));
    if is_object(item) {
        let _ = writeln!(page, ".PP\n{}", description(item));
    }
    let keys = object["properties"].as_object();
    if let Some(place) = explained_elsewhere(&path) {
        let names: Vec<_> = keys.into_iter().flatten().map(|(name, _)| bold(name)).collect();
        let _ = writeln!(page, "These keys are explained {place}:\n{}.", names.join(", "));
        return;
    }
    let (inside, plain): (Vec<_>, Vec<_>) = keys
        .into_iter()
        .flatten()
        .partition(|(_, value)| is_section(root, resolve(root, value)));
    for (name, value) in plain {
        let kind = escape(&kind(value));
        let _ = writeln!(page, ".TP\n{} = {kind}\n{}", bold(name), description(value));
    }
    for (name, value) in inside {
        section(page, root, &format!("{path}.{name}"), value);
    }
}

/// Where the keys of a section are explained that has none of its own.
fn explained_elsewhere(section: &str) -> Option<&'static str> {
    match section {
        "defaults" => Some("below"),
        "passthrough" => Some("above"),
        _ => None,
    }
}

/// Whether it is a section, several by name, or a list of them.
fn is_section(root: &Value, schema: &Value) -> bool {
    let each = &schema["additionalProperties"];
    is_object(schema)
        // texts by name are a value
        || (each.is_object() && each["type"] != "string")
        || is_object(resolve(root, &schema["items"]))
}

fn is_object(schema: &Value) -> bool {
    schema["properties"].is_object()
}

/// What a `$ref` points to.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let target = schema["$ref"]
        .as_str()
        .and_then(|at| root.pointer(at.trim_start_matches('#')));
    target.unwrap_or(schema)
}

/// What may be written as a value.
fn kind(schema: &Value) -> String {
    if let Some(options) = schema["anyOf"].as_array() {
        return options.iter().map(kind).collect::<Vec<_>>().join(" | ");
    }
    if let Some(values) = schema["enum"].as_array() {
        return values
            .iter()
            .map(Value::to_string)
            .collect::<Vec<_>>()
            .join(" | ");
    }
    if !schema["const"].is_null() {
        return schema["const"].to_string();
    }
    let pattern = schema["pattern"].as_str().unwrap_or_default();
    match schema["type"].as_str().unwrap_or_default() {
        "boolean" => "true | false".to_owned(),
        "array" => format!("[{}, ...]", kind(&schema["items"])),
        "object" => format!("{{ NAME = {}, ... }}", kind(&schema["additionalProperties"])),
        "integer" => match (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
            (Some(min), Some(max)) => format!("{min}..{max}"),
            _ => "number".to_owned(),
        },
        _ if pattern.contains("ms)") => "\"TIME\"".to_owned(),
        _ if schema["format"] == "ip" => "\"ADDRESS\"".to_owned(),
        _ if pattern.starts_with("^unix:") && pattern.contains(")?") => {
            "\"ADDRESS:PORT[-PORT]\" | \"unix:/PATH\"".to_owned()
        }
        _ if pattern.starts_with("^unix:") => "\"ADDRESS:PORT\" | \"unix:/PATH\"".to_owned(),
        _ if pattern.starts_with("^0?") => "\"MODE\"".to_owned(),
        _ if pattern.contains("}-[") => "\"FIRST-LAST\"".to_owned(),
        _ if pattern.contains("{1,5}") => "\"PORT\"".to_owned(),
        _ => "\"TEXT\"".to_owned(),
    }
}

/// The schema's own words.
fn description(schema: &Value) -> String {
    escape(schema["description"].as_str().unwrap_or_default())
}

fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", escape(text))
}

/// Text as roff prints it unchanged; none of ours begins with a dot or an apostrophe.
pub(super) fn escape(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn every_key_of_the_schema_is_explained() {
        let schema = config::schema();
        let page = page(&schema);
        let definitions = schema["$defs"].as_object().expect("definitions");
        for (section, definition) in definitions {
            for name in definition["properties"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, _)| name)
            {
                let shown = page.contains(&bold(name)) || page.contains(&format!(".{name}]"));
                assert!(shown || name == "servers", "{section}: {name}");
            }
        }
        assert!(page.contains(".SH \"[backends.NAME.servers.NAME]\""), "{page}");
        assert!(page.contains(".SH \"[[frontends.NAME.routes]]\""), "{page}");
    }

    #[test]
    fn the_table_of_time_outs_says_the_defaults_that_are_in_effect() {
        let source = config::Source {
            name: "defaults.toml".to_owned(),
            bytes: "[frontends.f]\nlisten_addr = \"192.0.2.1:80\"\nbackend = \"b\"\n[backends.b]\n\
                    servers.s = { addr = \"192.0.2.2:80\" }\n"
                .into(),
        };
        let loaded = config::load(&source, config::Options::default()).expect("a good file");
        let print = config::print(&loaded.config);
        let value = |key: &str| {
            let line = print
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{key} = ")));
            line.unwrap_or_else(|| panic!("{key} in {print}")).to_owned()
        };
        for key in [
            "client_hello_timeout",
            "connect_timeout",
            "retries",
            "queue_timeout",
            "max_queue",
            "idle_timeout",
            "access_log_per_second",
            "shutdown_timeout",
        ] {
            let said = format!("{key} {}", value(key));
            assert!(TIMEOUTS.contains(&said), "{said}");
        }
        let probes = format!(
            "{}, then {} times {}",
            value("idle"),
            value("count"),
            value("interval")
        );
        assert!(TIMEOUTS.contains(&probes), "{probes}");
        for key in ["tcp_user_timeout", "fin_timeout", "max_lifetime"] {
            assert!(
                value(key) == "\"0s\"" && TIMEOUTS.contains(&format!("{key} 0 ")),
                "{key}"
            );
        }
    }

    #[test]
    fn every_example_is_a_valid_file() {
        let examples: Vec<_> = ENDING.split(".nf\n").skip(1).collect();
        assert!(examples.len() >= 3, "{ENDING}");
        for example in examples {
            let (text, _) = example.split_once("\n.fi").expect("its end");
            let source = config::Source {
                name: "example.toml".to_owned(),
                bytes: text.into(),
            };
            let loaded = config::load(&source, config::Options::default());
            assert!(loaded.is_ok_and(|loaded| loaded.warnings.is_empty()), "{text}");
        }
    }

    #[test]
    fn values_are_named_by_what_may_be_written() {
        let page = page(&config::schema());
        for line in [
            "\\fBweight\\fR = 0..65535",
            "\\fBmode\\fR = \"proxy\" | \"passthrough\" | \"dsr\"",
            "\\fBconnect_timeout\\fR = \"TIME\" | 1..3600",
            "\\fBlisten_addr\\fR = \"ADDRESS:PORT[\\-PORT]\" | \"unix:/PATH\" | [\"ADDRESS:PORT[\\-PORT]\" | \"unix:/PATH\", ...]",
            "\\fBaddr\\fR = \"ADDRESS:PORT\" | \"unix:/PATH\"",
            "\\fBsocket_mode\\fR = \"MODE\"",
            "\\fBwatch_config\\fR = true | false",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
    }
}
