//! Shared, immutable bytes.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// A shared range of bytes in memory: key material, or a part of a header backup.
#[derive(Clone)]
pub struct SharedBytes {
    all: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl SharedBytes {
    /// The part at `range`, relative to the start of these bytes. `None` if it is out of range.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        self.get(range.clone())?;
        let start = self.range.start;
        let range = start + range.start..start + range.end;
        Some(Self { all: Arc::clone(&self.all), range })
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.all[self.range.clone()]
    }
}

impl From<Vec<u8>> for SharedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { all: Arc::new(bytes), range }
    }
}

impl From<&[u8]> for SharedBytes {
    fn from(bytes: &[u8]) -> Self {
        bytes.to_vec().into()
    }
}

impl PartialEq for SharedBytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for SharedBytes {}

/// Shows only the length: the bytes may be key material.
impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_a_part_and_no_copy() {
        let all = SharedBytes::from(vec![0, 1, 2, 3, 4]);
        let part = all.slice(1..4).unwrap();
        assert_eq!(part[..], [1, 2, 3]);
        assert_eq!(part.slice(1..3).unwrap()[..], [2, 3]);
        assert!(Arc::ptr_eq(&all.all, &part.all));
        assert!(part.slice(1..4).is_none());
        assert!(part.slice(3..3).unwrap().is_empty());
    }
}
