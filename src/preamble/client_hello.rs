//! What a ClientHello says (RFC 8446, section 4.1.2; RFC 5246, section 7.4.1.2).

use super::cursor::Cursor;
use HelloRefusal::Malformed;

/// Longest host name in bytes (RFC 1035, section 2.3.4).
pub const MAX_HOST_NAME_BYTES: usize = 255;

const MAX_SESSION_ID_BYTES: usize = 32;

/// Types of extensions (RFC 6066, RFC 7301, RFC 8446, RFC 9849).
const SERVER_NAME: u16 = 0;
const APPLICATION_PROTOCOLS: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// The type of a host name in a list of server names, the only one there is.
const HOST_NAME: u8 = 0;

/// What a client asks for. Keeps 64 KiB at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The host name, in lower case and without a dot at its end, of 1 to [`MAX_HOST_NAME_BYTES`] visible ASCII
    /// characters. An IP address, which RFC 6066 forbids, is a name like any other. Where the ClientHello is encrypted it
    /// is the outer one.
    pub sni: Option<Box<str>>,
    /// The application protocols.
    pub alpn: Alpn,
    /// The highest version of those that are known, as on the wire: 0x0304 is TLS 1.3.
    pub highest_version: u16,
    /// Whether there is an encrypted ClientHello in it, or something that looks like one.
    pub has_ech: bool,
}

/// The application protocols that a client offers, the one that it likes best first.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Alpn(
    /// Each after a byte with its length, which is not zero: thousands of them take no more than they do on the wire.
    Box<[u8]>,
);

/// Why what a client sends is no ClientHello that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HelloRefusal {
    /// It begins with something else.
    #[error("it does not begin with a ClientHello")]
    NotTls,
    /// It is longer than [`MAX_HELLO_MESSAGE_BYTES`](super::MAX_HELLO_MESSAGE_BYTES), or takes more than
    /// [`MAX_HELLO_BYTES`](super::MAX_HELLO_BYTES) with the headers of its records.
    #[error("its ClientHello is too long")]
    TooLong,
    /// It breaks a rule of TLS: which one.
    #[error("its ClientHello is malformed: {0}")]
    Malformed(&'static str),
}

const TRUNCATED: HelloRefusal = Malformed("a length in it does not fit");

impl ClientHello {
    /// Reads the message without its type and length.
    pub(super) fn parse(body: &[u8]) -> Result<Self, HelloRefusal> {
        let mut fields = Cursor::new(body);
        let legacy_version = fields.u16().ok_or(TRUNCATED)?;
        let _random: [u8; 32] = fields.array().ok_or(TRUNCATED)?;
        let session_id = fields.block8().ok_or(TRUNCATED)?;
        let cipher_suites = fields.block16().ok_or(TRUNCATED)?;
        let compression_methods = fields.block8().ok_or(TRUNCATED)?;
        if session_id.len() > MAX_SESSION_ID_BYTES {
            return Err(Malformed("its session id is longer than 32 bytes"));
        }
        if cipher_suites.is_empty() || cipher_suites.len() % 2 != 0 {
            return Err(Malformed("its list of cipher suites is not valid"));
        }
        if compression_methods.is_empty() {
            return Err(Malformed("it has no compression method"));
        }
        let mut hello = Self {
            sni: None,
            alpn: Alpn::default(),
            highest_version: legacy_version,
            has_ech: false,
        };
        // before TLS 1.3 they may be left out
        if !fields.is_empty() {
            hello.read_extensions(fields.block16().ok_or(TRUNCATED)?)?;
        }
        if !fields.is_empty() {
            return Err(Malformed("there are bytes after its extensions"));
        }
        Ok(hello)
    }

    fn read_extensions(&mut self, extensions: &[u8]) -> Result<(), HelloRefusal> {
        let mut extensions = Cursor::new(extensions);
        let mut kinds = Vec::new();
        while !extensions.is_empty() {
            let kind = extensions.u16().ok_or(TRUNCATED)?;
            let data = extensions.block16().ok_or(TRUNCATED)?;
            kinds.push(kind);
            match kind {
                SERVER_NAME => self.sni = host_name(data)?,
                APPLICATION_PROTOCOLS => self.alpn = Alpn::parse(data)?,
                SUPPORTED_VERSIONS => {
                    self.highest_version = highest_version(data)?.unwrap_or(self.highest_version);
                }
                ENCRYPTED_CLIENT_HELLO => self.has_ech = true,
                _ => {}
            }
        }
        kinds.sort_unstable();
        match kinds.windows(2).any(|two| two[0] == two[1]) {
            true => Err(Malformed("it has two extensions of one type")),
            false => Ok(()),
        }
    }
}

