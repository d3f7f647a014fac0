//! The keys of a volume.

use crate::secret::VolumeKey;

/// Keys by number: of LUKS2 the number of the digest that confirms the key, of LUKS1 0.
///
/// Most images have one key. While a LUKS2 image is reencrypted, its segments have two.
#[derive(Clone, Debug, Default)]
pub struct Keyring<'a> {
    keys: Vec<(u32, &'a VolumeKey)>,
}

impl<'a> Keyring<'a> {
    /// A keyring with one key, which has the number 0.
    pub fn single(key: &'a VolumeKey) -> Self {
        Self::default().with(0, key)
    }

    /// The keyring with another key. A key of the same number is replaced.
    #[must_use]
    pub fn with(mut self, number: u32, key: &'a VolumeKey) -> Self {
        self.keys.retain(|(other, _)| *other != number);
        self.keys.push((number, key));
        self
    }

    /// The key of this number.
    pub fn get(&self, number: u32) -> Option<&'a VolumeKey> {
        self.keys.iter().find(|(other, _)| *other == number).map(|(_, key)| *key)
    }
}
