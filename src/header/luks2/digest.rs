//! `digests`: what the keys in keyslots are checked against, and which segments they decrypt.

use super::json::Member;
use super::keyslot::{SALT, hash_of, quoted};
use crate::crypto::HashAlg;
use crate::error::Result;
use crate::header::Digest;

/// A digest of the metadata.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyDigest {
    /// Its number
    pub number: u32,
    /// `pbkdf2`, or what nobody knows
    pub kind: String,
    /// The keyslots that hold its key
    pub keyslots: Vec<u32>,
    /// The segments that its key decrypts; none, if it is unbound
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

    /// What a candidate is checked against, or what that would need.
    pub fn digest(&self) -> std::result::Result<Digest<'_>, &str> {
        let Check { hash, iterations, salt, value } =
            self.check.as_ref().map_err(String::as_str)?;
        Ok(Digest { hash: *hash, iterations: *iterations, salt, value })
    }
}

/// Lengths that cryptsetup writes: that of MD5, of all other hashes
const MIN_VALUE: usize = 16;
const MAX_VALUE: usize = 64;
