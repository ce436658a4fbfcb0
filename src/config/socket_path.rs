//! Paths of unix sockets, as operators write them.

use super::address::{self, Fault, fault};
use crate::base::{NotASocketPath, ServerAddr, SocketPath};

/// Reads where a server is: `IP:port`, or `unix:/path`.
///
/// # Errors
/// It is neither, or cannot be connected to; the fault says which part is wrong.
pub fn parse_server(text: &str) -> Result<ServerAddr, Fault> {
    match parse(text) {
        Some(path) => path.map(ServerAddr::Unix),
        None => address::parse_server(text).map(Into::into),
    }
}

/// Reads a text that is meant as a unix socket; `None` if it is something else.
///
/// # Errors
/// Not such a path; the fault says what to write.
pub fn parse(text: &str) -> Option<Result<SocketPath, Fault>> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Some(SocketPath::new(path).map_err(|why| explain(text, path, why)));
    }
    let is_abstract = text.starts_with('@') || text.starts_with("abns@") || text.starts_with("abnsz@");
    if is_abstract {
        return Some(Err(of_no_file(text)));
    }
    let path = (text.strip_prefix("unix@")).or_else(|| text.starts_with('/').then_some(text))?;
    let help = match SocketPath::new(path) {
        Ok(path) => format!("write \"{path}\""),
        Err(_) => "write unix: and an absolute path, such as \"unix:/run/app.sock\"".to_owned(),
    };
    Some(Err(fault(
        format!("`{text}` is not how a unix socket is written"),
        help,
    )))
}

fn of_no_file(text: &str) -> Fault {
    fault(
        format!("`{text}` is an abstract socket, which has no permissions"),
        "use one at a path, such as \"unix:/run/app.sock\"",
    )
}

fn explain(text: &str, path: &str, why: NotASocketPath) -> Fault {
    if path.starts_with('@') {
        return of_no_file(text);
    }
    match why {
        NotASocketPath::TooLong => fault(
            format!("the path in `{text}` has {} bytes", path.len()),
            "use one of 107 bytes at most, which is the kernel's limit",
        ),
        NotASocketPath::Control => fault(
            format!("the path in `{}` has a control character", text.escape_debug()),
            "use a path without it",
        ),
        NotASocketPath::NotPlain => {
            let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
            let is_plain = !parts.is_empty() && !parts.iter().any(|part| matches!(*part, "." | ".."));
            let help = match is_plain {
                true => format!("write \"unix:/{}\"", parts.join("/")),
                false => "write the path of a socket without `//`, `.` and `..`".to_owned(),
            };
            fault(format!("`{text}` is not the plain path of a unix socket"), help)
        }
        NotASocketPath::Relative | NotASocketPath::NoScheme => {
            let help = match SocketPath::new(&format!("/run/{path}")) {
                Ok(path) => format!("write the whole path, such as \"{path}\""),
                Err(_) => "write the whole path, such as \"unix:/run/app.sock\"".to_owned(),
            };
            fault(format!("the path in `{text}` is not absolute"), help)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_is_the_line_to_write() {
        let help = |text: &str| parse(text).unwrap().map_err(|found| found.help);
        for text in [
            "unix@/run/app.sock",
            "/run/app.sock",
            "unix:///run/app.sock",
            "unix:/run//app.sock/",
        ] {
            assert_eq!(help(text), Err("write \"unix:/run/app.sock\"".into()), "{text}");
        }
        assert_eq!(
            help("unix:app.sock"),
            Err("write the whole path, such as \"unix:/run/app.sock\"".into())
        );
        for text in ["unix:@app", "@app", "abns@app"] {
            assert!(
                parse(text)
                    .unwrap()
                    .is_err_and(|found| found.message.contains("abstract")),
                "{text}"
            );
        }
        assert!(parse(&format!("unix:/{}", "x".repeat(107))).unwrap().is_err());
        for other in ["10.0.0.1:80", "web", "tcp://web:80", ""] {
            assert!(parse(other).is_none(), "{other}");
        }
    }
}
