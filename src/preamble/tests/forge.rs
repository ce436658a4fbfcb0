//! Makes ClientHellos, right and wrong ones.

/// The parts of a ClientHello.
#[derive(Debug, Clone)]
pub(crate) struct Forge {
    pub(crate) legacy_version: u16,
    pub(crate) session_id: Vec<u8>,
    pub(crate) cipher_suites: Vec<u8>,
    pub(crate) compression_methods: Vec<u8>,
    /// `None`: not even their length.
    pub(crate) extensions: Option<Vec<(u16, Vec<u8>)>>,
    /// What comes after everything.
    pub(crate) rest: Vec<u8>,
}

impl Default for Forge {
    fn default() -> Self {
        Self {
            legacy_version: 0x0303,
            session_id: vec![7; 32],
            cipher_suites: vec![0x13, 0x01, 0x13, 0x02],
            compression_methods: vec![0],
            extensions: Some(Vec::new()),
            rest: Vec::new(),
        }
    }
}

impl Forge {
    /// One with an extension.
    pub(crate) fn with(kind: u16, data: Vec<u8>) -> Self {
        Self::default().and(kind, data)
    }

    /// The same with an extension more.
    pub(crate) fn and(mut self, kind: u16, data: Vec<u8>) -> Self {
        self.extensions.get_or_insert_default().push((kind, data));
        self
    }

    /// The message, with its type and length.
    pub(crate) fn message(&self) -> Vec<u8> {
        let mut body = self.legacy_version.to_be_bytes().to_vec();
        body.extend([0x5a; 32]);
        body.extend(block8(&self.session_id));
        body.extend(block16(&self.cipher_suites));
        body.extend(block8(&self.compression_methods));
        if let Some(extensions) = &self.extensions {
            let mut all = Vec::new();
            for (kind, data) in extensions {
                all.extend(kind.to_be_bytes());
                all.extend(block16(data));
            }
            body.extend(block16(&all));
        }
        body.extend(&self.rest);
        let length = (body.len() as u32).to_be_bytes();
        [&[1], &length[1..], &body].concat()
    }

    /// The message in records as long as they may be.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        records(&self.message(), &[1 << 14])
    }
}

/// A message in records of these sizes, in turn.
pub(crate) fn records(mut message: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    for size in sizes.iter().cycle() {
        let (payload, rest) = message.split_at(message.len().min(*size));
        out.extend(record(22, payload));
        message = rest;
        if message.is_empty() {
            break;
        }
    }
    out
}

/// A record of TLS.
pub(crate) fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1][..], &block16(payload)].concat()
}

/// The extension that names these hosts.
pub(crate) fn server_names(names: &[&[u8]]) -> Vec<u8> {
    let names: Vec<_> = names
        .iter()
        .map(|name| [&[0][..], &block16(name)].concat())
        .collect();
    block16(&names.concat())
}

/// The extension that offers these protocols.
pub(crate) fn protocols(names: &[&[u8]]) -> Vec<u8> {
    let names: Vec<_> = names.iter().map(|name| block8(name)).collect();
    block16(&names.concat())
}

/// Bytes after one that says how many they are.
pub(crate) fn block8(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

/// Bytes after two that say how many they are.
pub(crate) fn block16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}
