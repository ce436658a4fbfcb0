//! Tokens for the API: how they are made, and the file that says who has which role. No I/O here; the file has hashes only.

use std::{collections::HashMap, fmt, sync::Arc};

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};
use base64ct::{Base64UrlUnpadded, Encoding as _};

use crate::{admin::caller::TokenHash, base::Role};

/// Most tokens of one file: each is compared with every one that is presented.
const MAX_TOKENS: usize = 1_000;

/// Longest name of a token, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// Random bytes of a token.
pub const RANDOM_BYTES: usize = 32;

/// What every token begins with, so that programs that look for leaked secrets know it.
const PREFIX: &str = "cvy_";

/// Length of what follows, base64 (RFC 4648, section 5) without padding.
const ENCODED_BYTES: usize = (RANDOM_BYTES * 4).div_ceil(3);

/// What stands before a hash in the file.
const HASH_KIND: &str = "sha256:";

/// A token, as whoever uses it has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Who has which token.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens(Vec<Entry>);

/// Who has a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder<'a> {
    /// What it is called.
    pub name: &'a Arc<str>,
    /// What it may do.
    pub role: Role,
    /// Its hash.
    pub hash: TokenHash,
}

#[derive(Clone, PartialEq, Eq)]
struct Entry {
    name: Arc<str>,
    role: Role,
    hash: TokenHash,
}

/// Why a file says nobody's token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokensError {
    /// It has nothing at all, as a file that is just being written.
    #[error(
        "it is empty: add a line as `convey token NAME --role read` prints it, or a comment (#) to let nobody in"
    )]
    Empty,
    /// It is no text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// More than [`MAX_TOKENS`].
    #[error("it has more than {MAX_TOKENS} tokens")]
    TooMany,
    /// A line is wrong.
    #[error("line {line}: {why}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        why: LineError,
    },
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It has not three words.
    #[error("write NAME ROLE {HASH_KIND}HEX, as `convey token NAME --role read` prints it")]
    Form,
    /// The first is no name.
    #[error(transparent)]
    Name(#[from] NotATokenName),
    /// The second is no role.
    #[error("there is no role {0:?}: write read, operate or configure")]
    Role(String),
    /// The third is the token itself.
    #[error(
        "this is the token itself, which nobody must read here: write its hash, which `printf %s TOKEN | sha256sum` prints, after {HASH_KIND}"
    )]
    Secret,
    /// The third is no hash.
    #[error("the hash is {HASH_KIND} and 64 hexadecimal digits")]
    Hash,
    /// Another line has the name.
    #[error("line {0} has this name, too")]
    SameName(usize),
    /// Another line has the hash.
    #[error("line {0} is for this token, too")]
    SameToken(usize),
}

/// A text is no name of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name of a token has letters, digits and `.`, `_`, `-`, `@`, at most {MAX_NAME_BYTES} of them")]
pub struct NotATokenName;

impl Token {
    /// The token of random bytes.
    #[must_use]
    pub fn new(random: [u8; RANDOM_BYTES]) -> Self {
        Self(format!("{PREFIX}{}", Base64UrlUnpadded::encode_string(&random)))
    }

    /// Reads what somebody presents; `None` if that is no token: what is easy to guess is none.
    fn read(text: &str) -> Option<Self> {
        let encoded = text.strip_prefix(PREFIX)?;
        let is_known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (encoded.len() == ENCODED_BYTES && encoded.bytes().all(is_known)).then(|| Self(text.to_owned()))
    }

    /// Its text, which is a secret.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// The line for it in the file of tokens.
    ///
    /// # Errors
    /// The name is none.
    pub fn line(&self, name: &str, role: Role) -> Result<String, NotATokenName> {
        check_name(name)?;
        let hash = self.hash();
        let hex: String = hash.0.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("{name} {role} {HASH_KIND}{hex}"))
    }

    fn hash(&self) -> TokenHash {
        let mut hash = [0; 32];
        let digest = digest::digest(&digest::SHA256, self.0.as_bytes());
        for (byte, hashed) in hash.iter_mut().zip(digest.as_ref()) {
            *byte = *hashed;
        }
        TokenHash(hash)
    }
}

