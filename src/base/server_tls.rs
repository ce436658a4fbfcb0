//! TLS to servers, as logs, counters and health checks know it.

use super::by_label;

/// Why a handshake with a server has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServerTlsFailure {
    /// What the server sends is not TLS.
    NotTls,
    /// It has no version, cipher or group that we have.
    Incompatible,
    /// It has none of the protocols of `alpn`.
    Alpn,
    /// Its certificate has expired, or is not yet valid.
    CertificateExpired,
    /// Its certificate is for another name than `server_name`.
    CertificateName,
    /// Its certificate is signed by no CA that is trusted, and not pinned.
    CertificateUnknownCa,
    /// Another fault of its certificate.
    CertificateBad,
    /// It wants a certificate of ours, or another one.
    OurCertificate,
    /// It has ended the handshake with another alert.
    ServerAlert,
    /// It breaks the protocol.
    Protocol,
    /// It has closed or reset the connection before the handshake was complete.
    Closed,
    /// The handshake was not complete within `connect_timeout`, or the time of a check.
    TimedOut,
    /// A fault of our own.
    Internal,
}

impl ServerTlsFailure {
    /// Every failure.
    pub const ALL: [Self; 13] = [
        Self::NotTls,
        Self::Incompatible,
        Self::Alpn,
        Self::CertificateExpired,
        Self::CertificateName,
        Self::CertificateUnknownCa,
        Self::CertificateBad,
        Self::OurCertificate,
        Self::ServerAlert,
        Self::Protocol,
        Self::Closed,
        Self::TimedOut,
        Self::Internal,
    ];

    /// The label in metrics, the API and structured logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::Incompatible => "incompatible",
            Self::Alpn => "alpn",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateName => "certificate_name",
            Self::CertificateUnknownCa => "certificate_unknown_ca",
            Self::CertificateBad => "certificate_bad",
            Self::OurCertificate => "our_certificate",
            Self::ServerAlert => "server_alert",
            Self::Protocol => "protocol",
            Self::Closed => "closed",
            Self::TimedOut => "timeout",
            Self::Internal => "internal",
        }
    }

    /// What went wrong, and what to do if there is anything, in one line.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::NotTls => "the server does not speak TLS on this port",
            Self::Incompatible => "the server has no version, cipher or group of TLS 1.2 or 1.3 that is safe",
            Self::Alpn => "the server speaks none of the protocols that alpn offers",
            Self::CertificateExpired => "the server's certificate has expired, or is not yet valid",
            Self::CertificateName => {
                "the server's certificate is for another name or address; set server_name to one that it has"
            }
            Self::CertificateUnknownCa => {
                "no trusted CA has signed the server's certificate; set ca to its CA, or to the certificate itself"
            }
            Self::CertificateBad => {
                "the server's certificate has another fault: a wrong signature, use or form; one that is marked as a CA's \
                 must be in ca itself"
            }
            Self::OurCertificate => {
                "the server wants a certificate of convey's, or another one; set cert and key"
            }
            Self::ServerAlert => {
                "the server ended the handshake with an alert; often it does not know the server_name"
            }
            Self::Protocol => "the server broke the protocol",
            Self::Closed => "the server closed the connection before the handshake was complete",
            Self::TimedOut => "the server did not complete the handshake in time",
            Self::Internal => "an error in convey itself; please report it",
        }
    }

    /// Whether the server is to blame, not Convey itself.
    #[must_use]
    pub const fn is_servers_fault(self) -> bool {
        !matches!(self, Self::Internal)
    }
}

by_label!(ServerTlsFailure, ServerTlsFailure::ALL);

/// A TLS session with a server as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTlsRecord {
    /// Its version, such as `TLSv1.3`.
    pub version: &'static str,
    /// The suite, by its IANA name.
    pub cipher: &'static str,
    /// The group of its key exchange.
    pub group: Option<&'static str>,
    /// The protocol that the server has chosen.
    pub alpn: Option<Box<str>>,
    /// Whether it goes on with an earlier one.
    pub resumed: bool,
}
