//! What version 2 says besides addresses: values, each with its type and its length before it (sections 2.2.1 to 2.2.8).

use std::ops::Range;

use crate::preamble::cursor::Cursor;

const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;
const SSL_SIG_ALG: u8 = 0x24;
const SSL_KEY_ALG: u8 = 0x25;

/// Bits of the first byte of `SSL`.
const CLIENT_SSL: u8 = 1;
const CLIENT_CERT_CONN: u8 = 2;
const CLIENT_CERT_SESS: u8 = 4;

/// [`Ssl::verify`] of a client without a certificate that has been verified.
pub const UNVERIFIED: u32 = 1;

/// What a header of version 2 says besides addresses. Of two values of one type the first counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tlvs {
    /// The host name that the client asks for, as it has sent it.
    pub authority: Option<Text<255>>,
    /// The application protocol. A longer value is ignored.
    pub alpn: Option<Bytes<255>>,
    /// What the connection is called in the logs of several proxies.
    pub unique_id: Option<Bytes<128>>,
    /// TLS between the client and the first proxy.
    pub ssl: Option<Ssl>,
}

/// TLS between a client and a proxy. Longer texts are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ssl {
    /// Whether the client speaks TLS.
    pub is_tls: bool,
    /// Whether the client has shown a certificate in this connection.
    pub certificate_in_connection: bool,
    /// Whether it has shown one in this TLS session, which may be older.
    pub certificate_in_session: bool,
    /// 0 if it has shown one that is valid; else another number, such as [`UNVERIFIED`].
    pub verify: u32,
    /// TLS version, such as `TLSv1.3`.
    pub version: Option<Text<255>>,
    /// Common name of the client's certificate.
    pub common_name: Option<Text<255>>,
    /// Name of the cipher suite.
    pub cipher: Option<Text<255>>,
    /// What the proxy's certificate was signed with, such as `RSA-SHA256`.
    pub signature_algorithm: Option<Text<255>>,
    /// What key the proxy's certificate has, such as `RSA2048`.
    pub key_algorithm: Option<Text<255>>,
}

/// A value of 1 to `MAX` bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bytes<const MAX: usize>(Box<[u8]>);

/// A value of 1 to `MAX` bytes of UTF-8 without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text<const MAX: usize>(Box<str>);

/// A checksum in a header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checksum {
    pub(super) value: u32,
    /// How much of the header comes after its four bytes.
    pub(super) bytes_after: usize,
}

impl<const MAX: usize> Bytes<MAX> {
    /// The value; `None` if it is empty or too long.
    #[must_use]
    pub fn new(value: &[u8]) -> Option<Self> {
        (1..=MAX).contains(&value.len()).then(|| Self(value.into()))
    }

