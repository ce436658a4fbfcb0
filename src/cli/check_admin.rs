//! What `convey check` says of the tokens of `[admin]`.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use crate::{
    admin::auth::Tokens,
    config::{Diagnostic, Loaded, Severity},
    privilege::TOKENS_FILE_BYTES,
    sys::config_file,
};

/// Mode bit: everybody may write.
const WRITABLE_BY_OTHERS: u32 = 0o002;

/// With what is wrong with the file of tokens. One that cannot be read here is a warning, as the configuration may be another
/// host's; the start and a reload refuse it.
pub fn with_tokens(mut loaded: Loaded) -> Result<Loaded, Vec<Diagnostic>> {
    let Some(path) = loaded.config.admin.tokens_file() else {
        return Ok(loaded);
    };
    let finding = |severity, message: String, help: &str| Diagnostic {
        severity,
        file: path.display().to_string(),
        line: 0,
        column: 0,
        span: 0..0,
        path: "admin.tokens_file".to_owned(),
        message,
        help: Some(help.to_owned()),
    };
    let mut warnings = Vec::new();
    let mut error = None;
    match config_file::read(path, TOKENS_FILE_BYTES) {
        Err(why) => warnings.push(finding(
            Severity::Warning,
            why.of_file_named_in("[admin]"),
            "convey does not start where it cannot read it. It belongs to root:convey with mode 0640",
        )),
        Ok(bytes) => {
            let why = Tokens::parse(&bytes).err();
            error = why.map(|why| finding(Severity::Error, format!("file of tokens: {why}"), LINE));
        }
    }
    if is_writable_by_others(path) {
        warnings.push(finding(
            Severity::Warning,
            "everybody on this host may write into it, and so give themselves a role".to_owned(),
            "chmod o-w, and see that it belongs to root",
        ));
    }
    match error {
        None => {
            loaded.warnings.append(&mut warnings);
            Ok(loaded)
        }
        Some(error) => {
            warnings.insert(0, error);
            warnings.append(&mut loaded.warnings);
            Err(warnings)
        }
    }
}

const LINE: &str = "`convey token NAME --role read` prints a token and its line; # begins a comment";

fn is_writable_by_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & WRITABLE_BY_OTHERS != 0)
}
