//! What a handshake has agreed on, and why one has failed, in words for the log.

use rustls::{
    AlertDescription, CertificateError, CommonState, Error, HandshakeKind, InvalidMessage, PeerIncompatible,
    ProtocolVersion, ServerConnection,
};

use super::{provider, x509::Identity};
use crate::{
    base::by_label,
    config::{CipherSuite, Group, TlsVersion},
};

/// What client and frontend have agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The version.
    pub version: TlsVersion,
    /// The suite.
    pub cipher: CipherSuite,
    /// The group of the key exchange; `None` where TLS 1.2 has resumed a session without one.
    pub group: Option<Group>,
    /// The name that the client has asked for, in lower case.
    pub sni: Option<Box<str>>,
    /// The protocol of `alpn` that both have; what is no text is shown as far as it is.
    pub alpn: Option<Box<str>>,
    /// Whether it goes on with an earlier session.
    pub resumed: bool,
    /// Whom the client's certificate is about, if it has shown one; also of a resumed session.
    pub client: Option<Identity>,
}

impl Session {
    /// Reads it from a connection; `None` before the handshake is complete.
    #[must_use]
    pub fn of(connection: &ServerConnection) -> Option<Self> {
        let agreed = ServerSession::of(connection)?;
        let client = connection.peer_certificates().and_then(<[_]>::first);
        Some(Self {
            version: agreed.version,
            cipher: agreed.cipher,
            group: agreed.group,
            sni: connection.server_name().map(Into::into),
            alpn: agreed.alpn,
            resumed: agreed.resumed,
            client: client.map(|certificate| Identity::read(certificate)),
        })
    }
}

/// What a server and we have agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSession {
    /// The version.
    pub version: TlsVersion,
    /// The suite.
    pub cipher: CipherSuite,
    /// The group of the key exchange; `None` where TLS 1.2 has resumed a session without one.
    pub group: Option<Group>,
    /// The protocol that it has chosen; what is no text is shown as far as it is.
    pub alpn: Option<Box<str>>,
    /// Whether it goes on with an earlier session.
    pub resumed: bool,
}

impl ServerSession {
    /// Reads it from a connection to a server, or as a client sees it; `None` before the handshake is complete.
    #[must_use]
    pub fn of(connection: &CommonState) -> Option<Self> {
        if connection.is_handshaking() {
            return None;
        }
        let version = match connection.protocol_version()? {
            ProtocolVersion::TLSv1_2 => TlsVersion::Tls12,
            ProtocolVersion::TLSv1_3 => TlsVersion::Tls13,
            _ => return None,
        };
        let group = connection.negotiated_key_exchange_group();
        let alpn = connection.alpn_protocol();
        Some(Self {
            version,
            cipher: provider::own_suite(connection.negotiated_cipher_suite()?.suite())?,
            group: group.and_then(|group| provider::own_group(group.name())),
            alpn: alpn.map(|name| String::from_utf8_lossy(name).into()),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        })
    }
}

/// Why a handshake has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HandshakeFailure {
    /// What the client sends is not TLS.
    NotTls,
    /// It speaks none of the versions of `min_version` to `max_version`.
    Version,
    /// It has none of the `ciphers`, or no signature that a certificate can make.
    Cipher,
    /// It has none of the `groups`.
    Group,
    /// It offers none of the protocols of `alpn`.
    Alpn,
    /// No certificate is for the name that it asks for.
    NoCertificate,
    /// It shows no certificate.
    ClientCertificateMissing,
    /// Its certificate has expired, or is not yet valid.
    ClientCertificateExpired,
    /// Its certificate is revoked.
    ClientCertificateRevoked,
    /// No revocation list says whether its certificate is revoked.
    ClientCertificateUnlisted,
    /// Its certificate is signed by none of `client_ca`.
    ClientCertificateUnknownCa,
    /// Another fault of its certificate.
    ClientCertificateBad,
    /// The client has ended it with an alert: it does not trust our certificate, for one.
    ClientAlert,
    /// It breaks the protocol.
    Protocol,
    /// A fault of our own.
    Internal,
}

impl HandshakeFailure {
    /// Every failure.
    pub const ALL: [Self; 15] = [
        Self::NotTls,
        Self::Version,
        Self::Cipher,
        Self::Group,
        Self::Alpn,
        Self::NoCertificate,
        Self::ClientCertificateMissing,
        Self::ClientCertificateExpired,
        Self::ClientCertificateRevoked,
        Self::ClientCertificateUnlisted,
        Self::ClientCertificateUnknownCa,
        Self::ClientCertificateBad,
        Self::ClientAlert,
        Self::Protocol,
        Self::Internal,
    ];

