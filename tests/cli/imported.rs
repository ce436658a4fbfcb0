//! Configurations of others beside what becomes of them: `tests/import/KIND/NAME.EXTENSION` and `NAME.toml`. `CONVEY_BLESS=1`
//! writes the latter anew.

use std::{
    fs,
    path::{Path, PathBuf},
};

use convey::{
    config,
    import::{InputFile, Kind, NoFiles, translate},
};

/// Inputs of a kind, sorted.
fn inputs(kind: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/import")
        .join(kind);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| !path.to_string_lossy().ends_with(".convey.toml"));
    paths.sort();
    assert!(!paths.is_empty(), "no input in {}", directory.display());
    paths
}

fn hold(kind: Kind, directory: &str) {
    for path in inputs(directory) {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let bytes = fs::read(&path).expect("an input");
        let imported = translate(kind, &InputFile::new(&name, &bytes), &mut NoFiles)
            .unwrap_or_else(|error| panic!("{error}"));
        let errors: Vec<_> = imported
            .findings
            .iter()
            .filter(|finding| finding.severity == config::Severity::Error)
            .collect();
        assert!(errors.is_empty(), "{name}: {errors:#?}\n{}", imported.text);
        let mut shown = imported.text.clone();
        for finding in &imported.findings {
            shown.push_str(&format!("#? {}: {}\n", finding.path, finding.message));
        }
        let golden = path.with_extension("convey.toml");
        if std::env::var_os("CONVEY_BLESS").is_some() {
            fs::write(&golden, &shown).expect("a golden file");
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert!(
            shown == expected,
            "{name} becomes something else than {} (CONVEY_BLESS=1 writes it):\n{shown}",
            golden.display()
        );
        let counts = imported.counts;
        assert_eq!(
            counts.translated + counts.differing + counts.without_equal,
            counts.directives,
            "{name}"
        );
    }
}

#[test]
fn haproxy_becomes_what_it_was() {
    hold(Kind::HaProxy, "haproxy");
}

#[test]
fn nginx_becomes_what_it_was() {
    hold(Kind::Nginx, "nginx");
}

#[test]
fn gobetween_becomes_what_it_was() {
    hold(Kind::Gobetween, "gobetween");
}

#[test]
fn awe4lb_becomes_what_it_was() {
    hold(Kind::Awe4lb, "awe4lb");
}

#[test]
fn ipvs_becomes_what_it_was() {
    hold(Kind::Ipvs, "ipvs");
}

#[test]
fn keepalived_becomes_what_it_was() {
    hold(Kind::Keepalived, "keepalived");
}
