//! What is kept over a restart.

use proptest::prelude::*;

use super::*;
use crate::pools::{MAX_FILE_BYTES, MAX_OVERRIDES, Saved, saved::ForeignFile};

const SITES: [&str; 3] = [
    SITE,
    r#"
    [backends.web]
    servers.a = { addr = "10.0.0.9:80" }
    [backends.post]
    servers.m = { addr = "10.0.0.3:25" }
    "#,
    "[global]\n",
];

/// Servers of one of the sites or of none.
fn any_key() -> impl Strategy<Value = ServerKey> {
    let backend = prop::sample::select(vec!["web", "mail", "post", "none"]);
    let server = prop::sample::select(vec!["a", "b", "m"]);
    (backend, server).prop_map(|(backend, server)| key(backend, server))
}

fn any_override() -> impl Strategy<Value = Override> {
    let admin = prop::option::of(prop::sample::select(vec![
        AdminState::Draining,
        AdminState::Maintenance,
    ]));
    (admin, prop::option::of(any::<u16>())).prop_map(|(admin, weight)| Override { admin, weight })
}

/// What is set in the pools.
fn set(pools: &Pools) -> Vec<(ServerKey, Override)> {
    let servers = pools.iter().flat_map(|pool| {
        let all = pool.servers().iter();
        all.map(|server| (pool.key(server), server.overridden))
    });
    servers.filter(|(_, overridden)| !overridden.is_none()).collect()
}

fn kept(saved: &Saved) -> Vec<(ServerKey, Override)> {
    let all = saved.iter();
    all.map(|(key, saved)| (key.clone(), saved.overridden)).collect()
}

