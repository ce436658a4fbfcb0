//! What the files that name servers (`[discovery]`) would give. Nothing remote is asked.

use std::collections::BTreeSet;

use crate::{
    base::BackendName,
    config::{Config, Diagnostic, Discovery, DiscoverySource, Severity},
    discovery::{
        answer::{self, Limits},
        judge::{Judge, Judged},
    },
    privilege::DISCOVERY_FILE_BYTES,
    sys::{config_file, interfaces},
};

/// Warnings about what is wrong with them: traffic does not depend on it, and the file may be another host's.
pub fn warnings(config: &Config) -> Vec<Diagnostic> {
    let sources = sources(config);
    let found = sources.iter().flat_map(|(name, settings)| {
        let messages = match look(config, name, settings) {
            Err(why) => vec![why],
            Ok(None) => Vec::new(),
            Ok(Some(judged)) => {
                let hold = judged.verdict.err().map(|hold| hold.to_string());
                let left_out = (judged.left_out.count > 0).then(|| judged.left_out.to_string());
                hold.into_iter().chain(left_out).collect()
            }
        };
        let file = settings.source.file().map(|path| path.display().to_string());
        let of_file = file.unwrap_or_default();
        let of_file = messages
            .into_iter()
            .map(move |message| (of_file.clone(), message));
        of_file
            .chain(missing(&settings.source))
            .map(move |(place, message)| finding(name, place, &message))
    });
    found.collect()
}

/// What the source cannot be asked without, and is not here: where, and what is wrong.
fn missing(source: &DiscoverySource) -> Vec<(String, String)> {
    let unreadable = source.needed_files().filter_map(|path| {
        let error = config_file::read(path, DISCOVERY_FILE_BYTES).err()?;
        Some((
            path.display().to_string(),
            error.of_file_named_in("a discovery section"),
        ))
    });
    let is_unset = |name: &&str| std::env::var_os(name).is_none_or(|value| value.is_empty());
    let unset = source.token_variable().filter(is_unset).map(|name| {
        let message =
            "token: it is not set here; the service must have it (systemctl edit convey, Environment=)";
        (format!("${{{name}}}"), message.to_owned())
    });
    unreadable.chain(unset).collect()
}

/// How many servers each gives.
pub fn notes(config: &Config) -> Vec<String> {
    let sources = sources(config);
    let counted = sources.iter().filter_map(|(name, settings)| {
        let judged = look(config, name, settings).ok()??;
        let servers = judged.verdict.ok()?.len();
        let again = match judged.duplicates {
            0 => String::new(),
            count => format!("; {count} named again"),
        };
        Some(format!(
            "backend `{name}`: {} gives {servers} server(s){again}",
            settings.source
        ))
    });
    counted.collect()
}

fn sources(config: &Config) -> Vec<(&BackendName, &Discovery)> {
    let backends = config.backends.iter();
    backends
        .filter_map(|(name, backend)| Some((name, backend.discovery.as_ref()?)))
        .collect()
}

/// What a file gives now, or why nothing. Nothing is known of a source that would have to be asked.
fn look(config: &Config, name: &BackendName, settings: &Discovery) -> Result<Option<Judged>, String> {
    let DiscoverySource::File { path, format } = &settings.source else {
        return Ok(None);
    };
    let limits = Limits::of(settings);
    let bytes = config_file::read(path, limits.bytes)
        .map_err(|error| error.of_file_named_in("a discovery section"))?;
    let answer = answer::parse(format, &bytes, limits).map_err(|error| error.to_string())?;
    let host: BTreeSet<_> = interfaces::own_addresses();
    let judge = Judge {
        settings,
        rules: &config.server_rules(name.as_str()).unwrap_or_default(),
        host: &host,
        before: None,
    };
    Ok(Some(judge.judge(answer)))
}

fn finding(name: &BackendName, file: String, message: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        file,
        line: 0,
        column: 0,
        span: 0..0,
        path: format!("backends.{name}.discovery"),
        message: format!("discovery of backend {name}: {message}"),
        help: Some("the backend has only the servers of the configuration, and those that it discovered before, until that is right".to_owned()),
    }
}
