//! The keys of a volume.

use crate::secret::VolumeKey;

/// Volume keys by number: in LUKS2 the number of the digest that confirms the key, in LUKS1 always
/// 0.
///
/// Most images have one key. While a LUKS2 image is reencrypted, its segments have two.
#[derive(Clone, Debug, Default)]
pub struct Keyring<'a> {
    keys: Vec<(u32, &'a VolumeKey)>,
}

impl<'a> Keyring<'a> {
    /// Creates a keyring with one key, numbered 0.
    pub fn single(key: &'a VolumeKey) -> Self {
        Self::default().with(0, key)
    }

    /// Adds a key, replacing any key of the same number.
    #[must_use]
    pub fn with(mut self, number: u32, key: &'a VolumeKey) -> Self {
        self.keys.retain(|(other, _)| *other != number);
        self.keys.push((number, key));
        self
    }

    /// The key with this number.
    pub fn get(&self, number: u32) -> Option<&'a VolumeKey> {
        self.keys.iter().find(|(other, _)| *other == number).map(|(_, key)| *key)
    }
}
