//! Paths of files and programs: Convey's are absolute, for it runs in no directory of its own.

/// What is said of a path that was relative.
pub const MOVED: &str = "paths are absolute here, and from which directory this one was meant is not known: put it where this says, or write \
                         where it is";

/// An absolute path of a file, and whether it is another one than was written.
#[must_use]
pub fn file(path: &str) -> (String, bool) {
    moved(path, path.starts_with('/'), "/etc/convey/certificates")
}

/// A program as a command names it, and whether it is another one than was written: a name without a slash is looked for.
#[must_use]
pub fn program(path: &str) -> (String, bool) {
    moved(
        path,
        path.starts_with('/') || !path.contains('/'),
        "/usr/local/bin",
    )
}

fn moved(path: &str, is_fine: bool, to: &str) -> (String, bool) {
    if is_fine {
        return (path.to_owned(), false);
    }
    let last = path.rsplit('/').find(|part| !part.is_empty() && *part != "..");
    (format!("{to}/{}", last.unwrap_or("unnamed")), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_get_a_place() {
        assert_eq!(file("/etc/a.pem"), ("/etc/a.pem".to_owned(), false));
        assert_eq!(file("./certs/a.pem").0, "/etc/convey/certificates/a.pem");
        assert_eq!(file("").0, "/etc/convey/certificates/unnamed");
        assert_eq!(program("ping"), ("ping".to_owned(), false));
        assert_eq!(program("../x/check.sh").0, "/usr/local/bin/check.sh");
    }
}
