//! What real clients send first, recorded on loopback from a socket that only listens. `tests/fuzz` begins its search with
//! the same files.

/// A recorded client, and what it asks for.
pub(super) struct Client {
    pub(super) name: &'static str,
    pub(super) bytes: &'static [u8],
    pub(super) sni: Option<&'static str>,
    pub(super) alpn: &'static [&'static [u8]],
    pub(super) version: u16,
    pub(super) has_ech: bool,
}

macro_rules! recorded {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/fuzz/seeds/hello/", $name))
    };
}

pub(super) const CLIENTS: &[Client] = &[
    // OpenSSL 3.0.19: openssl s_client -connect ADDRESS -servername www.example.com -alpn h2,http/1.1
    Client {
        name: "openssl",
        bytes: recorded!("openssl"),
        sni: Some("www.example.com"),
        alpn: &[b"h2", b"http/1.1"],
        version: 0x0304,
        has_ech: false,
    },
    // the same with -noservername -tls1_2
    Client {
        name: "openssl_tls12_no_name",
        bytes: recorded!("openssl_tls12_no_name"),
        sni: None,
        alpn: &[],
        version: 0x0303,
        has_ech: false,
    },
    // curl 7.88.1: curl -sk --connect-to web.example.org:443:ADDRESS https://web.example.org/
    Client {
        name: "curl",
        bytes: recorded!("curl"),
        sni: Some("web.example.org"),
        alpn: &[b"h2", b"http/1.1"],
        version: 0x0304,
        has_ech: false,
    },
    // curl -sk https://ADDRESS/, which names no host
    Client {
        name: "curl_address",
        bytes: recorded!("curl_address"),
        sni: None,
        alpn: &[b"h2", b"http/1.1"],
        version: 0x0304,
        has_ech: false,
    },
    // Python 3's ssl module: wrap_socket(…, server_hostname="Py.Example.NET")
    Client {
        name: "python",
        bytes: recorded!("python"),
        sni: Some("py.example.net"),
        alpn: &[],
        version: 0x0304,
        has_ech: false,
    },
    // Chrome 152 as curl_cffi 0.17.0 imitates it with BoringSSL: GREASE, X25519MLKEM768, an encrypted ClientHello for show
    Client {
        name: "chrome",
        bytes: recorded!("chrome"),
        sni: Some("www.example.com"),
        alpn: &[b"h2", b"http/1.1"],
        version: 0x0304,
        has_ech: true,
    },
    // Firefox 155, likewise
    Client {
        name: "firefox",
        bytes: recorded!("firefox"),
        sni: Some("www.example.com"),
        alpn: &[b"h2", b"http/1.1"],
        version: 0x0304,
        has_ech: true,
    },
];
