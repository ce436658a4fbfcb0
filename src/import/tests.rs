//! What holds for every kind.

use super::*;

fn translated(text: &str) -> Imported {
    let file = InputFile::new("haproxy.cfg", text.as_bytes());
    translate(Kind::HaProxy, &file, &mut NoFiles).expect("a configuration of HAProxy")
}

#[test]
fn what_nothing_accounts_for_has_a_comment_where_it_belongs() {
    let imported = translated(
        "frontend web\n  mode tcp\n  bind *:80\n  frobnicate\u{1b} 1\n  default_backend app\nbackend app\n  server a 10.0.0.1:80\n",
    );
    assert!(
        imported.findings.is_empty(),
        "{:?}\n{}",
        imported.findings,
        imported.text
    );
    let comment = "[frontends.web]\nlisten_addr = \"0.0.0.0:80\"\n";
    assert!(imported.text.contains(comment), "{}", imported.text);
    assert!(
        imported
            .text
            .contains("# haproxy.cfg:4: `frobnicate\u{fffd} 1` has no equal\n"),
        "{}",
        imported.text
    );
    let counts = Counts {
        directives: 7,
        translated: 6,
        differing: 0,
        without_equal: 1,
    };
    assert_eq!(imported.counts, counts);
    assert_eq!(imported.notes.len(), 1);
}

#[test]
fn names_are_told_apart_and_fit() {
    let mut draft = Draft::default();
    let names: Vec<_> = ["web", "web", "web-2", "web", "a\tb", "", "ü"]
        .into_iter()
        .map(|name| draft.frontend_name(name))
        .collect();
    assert_eq!(names, ["web", "web-2", "web-2-2", "web-3", "a_b", "unnamed", "ü"]);
    assert_eq!(draft.backend_name("web"), "web");
    assert!(draft.server_name("b", &"ü".repeat(300)).len() < 250);
}
