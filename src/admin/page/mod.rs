//! The page: files that are part of the program, served as they are. What they show they ask of the API, as anybody may.

use std::sync::LazyLock;

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};

use super::{status::tag_of, views::Problem};

/// What browsers let the page do: its own files and the API, and nothing else; a text that becomes a script or an element by
/// mistake does neither.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// Of every answer with a file.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    // asked for anew each time: after an upgrade nobody has half of the old page
    (header::CACHE_CONTROL, "no-cache"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// What `/` is.
const INDEX: &str = "index.html";

/// A file of the page.
#[derive(Debug, Clone, Copy)]
struct File {
    name: &'static str,
    bytes: &'static [u8],
}

macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        &[$(File { name: $name, bytes: include_bytes!(concat!("files/", $name)) }),+]
    };
}

/// Every one of them.
const FILES: &[File] = files![
    "actions.js",
    "api.js",
    "base.css",
    "certificates.js",
    "changes.js",
    "config.js",
    "connections.js",
    "connectiontable.js",
    "dialog.js",
    "dialogs.css",
    "discovery.js",
    "dom.js",
    "editor.js",
    "eventlist.js",
    "events.js",
    "explain.js",
    "format.js",
    "frame.css",
    "headline.js",
    "history.js",
    "icon.svg",
    "index.html",
    "keys.js",
    "live.js",
    "login.js",
    "marks.js",
    "notices.js",
    "overrides.js",
    "overview.css",
    "overview.js",
    "packets.js",
    "page.js",
    "panel.css",
    "panel.js",
    "panelbackend.js",
    "panelfrontend.js",
    "panelparts.js",
    "panelserver.js",
    "parts.css",
    "plot.js",
    "process.js",
    "revisions.js",
    "router.js",
    "scripts.js",
    "session.js",
    "stream.js",
    "theme.js",
    "toml.js",
    "tree.js",
    "treeview.js",
    "verdict.js",
    "views.css",
    "words.js",
];

/// Their entity tags.
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| FILES.iter().map(|file| tag_of(file.bytes)).collect());

/// The routes of the page, which are for everybody.
pub fn routes() -> Router {
    Router::new()
        .route("/", get(async |headers: HeaderMap| answer(INDEX, &headers)))
        .route(
            "/page/{file}",
            get(async |Path(name): Path<String>, headers: HeaderMap| answer(&name, &headers)),
        )
}

fn answer(name: &str, headers: &HeaderMap) -> Response {
    let found = FILES.iter().zip(&*TAGS).find(|(file, _)| file.name == name);
    let Some((file, tag)) = found else {
        let why = format!("the page has no file {name:?}");
        return Problem::new(StatusCode::NOT_FOUND, why).into_response();
    };
    let mut response = match has(headers, tag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, media(file.name))], file.bytes).into_response(),
    };
    let ours = HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value)));
    response.headers_mut().extend(ours);
    if let Ok(tag) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Whether a browser has the file with this tag (RFC 9110, section 13.1.2).
fn has(headers: &HeaderMap, tag: &str) -> bool {
    let all = headers.get_all(header::IF_NONE_MATCH).iter();
    let texts = all.filter_map(|value| value.to_str().ok());
    let mut tags = texts.flat_map(|text| text.split(','));
    tags.any(|one| one.trim().trim_start_matches("W/") == tag)
}

/// The media type of a file by the end of its name.
fn media(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests;
