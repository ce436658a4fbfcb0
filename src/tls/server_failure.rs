//! Why a handshake with a server has failed, told from what rustls says.

use rustls::{AlertDescription, CertificateError, CommonState, Error, InvalidMessage};

use crate::base::ServerTlsFailure;

/// The failure that an error of rustls stands for. With TLS 1.3 a server refuses our certificate only after the
/// handshake, so that the alert comes in place of its first data.
#[must_use]
pub const fn server_failure(error: &Error) -> ServerTlsFailure {
    match error {
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType
            | InvalidMessage::UnknownProtocolVersion
            | InvalidMessage::InvalidEmptyPayload
            | InvalidMessage::MessageTooLarge,
        ) => ServerTlsFailure::NotTls,
        Error::PeerIncompatible(_) => ServerTlsFailure::Incompatible,
        Error::NoApplicationProtocol => ServerTlsFailure::Alpn,
        Error::InvalidCertificate(why) => of_certificate(why),
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_)
        | Error::DecryptError
        | Error::PeerSentOversizedRecord => ServerTlsFailure::Protocol,
        _ => ServerTlsFailure::Internal,
    }
}

/// As [`server_failure`], of a connection whose handshake it has ended: some servers that get no certificate from us say the same
/// as those that cannot agree on anything, but only once a cipher is agreed on.
#[must_use]
pub fn handshake_failure(connection: &CommonState, error: &Error) -> ServerTlsFailure {
    match (server_failure(error), error) {
        (ServerTlsFailure::Incompatible, Error::AlertReceived(_))
            if connection.negotiated_cipher_suite().is_some() =>
        {
            ServerTlsFailure::OurCertificate
        }
        (why, _) => why,
    }
}

const fn of_certificate(why: &CertificateError) -> ServerTlsFailure {
    match why {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => ServerTlsFailure::CertificateExpired,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            ServerTlsFailure::CertificateName
        }
        CertificateError::UnknownIssuer => ServerTlsFailure::CertificateUnknownCa,
        _ => ServerTlsFailure::CertificateBad,
    }
}

const fn of_alert(alert: AlertDescription) -> ServerTlsFailure {
    match alert {
        AlertDescription::ProtocolVersion
        | AlertDescription::HandshakeFailure
        | AlertDescription::InsufficientSecurity => ServerTlsFailure::Incompatible,
        AlertDescription::NoApplicationProtocol => ServerTlsFailure::Alpn,
        AlertDescription::CertificateRequired
        | AlertDescription::NoCertificate
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA => ServerTlsFailure::OurCertificate,
        _ => ServerTlsFailure::ServerAlert,
    }
}