fn refused(text: &str) -> String {
    Saved::decode(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn the_file_is_what_it_was_in_the_version_that_wrote_it_first() {
    let mut pools = Pools::of(&load(SITE));
    pools.set_override(&key("web", "a"), DRAINING);
    let heavy = Override {
        admin: Some(AdminState::Maintenance),
        weight: Some(0),
    };
    pools.set_override(&key("mail", "m"), heavy);
    let saved = Saved::default().follow(&pools, 1_764_345_600);
    let text = r#"{
  "version": 1,
  "overrides": [
    {
      "backend": "mail",
      "server": "m",
      "admin": "maintenance",
      "weight": 0,
      "since": 1764345600
    },
    {
      "backend": "web",
      "server": "a",
      "admin": "draining",
      "since": 1764345600
    }
  ]
}
"#;
    assert_eq!(String::from_utf8(saved.encode().unwrap()).unwrap(), text);
    assert_eq!(Saved::decode(text.as_bytes()).unwrap(), saved);
    assert_eq!(heavy.to_string(), "maintenance, weight 0");
}

#[test]
fn what_convey_does_not_write_is_refused_with_the_reason() {
    let line = |rest: &str| {
        let line = format!("{{\"backend\":\"web\",\"server\":\"a\",\"since\":1{rest}}}");
        format!("{{\"version\":1,\"overrides\":[{line}]}}")
    };
    assert!(Saved::decode(line(",\"weight\":5").as_bytes()).is_ok());
    for (text, why) in [
        (String::new(), "EOF while parsing"),
        ("{\"version\":1".into(), "EOF while parsing"),
        ("[]".into(), "invalid length"),
        (line(""), "the override of web/a sets nothing"),
        (line(",\"weight\":65536"), "invalid value"),
        (line(",\"admin\":\"up\""), "unknown variant `up`"),
        (line(",\"priority\":1"), "unknown field `priority`"),
        (
            line(",\"weight\":1},{\"backend\":\"web\",\"server\":\"a\",\"since\":2,\"weight\":1"),
            "server web/a is there twice",
        ),
        (
            line(",\"weight\":1").replace("web", "w\\u0000"),
            "a name must not contain control characters",
        ),
    ] {
        let expected = format!("it is not what Convey writes: {why}");
        assert!(
            refused(&text).starts_with(&expected),
            "{text}: {}",
            refused(&text)
        );
    }
    assert_eq!(
        refused("{\"version\":2,\"servers\":[]}"),
        "it has version 2, and this Convey reads version 1"
    );
    let many = vec!["{\"backend\":\"b\",\"server\":\"s\",\"weight\":1,\"since\":1}"; MAX_OVERRIDES + 1];
    let many = format!("{{\"version\":1,\"overrides\":[{}]}}", many.join(","));
    let found = Saved::decode(many.as_bytes());
    assert!(matches!(found, Err(ForeignFile::Content(why)) if why.starts_with("10001 overrides")));
}

#[test]
fn as_many_as_are_kept_fit_the_file_that_is_read() {
    // each of these characters takes two bytes in JSON
    let name = |n: usize| format!("{n:05}{}", "\"".repeat(250));
    let mut text = format!("[backends.'{}']\n", name(0));
    for n in 0..=MAX_OVERRIDES {
        text += &format!("servers.'{}'.addr = \"10.0.0.1:80\"\n", name(n));
    }
    let mut pools = Pools::of(&load(&text));
    let longest = Override {
        admin: Some(AdminState::Maintenance),
        weight: Some(u16::MAX),
    };
    for n in 0..=MAX_OVERRIDES {
        assert!(pools.set_override(&key(&name(0), &name(n)), longest));
    }
    let saved = Saved::default().follow(&pools, u64::MAX);
    assert_eq!(saved.len(), MAX_OVERRIDES + 1);
    let bytes = saved.encode().unwrap();
    assert!(bytes.len() <= MAX_FILE_BYTES, "{}", bytes.len());
    assert_eq!(Saved::decode(&bytes).unwrap().len(), MAX_OVERRIDES);
}

proptest! {
    #[test]
    fn what_was_set_is_restored_to_the_servers_that_there_are(
        before in 0..SITES.len(),
        after in 0..SITES.len(),
        orders in prop::collection::vec((any_key(), any_override()), 0..12),
    ) {
        let mut pools = Pools::of(&load(SITES[before]));
        let mut saved = Saved::default();
        for (now, (key, overridden)) in (1..).zip(&orders) {
            pools.set_override(key, *overridden);
            let next = saved.follow(&pools, now);
            for (other, entry) in next.iter() {
                let old = saved.iter().find(|(key, _)| *key == other);
                let is_same = old.is_some_and(|(_, old)| old.overridden == entry.overridden);
                prop_assert_eq!(entry.since == now, !is_same, "what is as before keeps its time");
                prop_assert!(is_same || other == key);
            }
            saved = next;
        }
        prop_assert_eq!(kept(&saved), set(&pools));
        let again = Saved::decode(&saved.encode().unwrap()).unwrap();
        prop_assert_eq!(&again, &saved);

        let mut next = Pools::of(&load(SITES[after]));
        again.restore(&mut next);
        let has = |key: &ServerKey| {
            let pool = next.get(key.backend.as_str());
            pool.is_some_and(|pool| pool.server(key.server.as_str()).is_some())
        };
        let there: Vec<_> = set(&pools).into_iter().filter(|(key, _)| has(key)).collect();
        prop_assert_eq!(set(&next), there);
        let restored = again.follow(&next, 1_000);
        prop_assert!(restored.iter().all(|(key, entry)| entry.since < 1_000 && again.has(key)));
    }

    #[test]
    fn a_part_of_the_file_or_any_bytes_are_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        cut in any::<prop::sample::Index>(),
    ) {
        prop_assert!(Saved::decode(&bytes).is_err());
        let mut pools = Pools::of(&load(SITE));
        pools.set_override(&key("web", "a"), DRAINING);
        let mut whole = Saved::default().follow(&pools, 7).encode().unwrap();
        // the last byte ends the line and says nothing
        whole.truncate(cut.index(whole.len() - 1));
        prop_assert!(Saved::decode(&whole).is_err());
    }
}
