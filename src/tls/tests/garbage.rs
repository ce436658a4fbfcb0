//! Bytes of any kind where files are expected.

use proptest::prelude::*;

use super::lab::*;
use crate::{config::CrlPolicy, tls::*};

/// A PEM file, damaged: bytes changed, cut out, or put twice.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    static GOOD: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let good = GOOD.get_or_init(|| {
        let ca = Ca::new("ca");
        let files = ca.issue(Key::P256, &["a.test", "*.b.test"]);
        (files.certificate + &ca.certificate.pem() + &files.key).into_bytes()
    });
    let places = (0..good.len(), 0..good.len(), any::<u8>(), 0..3_u8);
    prop::collection::vec(places, 0..4).prop_map(|changes| {
        let mut bytes = good.clone();
        for (one, other, byte, how) in changes {
            let (first, last) = (one.min(other).min(bytes.len()), one.max(other).min(bytes.len()));
            match how {
                0 => bytes[first..last]
                    .iter_mut()
                    .take(1)
                    .for_each(|place| *place = byte),
                1 => drop(bytes.drain(first..last)),
                _ => bytes.extend_from_within(first..last),
            }
        }
        bytes
    })
}

fn read_all(bytes: &[u8]) {
    for key in [None, Some(bytes)] {
        for ocsp in [None, Some(bytes)] {
            let read = Pair::parse(PairFiles {
                certificate: bytes,
                key,
                ocsp,
            });
            match read {
                Ok(pair) => drop(CertificateFinding::all(&pair, clock())),
                Err(why) => assert!(!why.to_string().is_empty()),
            }
        }
    }
    let settings = ServerSettings {
        client_auth: Some(ClientAuthSettings {
            required: true,
            ca: bytes.to_vec(),
            crls: vec![bytes.to_vec()],
            crl_policy: CrlPolicy::Complete,
        }),
        ..ServerSettings::new("web")
    };
    let _ = server_config(&settings, &store(&[]), &process(&keys(1)));
    let _ = TicketKeys::from_shared(bytes);
    let _ = TicketKeys::from_state(bytes, clock());
    let _ = Facts::read(bytes);
}

proptest! {
    #[test]
    fn no_file_is_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read_all(&bytes);
    }

    #[test]
    fn no_damaged_file_is_a_panic(bytes in damaged()) {
        read_all(&bytes);
    }

    #[test]
    fn no_damaged_certificate_is_a_panic(place in 0..400_usize, byte in any::<u8>()) {
        static GOOD: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let mut der = GOOD.get_or_init(|| {
            Ca::new("ca").issue(Key::P256, &["a.test"]).der().0[0].to_vec()
        }).clone();
        if let Some(at) = der.get_mut(place) {
            *at = byte;
        }
        if let Ok(facts) = Facts::read(&der) {
            prop_assert!(facts.subject.len() <= MAX_SUBJECT && facts.issuer.len() <= MAX_SUBJECT);
        }
    }

    #[test]
    fn no_ticket_that_we_did_not_make_is_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let ca = Ca::new("ca");
        let pair = ca.issue(Key::P256, &["a.test"]).pair();
        let config = server(&ServerSettings::new("web"), &store(&[&pair]));
        prop_assert_eq!(config.ticketer.decrypt(&bytes), None);
    }
}
