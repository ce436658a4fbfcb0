//! Our account at a CA: registered once, and kept.

use base64ct::{Base64UrlUnpadded, Encoding as _};
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};
use serde::{Deserialize, Serialize};

use super::{
    Host,
    failure::{Failure, FailureKind},
    transport::Transport,
};
use crate::{
    base::HttpUrl,
    config::{Acme, ExternalAccount, Secret},
};

/// The version of the document that is written, and the only one that is read.
const VERSION: u64 = 1;

/// What is kept of an account.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u64,
    /// `eab.kid` that it was registered with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    contact: Vec<String>,
    credentials: AccountCredentials,
}

/// The name of the file that keeps the account at a CA: each has one of its own.
#[must_use]
pub fn account_file(directory: &HttpUrl) -> String {
    let place = format!("{}{}", directory.authority(), directory.target);
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    let mut name: String = place.chars().map(plain).collect();
    // the longest name of a file has 255 bytes
    name.truncate(200);
    format!("account-{name}.json")
}

/// The account that is kept, or a new one.
///
/// # Errors
/// The CA does not register one, or a secret cannot be read, or it cannot be kept.
pub async fn open(
    acme: &Acme,
    saved: Option<&str>,
    transport: &Transport,
    host: &dyn Host,
) -> Result<Account, Failure> {
    let saved = saved.and_then(|text| serde_json::from_str::<Document>(text).ok());
    let kid = acme.external_account.as_ref().map(|eab| eab.kid.to_string());
    let saved = saved.filter(|saved| saved.version == VERSION && saved.kid == kid);
    let Some(mut saved) = saved else {
        return register(acme, transport, host).await;
    };
    let contact = contact(acme);
    let is_other_contact = saved.contact != contact;
    let text = serde_json::to_value(&saved.credentials).map_err(malformed)?;
    let credentials = serde_json::from_value(text).map_err(malformed)?;
    let account = Account::builder_with_http(Box::new(transport.clone()))
        .from_credentials(credentials)
        .await?;
    if is_other_contact {
        account
            .update_contacts(&contact.iter().map(String::as_str).collect::<Vec<_>>())
            .await?;
        saved.contact = contact;
        keep(acme, &saved, host).await?;
    }
    Ok(account)
}

/// Registers a new account, and keeps it before it is used.
///
/// # Errors
/// As [`open`].
pub async fn register(acme: &Acme, transport: &Transport, host: &dyn Host) -> Result<Account, Failure> {
    let external = match &acme.external_account {
        Some(external) => Some(external_key(external, host).await?),
        None => None,
    };
    let contact = contact(acme);
    let (account, credentials) = Account::builder_with_http(Box::new(transport.clone()))
        .create(
            &NewAccount {
                contact: &contact.iter().map(String::as_str).collect::<Vec<_>>(),
                terms_of_service_agreed: true,
                only_return_existing: false,
            },
            acme.directory.to_string(),
            external.as_ref(),
        )
        .await?;
    let document = Document {
        version: VERSION,
        kid: acme.external_account.as_ref().map(|eab| eab.kid.to_string()),
        contact,
        credentials,
    };
    keep(acme, &document, host).await?;
    Ok(account)
}

async fn keep(acme: &Acme, document: &Document, host: &dyn Host) -> Result<(), Failure> {
    let text = serde_json::to_string(document).map_err(malformed)?;
    let kept = host.keep_account(account_file(&acme.directory), text).await;
    kept.map_err(|why| Failure::new(FailureKind::Storage, format!("keep the account: {why}")))
}

fn contact(acme: &Acme) -> Vec<String> {
    acme.contact
        .iter()
        .map(|address| format!("mailto:{address}"))
        .collect()
}

async fn external_key(external: &ExternalAccount, host: &dyn Host) -> Result<ExternalAccountKey, Failure> {
    let unusable = |why: String| Failure::new(FailureKind::Unusable, format!("eab.hmac_key: {why}"));
    let secret = &external.hmac_key;
    let text = match secret {
        Secret::File(path) => {
            let bytes = host.read(path.clone()).await.map_err(unusable)?;
            String::from_utf8(bytes).map_err(|_| unusable(format!("{secret} is not text (UTF-8)")))?
        }
        Secret::Variable(name) => std::env::var(name).map_err(|_| {
            unusable(format!(
                "the environment has no text in {name}; set it for the service (systemctl edit convey)"
            ))
        })?,
    };
    // some CAs write it in the other alphabet of base64
    let text: String = (text.trim().trim_end_matches('=').chars())
        .map(|c| match c {
            '+' => '-',
            '/' => '_',
            other => other,
        })
        .collect();
    let key = Base64UrlUnpadded::decode_vec(&text)
        .ok()
        .filter(|key| !key.is_empty());
    // the text itself is said nowhere
    let key = key.ok_or_else(|| unusable(format!("{secret} is not a key in base64url")))?;
    Ok(ExternalAccountKey::new(external.kid.to_string(), &key))
}

#[expect(clippy::needless_pass_by_value, reason = "map_err hands it over")]
fn malformed(error: serde_json::Error) -> Failure {
    Failure::new(FailureKind::Storage, format!("write the account: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ca_has_an_account_of_its_own() {
        let file = |url: &str| account_file(&url.parse().unwrap());
        assert_eq!(
            file("https://acme-v02.api.letsencrypt.org/directory"),
            "account-acme-v02.api.letsencrypt.org-directory.json"
        );
        assert_ne!(
            file("https://ca.example:14000/dir"),
            file("https://ca.example:14001/dir")
        );
        let long = format!("https://ca.example/{}", "a".repeat(1_000));
        assert!(file(&long).len() < 255);
    }
}
