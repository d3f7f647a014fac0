//! Names of the payload's ciphers, and warnings about weak ones.

use super::{Header, luks2};

impl Header {
    /// Cipher of the payload as the header names it, supported or not. In LUKS2, the cipher of the
    /// first encrypted segment.
    pub fn cipher_text(&self) -> Option<String> {
        match self {
            Self::Luks1(header) => Some(header.cipher_text()),
            Self::Luks2(header) => ciphers(header).next().map(|(_, cipher)| cipher.to_owned()),
        }
    }

    /// Length of the volume key in bytes, if known.
    pub fn key_size(&self) -> Option<usize> {
        match self {
            Self::Luks1(header) => Some(header.key_size()),
            Self::Luks2(header) => header.volume_key_size().ok(),
        }
    }

    /// Warnings about ciphers that do not keep the payload secret, each with its place.
    pub fn weaknesses(&self) -> Vec<String> {
        let named: Vec<_> = match self {
            Self::Luks1(header) => vec![("the payload".to_owned(), header.cipher_text())],
            Self::Luks2(header) => ciphers(header)
                .map(|(number, cipher)| (format!("segment {number}"), cipher.to_owned()))
                .collect(),
        };
        let weakness = |(place, cipher): (String, String)| {
            let shown = cipher.escape_debug();
            weakness(&cipher).map(|why| format!("{place} has the cipher {shown}: {why}"))
        };
        named.into_iter().filter_map(weakness).collect()
    }
}

/// Reason why a cipher does not keep data secret.
fn weakness(cipher: &str) -> Option<&'static str> {
    let cipher = cipher.to_ascii_lowercase();
    if cipher.contains("null-") || cipher.contains("cipher_null") || cipher == "null" {
        return Some("nothing is encrypted");
    }
    let mode = cipher.split('-').nth(1);
    let is_ecb = mode == Some("ecb") || cipher.contains("ecb(");
    is_ecb.then_some("equal blocks of data stay equal when they are encrypted")
}

/// Ciphers of all encrypted segments, by number.
fn ciphers(header: &luks2::Luks2Header) -> impl Iterator<Item = (u32, &str)> {
    let segments = header.metadata().segments().iter();
    segments.filter_map(|it| Some((it.number, it.crypt.as_ref()?.encryption.as_str())))
}
