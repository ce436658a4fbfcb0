//! Certificates that change while handshakes go on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::lab::*;
use crate::tls::*;

fn read(name: &str, result: Result<Arc<Pair>, PairError>) -> ReadPair {
    (name.into(), result)
}

fn broken() -> Result<Arc<Pair>, PairError> {
    Err(PairError::CertificateFile(PemError::Empty))
}

#[test]
fn the_next_handshake_gets_the_new_certificate() {
    let ca = Ca::new("ca");
    let (old, new) = (
        ca.issue(Key::P256, &["a.test"]).pair(),
        ca.issue(Key::P256, &["a.test"]).pair(),
    );
    let store = store(&[&old]);
    let server = server(&ServerSettings::new("web"), &store);
    let shown = || {
        connect(&Client::of(&ca).arc(), &server, "a.test")
            .unwrap()
            .shown()
            .clone()
    };
    assert_eq!(shown(), old.certified_at(clock).cert[0]);
    assert_eq!(store.replace(vec![read("0", Ok(Arc::clone(&new)))]), []);
    assert_eq!(shown(), new.certified_at(clock).cert[0]);
}

#[test]
fn a_handshake_under_way_finishes_with_the_certificate_that_it_began_with() {
    let ca = Ca::new("ca");
    let old = ca.issue(Key::P256, &["a.test"]).pair();
    for version in VERSIONS {
        let store = store(&[&old]);
        let server = server(&ServerSettings::new("web"), &store);
        let mut connection = start(&Client::of(&ca).version(version).arc(), &server, "a.test");
        to_server(&mut connection.client, &mut connection.server).unwrap();
        store.replace(vec![read("0", Ok(ca.issue(Key::P256, &["a.test"]).pair()))]);
        finish(&mut connection).unwrap();
        assert_eq!(*connection.shown(), old.certified_at(clock).cert[0]);
    }
}

#[test]
fn no_handshake_fails_while_another_thread_changes_certificates() {
    let ca = Ca::new("ca");
    let pairs = [
        ca.issue(Key::P256, &["www.a.test"]).pair(),
        ca.issue(Key::Rsa, &["*.a.test"]).pair(),
        ca.issue(Key::Ed25519, &["www.a.test", "b.test"]).pair(),
    ];
    let store = store(&[&pairs[0]]);
    let server = server(&ServerSettings::new("web"), &store);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let swapping = scope.spawn(|| {
            let mut swaps = 0_usize;
            while !done.load(Ordering::Relaxed) {
                store.replace(vec![read("0", Ok(Arc::clone(&pairs[swaps % pairs.len()])))]);
                swaps += 1;
                thread::yield_now();
            }
            swaps
        });
        let client = Client::of(&ca).arc();
        let failed = (0..200).find_map(|_| connect(&client, &server, "www.a.test").err());
        done.store(true, Ordering::Relaxed);
        assert!(failed.is_none(), "{failed:?}");
        assert!(swapping.join().unwrap() > 1);
    });
}

#[test]
fn a_broken_new_certificate_keeps_the_old_one_and_the_others_change() {
    let ca = Ca::new("ca");
    let (a, b) = (
        ca.issue(Key::P256, &["a.test"]).pair(),
        ca.issue(Key::P256, &["b.test"]).pair(),
    );
    let store = CertificateStore::new(vec![("a".into(), Arc::clone(&a)), ("b".into(), b)]);
    let new_b = ca.issue(Key::P256, &["b.test", "c.test"]).pair();
    let faults = store.replace(vec![
        read("a", broken()),
        read("b", Ok(new_b)),
        read("d", broken()),
    ]);
    let said: Vec<_> = faults.iter().map(|fault| (&*fault.name, fault.kept)).collect();
    assert_eq!(said, [("a", true), ("d", false)]);
    let now = store.current();
    let names: Vec<_> = now.pairs().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(now.covers("a.test") && now.covers("c.test"));
    // it is still the old one after another look at the same broken file
    store.replace(vec![read("a", broken())]);
    assert!(store.current().covers("a.test"));
    assert!(!store.current().covers("b.test"), "it is named no more");
    // and what has been mended is served
    store.replace(vec![read("a", Ok(ca.issue(Key::P256, &["mended.test"]).pair()))]);
    assert!(store.current().covers("mended.test") && !store.current().covers("a.test"));
}

#[test]
fn of_several_certificates_for_one_name_the_first_is_served() {
    let ca = Ca::new("ca");
    let (first, second) = (
        ca.issue(Key::P256, &["a.test"]).pair(),
        ca.issue(Key::P256, &["a.test"]).pair(),
    );
    let server = server(&ServerSettings::new("web"), &store(&[&first, &second]));
    let connected = connect(&Client::of(&ca).arc(), &server, "a.test").unwrap();
    assert_eq!(*connected.shown(), first.certified_at(clock).cert[0]);
}

#[test]
fn a_frontend_without_certificates_refuses_and_says_so() {
    let ca = Ca::new("ca");
    let server = server(&ServerSettings::new("web"), &store(&[]));
    let refused = connect(&Client::of(&ca).arc(), &server, "a.test").unwrap_err();
    assert_eq!(refused.failure(), HandshakeFailure::NoCertificate);
}
