//! What exporting by OTLP needs, and is not here. No collector is asked.

use crate::{
    config::{Config, Diagnostic, HOSTS, Otlp, RESOLV_CONF, Secret, Severity},
    privilege::TLS_FILE_BYTES,
    sys::config_file,
};

/// Warnings about it: traffic does not depend on it, and the file may be another host's.
pub fn warnings(config: &Config) -> Vec<Diagnostic> {
    config.otlp.iter().flat_map(missing).collect()
}

fn missing(otlp: &Otlp) -> impl Iterator<Item = Diagnostic> {
    // a host may do without these
    let files =
        (otlp.files().into_iter()).filter(|path| ![RESOLV_CONF, HOSTS].map(AsRef::as_ref).contains(path));
    let unreadable = files.filter_map(|path| {
        let error = config_file::read(path, TLS_FILE_BYTES).err()?;
        Some((path.display().to_string(), error.of_file_named_in("[otlp]")))
    });
    let is_unset = |name: &str| std::env::var_os(name).is_none_or(|value| value.is_empty());
    let unset = otlp.headers.iter().filter_map(move |(header, place)| match place {
        Secret::Variable(name) if is_unset(name) => Some((
            place.to_string(),
            format!("headers.{header}: it is not set here; the service must have it (systemctl edit convey, Environment=)"),
        )),
        Secret::Variable(_) | Secret::File(_) => None,
    });
    unreadable.chain(unset).map(|(file, message)| Diagnostic {
        severity: Severity::Warning,
        file,
        line: 0,
        column: 0,
        span: 0..0,
        path: "otlp".to_owned(),
        message: format!("export by OTLP: {message}"),
        help: Some("nothing is exported until that is right".to_owned()),
    })
}

#[cfg(all(test, feature = "otlp"))]
mod tests {
    use super::*;
    use crate::config::{Options, Source, load};

    #[test]
    fn what_is_missing_is_named() {
        let text = "[otlp]\nendpoint = \"https://192.0.2.9\"\ntls.ca = \"/nonexistent/ca.pem\"\n\
                    headers = { authorization = \"file:/nonexistent/key\", x-org = \"${CONVEY_NO_SUCH_VARIABLE}\" }\n";
        let source = Source {
            name: "c.toml".to_owned(),
            bytes: text.as_bytes().to_vec(),
        };
        let config = load(&source, Options::default())
            .expect("a valid configuration")
            .config;
        let found = warnings(&config);
        let files: Vec<&str> = found.iter().map(|found| found.file.as_str()).collect();
        assert_eq!(
            files,
            [
                "/nonexistent/ca.pem",
                "/nonexistent/key",
                "${CONVEY_NO_SUCH_VARIABLE}"
            ]
        );
        let said = &found[2].message;
        assert!(
            said.starts_with("export by OTLP: headers.x-org: it is not set"),
            "{said}"
        );
    }
}
