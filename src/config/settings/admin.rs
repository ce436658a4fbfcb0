//! Settings of the control socket and the admin API as text.

use super::{Setting, Settings, path, set, some, string, text};
use crate::config::{
    admin::{Admin, AdminApi, AdminEntry},
    tls::CertificateFiles,
};

/// `[admin]`.
pub fn admin(admin: &Admin) -> Settings {
    let Admin {
        socket,
        api,
        allow_config_writes,
    } = admin;
    let socket = socket.as_ref().map(|path| path.to_string_lossy());
    let mut settings = vec![("socket", text(&socket.unwrap_or_default()))];
    settings.extend(listener(api.as_ref()));
    settings.push(("allow_config_writes", set(*allow_config_writes)));
    settings
}

fn listener(api: Option<&AdminApi>) -> Settings {
    let Some(AdminApi {
        listen,
        tls,
        entry,
        allowed_hosts,
        allowed_origins,
    }) = api
    else {
        let mut settings = vec![("listen_addr", Setting::Unset("the API is on the socket alone"))];
        let others = [
            "tls",
            "tokens_file",
            "loopback_role",
            "allowed_hosts",
            "allowed_origins",
        ];
        settings.extend(others.map(|key| (key, Setting::Unset("for listen_addr"))));
        return settings;
    };
    let (tokens, role) = match entry {
        AdminEntry::Tokens(file) => (path(file), Setting::Unset("a token is needed")),
        AdminEntry::Loopback(role) => (Setting::Unset("no token is needed"), text(role.label())),
    };
    vec![
        ("listen_addr", text(&listen.to_string())),
        (
            "tls",
            tls.as_ref().map_or(Setting::Unset("plain HTTP"), certificate),
        ),
        ("tokens_file", tokens),
        ("loopback_role", role),
        ("allowed_hosts", some(allowed_hosts, "none")),
        ("allowed_origins", some(allowed_origins, "none")),
    ]
}

fn certificate(files: &CertificateFiles) -> Setting {
    let CertificateFiles { cert, key, ocsp: _ } = files;
    let keys = [("cert", Some(cert)), ("key", key.as_ref())];
    let keys: Vec<String> = (keys.into_iter())
        .filter_map(|(key, path)| Some(format!("{key} = {}", string(&path?.to_string_lossy()))))
        .collect();
    Setting::Value(format!("{{ {} }}", keys.join(", ")))
}