impl Tokens {
    /// Reads a file of tokens: a line each, `NAME ROLE sha256:HEX`; `#` begins a comment. One with comments alone lets nobody in.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, TokensError> {
        let text = std::str::from_utf8(bytes).map_err(|_| TokensError::NotText)?;
        let mut entries = Vec::new();
        let (mut names, mut hashes) = (HashMap::new(), HashMap::new());
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.split('#').next().unwrap_or_default().trim();
            if text.is_empty() {
                continue;
            }
            let wrong = |why: LineError| TokensError::Line { line, why };
            let entry = Entry::parse(text).map_err(wrong)?;
            if let Some(other) = names.insert(Arc::clone(&entry.name), line) {
                return Err(wrong(LineError::SameName(other)));
            }
            if let Some(other) = hashes.insert(entry.hash, line) {
                return Err(wrong(LineError::SameToken(other)));
            }
            entries.push(entry);
            if entries.len() > MAX_TOKENS {
                return Err(TokensError::TooMany);
            }
        }
        match text.trim().is_empty() {
            true => Err(TokensError::Empty),
            false => Ok(Self(entries)),
        }
    }

    /// Whose token a text is, and what it may do; `None` if it is nobody's. Takes as long whoever's it is.
    #[must_use]
    pub fn find(&self, presented: &str) -> Option<Holder<'_>> {
        let hash = Token::read(presented)?.hash();
        let mut found = None;
        for entry in &self.0 {
            if verify_slices_are_equal(&entry.hash.0, &hash.0).is_ok() {
                found = Some(entry.holder());
            }
        }
        found
    }

    /// Whose token one is that was presented before, if it is still one.
    #[must_use]
    pub fn holder(&self, hash: TokenHash) -> Option<Holder<'_>> {
        let found = self.0.iter().find(|entry| entry.hash == hash);
        found.map(Entry::holder)
    }

    /// What differs from others, by the tokens' names.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> Vec<String> {
        let by_name = |tokens: &'_ Self| -> HashMap<Arc<str>, Entry> {
            let all = tokens.0.iter();
            all.map(|entry| (Arc::clone(&entry.name), entry.clone()))
                .collect()
        };
        let (old, new) = (by_name(before), by_name(self));
        let mut changes: Vec<String> = Vec::new();
        for entry in &before.0 {
            let name = &entry.name;
            changes.extend(match new.get(name) {
                None => Some(format!("token {name}: removed")),
                Some(now) if now.role != entry.role => {
                    Some(format!("token {name}: role {} -> {}", entry.role, now.role))
                }
                Some(now) if now.hash != entry.hash => Some(format!("token {name}: replaced")),
                Some(_) => None,
            });
        }
        let added = self.0.iter().filter(|entry| !old.contains_key(&entry.name));
        changes.extend(added.map(|entry| format!("token {}: added with role {}", entry.name, entry.role)));
        changes
    }
}

impl Entry {
    const fn holder(&self) -> Holder<'_> {
        Holder {
            name: &self.name,
            role: self.role,
            hash: self.hash,
        }
    }

    fn parse(text: &str) -> Result<Self, LineError> {
        let mut words = text.split_ascii_whitespace();
        let (Some(name), Some(role), Some(hash), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(LineError::Form);
        };
        check_name(name)?;
        Ok(Self {
            name: name.into(),
            role: role.parse().map_err(|_| LineError::Role(role.to_owned()))?,
            hash: match hash.strip_prefix(HASH_KIND) {
                Some(hex) => read_hex(hex).ok_or(LineError::Hash)?,
                None if hash.starts_with(PREFIX) => return Err(LineError::Secret),
                None => return Err(LineError::Hash),
            },
        })
    }
}

