//! A certificate that was ordered, as it is kept: one file with chain and key, as HAProxy has it too, and before them in words who
//! has issued it.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::failure::{Failure, FailureKind};
use crate::{
    config::CertificateOrder,
    tls::{Pair, PairError, PairFiles},
};

/// What the lines before the chain begin with.
const DIRECTORY: &str = "Directory: ";
const PROFILE: &str = "Profile: ";

/// A certificate with its key, and where it comes from.
#[derive(Clone)]
pub struct Bundle {
    /// The directory of the CA.
    pub directory: String,
    /// The profile that it was ordered with.
    pub profile: Option<String>,
    /// The whole file.
    pub text: String,
    /// What is served.
    pub pair: Pair,
}

/// The name of the file that keeps a certificate of this name.
#[must_use]
pub fn bundle_file(name: &str) -> String {
    // no name of a host has an underscore here
    format!("{}.pem", name.replace('*', "_"))
}

impl Bundle {
    /// Reads a file.
    ///
    /// # Errors
    /// It has no certificate with its key.
    pub fn read(text: &[u8]) -> Result<Self, PairError> {
        let pair = Pair::parse(PairFiles {
            certificate: text,
            key: None,
            ocsp: None,
        })?;
        let text = String::from_utf8_lossy(text).into_owned();
        let of = |beginning: &str| {
            let lines = text.lines().take_while(|line| !line.starts_with("-----"));
            lines
                .filter_map(|line| line.strip_prefix(beginning))
                .next()
                .map(str::to_owned)
        };
        Ok(Self {
            directory: of(DIRECTORY).unwrap_or_default(),
            profile: of(PROFILE),
            pair,
            text,
        })
    }

    /// What a CA has issued for an order, with the key that it was asked with.
    ///
    /// # Errors
    /// It cannot be served, or is for other names.
    pub fn of_issued(
        directory: &str,
        profile: Option<&str>,
        order: &CertificateOrder,
        chain: &str,
        key: &str,
    ) -> Result<Self, Failure> {
        let profile = profile.map_or_else(String::new, |profile| format!("{PROFILE}{profile}\n"));
        let text = format!("{DIRECTORY}{directory}\n{profile}{}\n{key}", chain.trim_end());
        let failed =
            |why: String| Failure::new(FailureKind::Certificate, format!("what the CA has issued: {why}"));
        let bundle = Self::read(text.as_bytes()).map_err(|error| failed(error.to_string()))?;
        match order.names.iter().find(|name| !bundle.is_for(&name.to_string())) {
            Some(missing) => Err(failed(format!("it is not for {missing}"))),
            None => Ok(bundle),
        }
    }

    /// Whether it has this very name.
    #[must_use]
    pub fn is_for(&self, name: &str) -> bool {
        self.pair.facts().names.iter().any(|of| **of == *name)
    }
}

impl fmt::Debug for Bundle {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bundle").field(&self.pair.facts().subject).finish()
    }
}

/// A new key in PEM, and what a CA is asked with for a certificate of it (PKCS #10), in DER.
///
/// # Errors
/// There is no randomness, or a name is none.
pub fn request(order: &CertificateOrder) -> Result<(String, Vec<u8>), Failure> {
    let failed = |error: rcgen::Error| Failure::new(FailureKind::Unusable, format!("make a key: {error}"));
    let names: Vec<String> = order.names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    let key = KeyPair::generate().map_err(failed)?;
    let request = params.serialize_request(&key).map_err(failed)?;
    Ok((key.serialize_pem(), request.der().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(names: &[&str]) -> CertificateOrder {
        CertificateOrder {
            names: names.iter().map(|name| name.parse().unwrap()).collect(),
            challenge: None,
            profile: None,
        }
    }

    fn issued(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn what_is_kept_says_where_it_comes_from_and_can_be_served() {
        let (chain, key) = issued(&["www.example", "*.example"]);
        let wanted = order(&["www.example", "*.example"]);
        let bundle = Bundle::of_issued("https://ca/dir", Some("short"), &wanted, &chain, &key).unwrap();
        let again = Bundle::read(bundle.text.as_bytes()).unwrap();
        assert_eq!(
            (&*again.directory, again.profile.as_deref()),
            ("https://ca/dir", Some("short"))
        );
        assert!(again.pair.looks_like(&bundle.pair) && again.is_for("*.example"));
        let plain = Bundle::of_issued("https://ca/dir", None, &wanted, &chain, &key).unwrap();
        assert_eq!(plain.profile, None);
    }

    #[test]
    fn what_is_for_other_names_or_of_another_key_is_not_taken() {
        let (chain, key) = issued(&["www.example"]);
        let other = Bundle::of_issued("d", None, &order(&["www.example", "b.example"]), &chain, &key);
        assert_eq!(other.unwrap_err().kind, FailureKind::Certificate);
        let (_, foreign) = issued(&["www.example"]);
        assert!(Bundle::of_issued("d", None, &order(&["www.example"]), &chain, &foreign).is_err());
    }

    #[test]
    fn a_file_is_called_as_its_certificate() {
        assert_eq!(bundle_file("www.example.com"), "www.example.com.pem");
        assert_eq!(bundle_file("*.example.com"), "_.example.com.pem");
    }

    #[test]
    fn each_request_has_a_key_of_its_own() {
        let wanted = order(&["www.example", "*.example"]);
        let (one, _) = request(&wanted).unwrap();
        let (other, der) = request(&wanted).unwrap();
        assert!(one != other && one.contains("PRIVATE KEY") && !der.is_empty());
    }
}
