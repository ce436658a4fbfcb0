//! When a CA advises to renew a certificate (ARI, RFC 9773): it may have to take it back, or spread the load.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::{
    Failure, FailureKind, Host,
    transport::{Transport, retry_after},
};
use crate::{base::HttpUrl, config::Acme};

/// How long an advice is believed that does not say so (RFC 9773, section 4.3.3), and its bounds.
const BELIEVED: Duration = Duration::from_secs(6 * 3600);
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What CAs call a certificate (RFC 9773, section 4.1), both parts in base64url.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateId {
    /// The key of who has signed it.
    pub authority: String,
    /// Its serial number.
    pub serial: String,
}

/// What a CA says of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// The first moment in which it had best be renewed.
    pub start: SystemTime,
    /// The last one.
    pub end: SystemTime,
    /// How long this is believed.
    pub believed: Duration,
    /// A page that says why.
    pub page: Option<String>,
}

/// What a directory says, as far as it is looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    renewal_info: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RenewalInfo {
    suggested_window: Window,
    #[serde(rename = "explanationURL")]
    explanation_url: Option<String>,
}

#[derive(Deserialize)]
struct Window {
    start: String,
    end: String,
}

/// Asks a CA about a certificate; `None`: it gives no advice.
///
/// # Errors
/// It cannot be asked, or what it says is none.
pub async fn ask(acme: &Acme, id: &CertificateId, host: &dyn Host) -> Result<Option<Advice>, Failure> {
    let transport = Transport::prepare(acme, host).await?;
    let failed = |error| Failure::of_transport(&error);
    let directory = transport.get(&acme.directory).await.map_err(failed)?;
    let directory: Directory = serde_json::from_slice(&directory.body).map_err(malformed)?;
    let Some(base) = directory.renewal_info else {
        return Ok(None);
    };
    let url = format!("{base}/{}.{}", id.authority, id.serial);
    let url = url.parse::<HttpUrl>().ok().filter(|url| url.is_tls);
    let url =
        url.ok_or_else(|| Failure::new(FailureKind::Malformed, format!("renewalInfo {base} is no URL")))?;
    let answered = transport.get(&url).await.map_err(failed)?;
    if !answered.status.is_success() {
        let text = format!("renewalInfo: {}", answered.status);
        return Err(Failure::new(FailureKind::Refused, text).after(transport.rest()));
    }
    let believed = retry_after(&answered.headers, SystemTime::now());
    advice(&answered.body, believed).map(Some)
}

/// Reads what a CA says.
///
/// # Errors
/// It is no advice.
fn advice(body: &[u8], believed: Option<Duration>) -> Result<Advice, Failure> {
    let info: RenewalInfo = serde_json::from_slice(body).map_err(malformed)?;
    let time = |text: &str| {
        let read = text.parse::<jiff::Timestamp>().and_then(SystemTime::try_from);
        read.map_err(|error| Failure::new(FailureKind::Malformed, format!("renewalInfo: {error}")))
    };
    let (start, end) = (
        time(&info.suggested_window.start)?,
        time(&info.suggested_window.end)?,
    );
    if end <= start {
        return Err(Failure::new(
            FailureKind::Malformed,
            "renewalInfo: the window ends before it begins",
        ));
    }
    Ok(Advice {
        start,
        end,
        believed: believed.unwrap_or(BELIEVED).clamp(SHORTEST, LONGEST),
        page: info.explanation_url,
    })
}

#[expect(clippy::needless_pass_by_value, reason = "map_err hands it over")]
fn malformed(error: serde_json::Error) -> Failure {
    Failure::new(
        FailureKind::Malformed,
        format!("what the CA says is not ACME: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 9773, section 4.2.
    const ANSWER: &str = r#"{"suggestedWindow": {"start": "2025-01-02T04:00:00Z", "end": "2025-01-03T04:00:00Z"},
        "explanationURL": "https://acme.example.com/docs/ari"}"#;

    #[test]
    fn an_advice_is_a_window_and_how_long_it_is_believed() {
        let read = advice(ANSWER.as_bytes(), Some(Duration::from_secs(21_600))).unwrap();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!((read.start, read.end), (at(1_735_790_400), at(1_735_876_800)));
        assert_eq!(read.believed, Duration::from_secs(21_600));
        assert_eq!(read.page.as_deref(), Some("https://acme.example.com/docs/ari"));
        assert_eq!(
            advice(ANSWER.as_bytes(), Some(Duration::ZERO)).unwrap().believed,
            SHORTEST
        );
        assert_eq!(advice(ANSWER.as_bytes(), None).unwrap().believed, BELIEVED);
        let turned = ANSWER.replace("2025-01-03", "2025-01-01");
        for wrong in ["", "{}", "[]", &turned] {
            assert_eq!(
                advice(wrong.as_bytes(), None).unwrap_err().kind,
                FailureKind::Malformed
            );
        }
    }
}
