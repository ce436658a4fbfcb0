//! Why a handshake with a server has failed, in words for the log and for health checks.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use crate::base::by_label;

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
    /// A fault of our own.
    Internal,
}

impl ServerTlsFailure {
    /// Every failure.
    pub const ALL: [Self; 11] = [
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
            Self::Internal => "internal",
        }
    }

    /// The failure that an error of rustls stands for. With TLS 1.3 a server refuses our certificate only after the
    /// handshake, so that the alert comes in place of its first data.
    #[must_use]
    pub const fn of(error: &Error) -> Self {
        match error {
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::InvalidEmptyPayload
                | InvalidMessage::MessageTooLarge,
            ) => Self::NotTls,
            Error::PeerIncompatible(_) => Self::Incompatible,
            Error::NoApplicationProtocol => Self::Alpn,
            Error::InvalidCertificate(why) => Self::of_certificate(why),
            Error::AlertReceived(alert) => Self::of_alert(*alert),
            Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::PeerMisbehaved(_)
            | Error::DecryptError
            | Error::PeerSentOversizedRecord => Self::Protocol,
            _ => Self::Internal,
        }
    }

    const fn of_certificate(why: &CertificateError) -> Self {
        match why {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::CertificateExpired,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::CertificateName
            }
            CertificateError::UnknownIssuer => Self::CertificateUnknownCa,
            _ => Self::CertificateBad,
        }
    }

    const fn of_alert(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::ProtocolVersion
            | AlertDescription::HandshakeFailure
            | AlertDescription::InsufficientSecurity => Self::Incompatible,
            AlertDescription::NoApplicationProtocol => Self::Alpn,
            AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA => Self::OurCertificate,
            _ => Self::ServerAlert,
        }
    }
}

by_label!(ServerTlsFailure, ServerTlsFailure::ALL);
