//! `digests`: they confirm the keys in keyslots, and name the segments that each key decrypts.

use super::json::Member;
use super::keyslot::{SALT, hash_of, quoted};
use crate::crypto::HashAlg;
use crate::error::Result;
use crate::header::Digest;

/// A digest of the metadata.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyDigest {
    /// Number of the digest
    pub number: u32,
    /// Type: `pbkdf2`, or an unknown one
    pub kind: String,
    /// Keyslots that hold its key
    pub keyslots: Vec<u32>,
    /// Segments that its key decrypts. Empty for an unbound key
    pub segments: Vec<u32>,
    check: std::result::Result<Check, String>,
}

#[derive(Clone, Debug)]
struct Check {
    hash: HashAlg,
    iterations: u32,
    salt: Vec<u8>,
    value: Vec<u8>,
}

impl KeyDigest {
    pub(super) fn parse(number: u32, member: &Member<'_>) -> Result<Self> {
        let kind = member.member("type")?.name()?.to_owned();
        let (keyslots, segments) =
            (member.member("keyslots")?.numbers()?, member.member("segments")?.numbers()?);
        let check = if kind == "pbkdf2" {
            let (iterations, hash) =
                (member.member("iterations")?.count()?, member.member("hash")?.string()?);
            let salt = member.member("salt")?.base64(SALT..=SALT)?;
            let value = member.member("digest")?.base64(MIN_VALUE..=MAX_VALUE)?;
            hash_of(hash).map(|hash| Check { hash, iterations, salt, value })
        } else {
            Err(format!("digests of type {} are not supported", quoted(&kind)))
        };
        Ok(Self { number, kind, keyslots, segments, check })
    }

    /// Parameters and value of the digest, or the reason why it is not supported.
    pub fn digest(&self) -> std::result::Result<Digest<'_>, &str> {
        let Check { hash, iterations, salt, value } =
            self.check.as_ref().map_err(String::as_str)?;
        Ok(Digest { hash: *hash, iterations: *iterations, salt, value })
    }
}

/// Shortest and longest digest that cryptsetup writes, in bytes. The shortest is that of MD5
const MIN_VALUE: usize = 16;
const MAX_VALUE: usize = 64;
