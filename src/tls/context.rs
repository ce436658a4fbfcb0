//! Where a session may be resumed: at the frontend that it began at, as long as that trusts the same people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;

use super::settings::ServerSettings;

/// How long a session with a client certificate can be prolonged by resuming it. After that the client shows its certificate
/// again, which may have expired meanwhile.
const CERTIFICATE_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// What must be the same for a session to be resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Context {
    digest: [u8; 32],
    has_client_certificates: bool,
}

impl Context {
    /// The context of a frontend's sessions: its name, and how it judges client certificates.
    pub fn new(settings: &ServerSettings) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut add = |part: &[u8]| {
            // lengths keep the parts apart
            hash.update(&part.len().to_be_bytes());
            hash.update(part);
        };
        add(b"convey session 1");
        add(settings.frontend.as_bytes());
        if let Some(auth) = &settings.client_auth {
            add(if auth.required { b"required" } else { b"optional" });
            add(&auth.ca);
            add(auth.crl_policy.label().as_bytes());
            auth.crls.iter().for_each(|crl| add(crl));
        }
        let mut bytes = [0; 32];
        for (byte, hashed) in bytes.iter_mut().zip(hash.finish().as_ref()) {
            *byte = *hashed;
        }
        Self {
            digest: bytes,
            has_client_certificates: settings.client_auth.is_some(),
        }
    }

    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Whether a session that was saved then may be resumed now.
    pub fn lasts(&self, saved: SystemTime, now: SystemTime) -> bool {
        !self.has_client_certificates || self.period(saved) == self.period(now)
    }

    /// The day, which begins at another time for each frontend, so that not all clients come back at once.
    fn period(&self, at: SystemTime) -> u64 {
        let [first, second, ..] = self.digest;
        let offset = u64::from(u16::from_be_bytes([first, second]));
        let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        (seconds + offset) / CERTIFICATE_PERIOD.as_secs()
    }
}