fn check_name(name: &str) -> Result<(), NotATokenName> {
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    match (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(is_known) {
        true => Ok(()),
        false => Err(NotATokenName),
    }
}

fn read_hex(text: &str) -> Option<TokenHash> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut hash = [0; 32];
    if text.len() != hash.len() * 2 {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(TokenHash(hash))
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Names and roles.
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.iter().map(|entry| (&*entry.name, entry.role));
        f.debug_map().entries(all).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(random: u8) -> Token {
        Token::new([random; RANDOM_BYTES])
    }

    fn line(random: u8, name: &str, role: Role) -> String {
        token(random).line(name, role).unwrap()
    }

    fn tokens(lines: &[String]) -> Tokens {
        Tokens::parse(lines.join("\n").as_bytes()).unwrap()
    }

    #[test]
    fn whoever_has_a_token_of_the_file_is_known_with_a_role_and_nobody_else() {
        let file = tokens(&[
            "# who may ask".to_owned(),
            line(1, "grafana", Role::Read) + "  # the dashboard",
            String::new(),
            line(2, "deploy@ci", Role::Operate),
        ]);
        let found = |token: &Token| {
            file.find(token.secret())
                .map(|holder| (&**holder.name, holder.role))
        };
        assert_eq!(found(&token(1)), Some(("grafana", Role::Read)));
        assert_eq!(found(&token(2)), Some(("deploy@ci", Role::Operate)));
        let (own, strange) = (token(1), token(3));
        for other in [strange.secret(), &own.secret()[..20], "", "cvy_", "password"] {
            assert_eq!(file.find(other), None, "{other}");
        }
        assert_eq!(format!("{:?}", token(1)), "Token", "no log has it");
        assert!(!format!("{file:?}").contains("sha256"), "{file:?}");
    }

    #[test]
    fn the_line_has_the_hash_that_sha256sum_prints() {
        let token = token(0);
        assert_eq!(token.secret(), format!("cvy_{}", "A".repeat(43)));
        // printf %s cvy_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA | sha256sum
        let hash = "0d1dd1f2949a9983b5d4cbb97edcb5ea8c93cfdcced12aa6f2e0b6f7b27527d8";
        assert_eq!(
            token.line("a", Role::Configure).unwrap(),
            format!("a configure sha256:{hash}")
        );
        let upper = format!("a read sha256:{}", hash.to_ascii_uppercase());
        assert!(tokens(&[upper]).find(token.secret()).is_some());
    }

    #[test]
    fn what_is_easy_to_guess_is_no_token_even_if_the_file_has_its_hash() {
        let hash = digest::digest(&digest::SHA256, b"password");
        let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let file = tokens(&[format!("a read sha256:{hex}")]);
        assert_eq!(file.find("password"), None);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_line() {
        let good = line(1, "a", Role::Read);
        let hash = good.rsplit(' ').next().unwrap();
        for (text, said) in [
            (String::new(), "it is empty"),
            (format!("{good}\nb read"), "line 2: write NAME ROLE sha256:HEX"),
            (format!("a read {hash} x"), "line 1: write NAME ROLE"),
            (format!("a reed {hash}"), "line 1: there is no role \"reed\""),
            (
                format!("a/b read {hash}"),
                "line 1: a name of a token has letters",
            ),
            ("a read sha256:00".to_owned(), "line 1: the hash is sha256:"),
            (format!("a read {}", &hash[7..]), "line 1: the hash is sha256:"),
            (
                format!("a read {}", token(1).secret()),
                "line 1: this is the token itself",
            ),
            (
                format!("{good}\n{}", line(2, "a", Role::Read)),
                "line 2: line 1 has this name, too",
            ),
            (
                format!("\n{good}\n{}", line(1, "b", Role::Read)),
                "line 3: line 2 is for this token, too",
            ),
        ] {
            let error = Tokens::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(said), "{text}: {error}");
            assert!(!error.contains(token(1).secret()), "{error}");
        }
        assert_eq!(Tokens::parse(&[0xff]), Err(TokensError::NotText));
        for empty in ["", " \n"] {
            assert_eq!(
                Tokens::parse(empty.as_bytes()),
                Err(TokensError::Empty),
                "{empty:?}"
            );
        }
        let nobodys = Tokens::parse(b"# the last was withdrawn\n").unwrap();
        assert_eq!(nobodys.find(token(1).secret()), None);
        let many = (0..=MAX_TOKENS).map(|i| format!("n{i} read sha256:{i:064x}\n"));
        let many: String = many.collect();
        assert_eq!(Tokens::parse(many.as_bytes()), Err(TokensError::TooMany));
    }

    #[test]
    fn a_reload_says_whose_token_has_changed() {
        let before = tokens(&[
            line(1, "a", Role::Read),
            line(2, "b", Role::Read),
            line(3, "c", Role::Read),
            line(4, "d", Role::Read),
        ]);
        let after = tokens(&[
            line(1, "a", Role::Operate),
            line(5, "b", Role::Read),
            line(4, "d", Role::Read),
            line(6, "e", Role::Configure),
        ]);
        assert_eq!(
            after.changes_since(&before),
            [
                "token a: role read -> operate",
                "token b: replaced",
                "token c: removed",
                "token e: added with role configure"
            ]
        );
        assert_eq!(before.changes_since(&before), Vec::<String>::new());
    }

    proptest::proptest! {
        #[test]
        fn no_file_is_too_odd(bytes: Vec<u8>, text in "[a-z0-9 :#\\n]{0,300}") {
            let _ = Tokens::parse(&bytes);
            let _ = Tokens::parse(text.as_bytes());
        }
    }
}