    /// The label in metrics, the API and structured logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::Version => "version",
            Self::Cipher => "cipher",
            Self::Group => "group",
            Self::Alpn => "alpn",
            Self::NoCertificate => "no_certificate",
            Self::ClientCertificateMissing => "client_certificate_missing",
            Self::ClientCertificateExpired => "client_certificate_expired",
            Self::ClientCertificateRevoked => "client_certificate_revoked",
            Self::ClientCertificateUnlisted => "client_certificate_unlisted",
            Self::ClientCertificateUnknownCa => "client_certificate_unknown_ca",
            Self::ClientCertificateBad => "client_certificate_bad",
            Self::ClientAlert => "client_alert",
            Self::Protocol => "protocol",
            Self::Internal => "internal",
        }
    }

    /// What went wrong, and what to do if there is anything, in one line.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::NotTls => "what the client sent is no TLS",
            Self::Version => "it speaks no version between min_version and max_version",
            Self::Cipher => {
                "it has none of ciphers, or cannot verify the kinds of keys that the certificates have"
            }
            Self::Group => "it has none of groups",
            Self::Alpn => "it offers protocols, and none of alpn",
            Self::NoCertificate => {
                "no certificate is for the name that it asks for: strict_sni is on, or the one that is ordered (acme) is not there yet"
            }
            Self::ClientCertificateMissing => "it shows no certificate, and client_auth is \"required\"",
            Self::ClientCertificateExpired => "its certificate has expired, or is not yet valid",
            Self::ClientCertificateRevoked => "its certificate is revoked by client_crl",
            Self::ClientCertificateUnlisted => {
                "client_crl has no list of the certificate's issuer, or one that is out of date; get it, or set \
                 client_crl_policy = \"listed\""
            }
            Self::ClientCertificateUnknownCa => "its certificate is signed by none of client_ca",
            Self::ClientCertificateBad => "its certificate has another fault: a wrong signature, use or form",
            Self::ClientAlert => "the client ended it with an alert; often it does not trust the certificate",
            Self::Protocol => "it broke the protocol",
            Self::Internal => "an error in convey itself; please report it",
        }
    }

    /// The failure that an error of rustls stands for.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        match error {
            Error::InvalidMessage(why) => Self::of_message(*why),
            Error::PeerIncompatible(why) => Self::of_peer(why),
            Error::NoApplicationProtocol => Self::Alpn,
            Error::NoCertificatesPresented => Self::ClientCertificateMissing,
            Error::InvalidCertificate(why) => Self::of_certificate(why),
            Error::AlertReceived(AlertDescription::ProtocolVersion) => Self::Version,
            Error::AlertReceived(_) => Self::ClientAlert,
            Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::PeerMisbehaved(_)
            | Error::DecryptError
            | Error::PeerSentOversizedRecord => Self::Protocol,
            // what rustls says when the resolver has none
            Error::General(text) if text.contains("no server certificate chain resolved") => {
                Self::NoCertificate
            }
            _ => Self::Internal,
        }
    }

    const fn of_message(why: InvalidMessage) -> Self {
        match why {
            InvalidMessage::InvalidContentType
            | InvalidMessage::UnknownProtocolVersion
            | InvalidMessage::InvalidEmptyPayload
            | InvalidMessage::MessageTooLarge => Self::NotTls,
            _ => Self::Protocol,
        }
    }

    const fn of_peer(why: &PeerIncompatible) -> Self {
        match why {
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired
            // every client of TLS 1.2 sends it
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired => Self::Version,
            PeerIncompatible::NoKxGroupsInCommon
            | PeerIncompatible::NamedGroupsExtensionRequired
            | PeerIncompatible::KeyShareExtensionRequired => Self::Group,
            PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => Self::ClientCertificateBad,
            _ => Self::Cipher,
        }
    }

    const fn of_certificate(why: &CertificateError) -> Self {
        match why {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::ClientCertificateExpired,
            CertificateError::Revoked => Self::ClientCertificateRevoked,
            CertificateError::UnknownRevocationStatus
            | CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => Self::ClientCertificateUnlisted,
            CertificateError::UnknownIssuer => Self::ClientCertificateUnknownCa,
            _ => Self::ClientCertificateBad,
        }
    }
}

by_label!(HandshakeFailure, HandshakeFailure::ALL);
