//! The sections that are about TLS.

use super::{
    HOUR,
    access::FilePath,
    acme::OrderedCertificate,
    fields::{Int, Time},
    process::DirectoryPath,
    routing::AlpnNames,
    section::section,
    tls::{Certificates, Ciphers, FilePaths, Groups, ServerAlpn, ServerNameFrom},
};
use crate::config::tls_names::{ClientAuth, CrlPolicy, TlsVersion};

section! {
    /// TLS that ends at the frontend. Routes go by what was negotiated: the name that the client asked for, and the protocol that was agreed on. Certificates are read again when their files change, and at each reload; established connections keep theirs.
    FrontendTls {
        /// Certificates, each { cert, key, ocsp }; the first is the default. A client gets one that has the name it asks for, with an RSA or an ECDSA key as it can. This, certificate_dir or acme is needed here or in [defaults.tls].
        certificates: Certificates,
        /// Directory of certificates: each NAME.pem or NAME.crt, with its key inside or in NAME.key, and NAME.ocsp if there is one; hidden files, directories and other suffixes are left alone. They come after `certificates`, in the order of their names, the first being the default. What is added, changed or removed takes effect by itself.
        certificate_dir: DirectoryPath,
        /// A certificate that is ordered from the CA of [acme], and renewed: acme = { names = ["www.example.com"] }. It comes after the others; until it is there, clients get one of them, or none.
        acme: OrderedCertificate,
        /// Oldest version of TLS: "1.2" (default) or "1.3". Older ones are not supported.
        min_version: TlsVersion,
        /// Newest version of TLS: "1.2" or "1.3" (default).
        max_version: TlsVersion,
        /// Cipher suites by their names of IANA or OpenSSL; a version of which the list has none keeps all of its suites. Default: all nine, which are AES-GCM and ChaCha20-Poly1305.
        ciphers: Ciphers,
        /// Groups for the exchange of keys by their names of IANA or OpenSSL, the preferred one first. Default: X25519MLKEM768, x25519, secp256r1, secp384r1.
        groups: Groups,
        /// Protocols to agree on with the client (ALPN), the preferred one first; a client that offers only others is refused. Default: none, any offer is ignored.
        alpn: AlpnNames,
        /// Refuse clients that ask for a name that no certificate has, or for none. Default: false, they get the default certificate.
        strict_sni: bool,
        /// Certificates of clients: "none" (default), "optional" (a wrong one is refused) or "required".
        client_auth: ClientAuth,
        /// PEM file of the CAs that sign clients' certificates; needed with client_auth.
        client_ca: FilePath,
        /// PEM file of revoked certificates of clients (CRL), or a list of files.
        client_crl: FilePaths,
        /// What client_crl must say: "complete" (default) refuses a certificate of whose issuer there is no list, or one that is out of date (nextUpdate), as HAProxy and nginx do; "listed" refuses only what is listed, also by an old list.
        client_crl_policy: CrlPolicy,
        /// Clients keep their sessions themselves, as encrypted tickets. false: sessions are kept here, and end with a restart. Default: true.
        tickets: bool,
        /// Write the secrets of every connection to tls-keys.log in state_dir (mode 0600, at most 64 MiB), as SSLKEYLOGFILE does elsewhere, so that Wireshark can read captured traffic. Who has the file reads the connections: for looking into a fault, and no longer. Default: false.
        key_log: bool,
        /// How long a handshake may take. Default: "10s".
        handshake_timeout: Time<false, HOUR>,
        /// Maximum number of handshakes under way; more connections are reset. Default: 1000.
        max_handshakes: Int<1, 1_000_000>,
    }
}

section! {
    /// TLS to the servers of a backend. A handshake that fails is a failed connect: another server is tried. Files are read again when they change, and at each reload; established connections keep theirs.
    BackendTls {
        /// Refuse servers whose certificate nobody vouches for, or that is for another name. false believes anybody. Default: true.
        verify: bool,
        /// PEM file of the CAs that sign the servers' certificates, or of the certificates themselves, which are then accepted whatever their names. Default: the CAs of the host, of Debian's package ca-certificates.
        ca: FilePath,
        /// The name that servers are asked for (SNI) and that their certificates must have: a host name, "server" for the server's name in this file, or "client" for the name that the client asks for. "address" (default) asks for none: the certificate must have the server's IP address. A host that is called as one of the words is written with a dot at its end.
        server_name: ServerNameFrom,
        /// The certificate that a server is shown that asks for one, and its chain; the private key, too, unless `key` names another file. Default: none.
        cert: FilePath,
        /// The private key of the certificate, unencrypted. Default: it is in cert.
        key: FilePath,
        /// Protocols to offer to servers (ALPN), such as "h2" or "http/1.1", or a list of them; "client" (default) offers the one that the frontend has agreed on with the client, "off" none.
        alpn: ServerAlpn,
    }
}