/// The host name of a list of server names (RFC 6066, section 3).
fn host_name(data: &[u8]) -> Result<Option<Box<str>>, HelloRefusal> {
    let mut names = list16(data, "its list of server names is not valid")?;
    let mut found = None;
    while !names.is_empty() {
        let kind = names.u8().ok_or(TRUNCATED)?;
        // names of other types have a length before them, too
        let name = names.block16().ok_or(TRUNCATED)?;
        if kind == HOST_NAME && found.replace(name).is_some() {
            return Err(Malformed("it names two hosts"));
        }
    }
    found.map(canonical).transpose()
}

/// A host name in lower case, without a dot at its end.
fn canonical(name: &[u8]) -> Result<Box<str>, HelloRefusal> {
    if name.len() > MAX_HOST_NAME_BYTES {
        return Err(Malformed("its host name is longer than 255 bytes"));
    }
    let name = name.strip_suffix(b".").unwrap_or(name);
    if name.is_empty() || name.ends_with(b".") {
        return Err(Malformed("its host name is empty"));
    }
    match str::from_utf8(name) {
        Ok(name) if name.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(name.to_ascii_lowercase().into()),
        _ => Err(Malformed("its host name has characters that no host name has")),
    }
}

/// The highest version of a list that belongs to SSL or TLS; others are drafts, and GREASE (RFC 8701).
fn highest_version(data: &[u8]) -> Result<Option<u16>, HelloRefusal> {
    const WRONG: HelloRefusal = Malformed("its list of versions is not valid");
    let mut fields = Cursor::new(data);
    let mut versions = Cursor::new(fields.block8().ok_or(WRONG)?);
    if !fields.is_empty() || versions.is_empty() {
        return Err(WRONG);
    }
    let mut highest = None;
    while !versions.is_empty() {
        let version = versions.u16().ok_or(WRONG)?;
        if version >> 8 == 3 {
            highest = highest.max(Some(version));
        }
    }
    Ok(highest)
}

/// A list that fills an extension and is not empty.
fn list16<'a>(data: &'a [u8], wrong: &'static str) -> Result<Cursor<'a>, HelloRefusal> {
    let mut fields = Cursor::new(data);
    match fields.block16() {
        Some(list) if !list.is_empty() && fields.is_empty() => Ok(Cursor::new(list)),
        _ => Err(Malformed(wrong)),
    }
}

impl Alpn {
    /// The protocols, the one that the client likes best first.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut names = Cursor::new(&self.0);
        std::iter::from_fn(move || names.block8())
    }

    /// Whether a protocol is among them.
    #[must_use]
    pub fn offers(&self, protocol: &[u8]) -> bool {
        self.iter().any(|offered| offered == protocol)
    }

    /// Whether the client offers none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the extension (RFC 7301, section 3.1).
    fn parse(data: &[u8]) -> Result<Self, HelloRefusal> {
        const WRONG: &str = "its list of application protocols is not valid";
        let list = list16(data, WRONG)?;
        let mut names = list;
        while !names.is_empty() {
            if names.block8().is_none_or(<[u8]>::is_empty) {
                return Err(Malformed(WRONG));
            }
        }
        Ok(Self(list.rest().into()))
    }
}

impl<'a> FromIterator<&'a str> for Alpn {
    /// Those of 1 to 255 bytes.
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        let mut list = Vec::new();
        for name in names {
            if let Some(length) = u8::try_from(name.len()).ok().filter(|length| *length > 0) {
                list.push(length);
                list.extend(name.as_bytes());
            }
        }
        Self(list.into())
    }
}

impl std::fmt::Debug for Alpn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.iter().map(|name| name.escape_ascii().to_string());
        f.debug_list().entries(names).finish()
    }
}
