//! A bounded cache of parts of tables.

use std::collections::HashMap;
use std::sync::Arc;

/// Slices of tables, by their offset in the image.
///
/// Slices are kept in two generations. Once the young one is full, it becomes the old one, and what
/// was not used since is dropped.
#[derive(Debug)]
pub(super) struct Cache<T> {
    young: HashMap<u64, Arc<Vec<T>>>,
    old: HashMap<u64, Arc<Vec<T>>>,
    /// Most slices of a generation
    most: usize,
}

impl<T: Clone> Cache<T> {
    /// Creates a cache for slices of `slice_len` bytes.
    pub fn new(slice_len: usize) -> Self {
        let most = (BYTES / 2 / slice_len).max(1);
        Self { young: HashMap::new(), old: HashMap::new(), most }
    }

    pub fn get(&mut self, offset: u64) -> Option<Arc<Vec<T>>> {
        if let Some(slice) = self.young.get(&offset) {
            return Some(Arc::clone(slice));
        }
        let slice = self.old.remove(&offset)?;
        self.insert(offset, Arc::clone(&slice));
        Some(slice)
    }

    pub fn insert(&mut self, offset: u64, slice: Arc<Vec<T>>) {
        if self.young.len() >= self.most {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&offset);
        self.young.insert(offset, slice);
    }

    pub fn remove(&mut self, offset: u64) {
        self.young.remove(&offset);
        self.old.remove(&offset);
    }

    /// Changes a slice, if it is in the cache.
    pub fn update(&mut self, offset: u64, change: impl FnOnce(&mut Vec<T>)) {
        let young = self.young.get_mut(&offset);
        if let Some(slice) = young.or_else(|| self.old.get_mut(&offset)) {
            change(Arc::make_mut(slice));
        }
    }
}

/// Bytes of all slices together
const BYTES: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_in_use_stays_and_the_number_is_bounded() {
        let mut cache = Cache::new(BYTES / 8);
        cache.insert(0, Arc::new(vec![7]));
        for offset in 1..100 {
            cache.insert(offset, Arc::new(vec![offset]));
            assert_eq!(*cache.get(0).unwrap(), [7]);
            assert!(cache.young.len() + cache.old.len() <= 8);
        }
        assert!(cache.get(50).is_none());
        cache.update(99, |slice| slice[0] = 1);
        assert_eq!(*cache.get(99).unwrap(), [1]);
    }
}