    /// The value.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> Text<MAX> {
    /// The text, with a question mark for each control character and for what is no UTF-8 (a certificate may name anything);
    /// `None` if it is empty or too long.
    #[must_use]
    pub fn new(value: &[u8]) -> Option<Self> {
        if !(1..=MAX).contains(&value.len()) {
            return None;
        }
        let mut text = String::with_capacity(value.len());
        for chunk in value.utf8_chunks() {
            text.extend(
                chunk
                    .valid()
                    .chars()
                    .map(|c| if c.is_control() { '?' } else { c }),
            );
            if !chunk.invalid().is_empty() {
                text.push('?');
            }
        }
        Some(Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Tlvs {
    /// Reads what is left of a header; the error says what is wrong with it.
    pub(super) fn read(mut block: Cursor<'_>) -> Result<(Self, Option<Checksum>), &'static str> {
        let (mut tlvs, mut checksum) = (Self::default(), None);
        while !block.is_empty() {
            let (kind, value) = next(&mut block)?;
            match kind {
                AUTHORITY if value.len() > 255 => return Err("its host name is longer than 255 bytes"),
                AUTHORITY => keep(&mut tlvs.authority, Text::new(value)),
                ALPN => keep(&mut tlvs.alpn, Bytes::new(value)),
                UNIQUE_ID if value.len() > 128 => return Err("its unique id is longer than 128 bytes"),
                UNIQUE_ID => keep(&mut tlvs.unique_id, Bytes::new(value)),
                SSL => keep(&mut tlvs.ssl, Some(Ssl::read(value)?)),
                CRC32C => {
                    let value = value.try_into().map_err(|_| "its checksum has not 4 bytes")?;
                    let found = Checksum {
                        value: u32::from_be_bytes(value),
                        bytes_after: block.rest().len(),
                    };
                    if checksum.replace(found).is_some() {
                        return Err("it has two checksums");
                    }
                }
                // NOOP, NETNS, those of applications, and of times to come
                _ => {}
            }
        }
        Ok((tlvs, checksum))
    }

    /// Writes the values.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        put(
            out,
            AUTHORITY,
            self.authority.as_ref().map(|text| text.0.as_bytes()),
        );
        put(out, ALPN, self.alpn.as_ref().map(|bytes| &*bytes.0));
        put(out, UNIQUE_ID, self.unique_id.as_ref().map(|bytes| &*bytes.0));
        if let Some(ssl) = &self.ssl {
            put(out, SSL, Some(&ssl.write()));
        }
    }
}

impl Ssl {
    fn read(value: &[u8]) -> Result<Self, &'static str> {
        const SHORT: &str = "what it says of TLS is too short";
        let mut fields = Cursor::new(value);
        let client = fields.u8().ok_or(SHORT)?;
        let mut ssl = Self {
            is_tls: client & CLIENT_SSL != 0,
            certificate_in_connection: client & CLIENT_CERT_CONN != 0,
            certificate_in_session: client & CLIENT_CERT_SESS != 0,
            verify: fields.u32().ok_or(SHORT)?,
            ..Self::default()
        };
        while !fields.is_empty() {
            let (kind, value) = next(&mut fields)?;
            let slot = match kind {
                SSL_VERSION => &mut ssl.version,
                SSL_CN => &mut ssl.common_name,
                SSL_CIPHER => &mut ssl.cipher,
                SSL_SIG_ALG => &mut ssl.signature_algorithm,
                SSL_KEY_ALG => &mut ssl.key_algorithm,
                _ => continue,
            };
            keep(slot, Text::new(value));
        }
        Ok(ssl)
    }

    fn write(&self) -> Vec<u8> {
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        let mut out = vec![
            bit(self.is_tls, CLIENT_SSL)
                | bit(self.certificate_in_connection, CLIENT_CERT_CONN)
                | bit(self.certificate_in_session, CLIENT_CERT_SESS),
        ];
        out.extend(self.verify.to_be_bytes());
        for (kind, text) in [
            (SSL_VERSION, &self.version),
            (SSL_CN, &self.common_name),
            (SSL_CIPHER, &self.cipher),
            (SSL_SIG_ALG, &self.signature_algorithm),
            (SSL_KEY_ALG, &self.key_algorithm),
        ] {
            put(&mut out, kind, text.as_ref().map(|text| text.0.as_bytes()));
        }
        out
    }
}

/// Writes a checksum of zeros. Gives where the right one belongs.
pub(super) fn write_empty_checksum(out: &mut Vec<u8>) -> Range<usize> {
    put(out, CRC32C, Some(&[0; size_of::<u32>()]));
    out.len() - size_of::<u32>()..out.len()
}

/// The next type and value.
fn next<'a>(block: &mut Cursor<'a>) -> Result<(u8, &'a [u8]), &'static str> {
    let kind = block.u8();
    let value = block.block16();
    kind.zip(value)
        .ok_or("a value in it has a length that does not fit")
}

/// The first value of a type counts.
fn keep<T>(slot: &mut Option<T>, value: Option<T>) {
    if slot.is_none() {
        *slot = value;
    }
}

/// Writes a value if there is one.
fn put(out: &mut Vec<u8>, kind: u8, value: Option<&[u8]>) {
    if let Some(value) = value {
        out.push(kind);
        // the longest is SSL, of five texts of 255 bytes
        out.extend((value.len() as u16).to_be_bytes());
        out.extend_from_slice(value);
    }
}
