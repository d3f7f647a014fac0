//! Locks that are held on a storage for a while.

use std::fmt::Debug;
use std::io;

use crate::error::{Error, ErrorKind, Result};

/// Locks on one or several storages, held until this is dropped.
#[derive(Debug, Default)]
#[must_use = "the locks are given back as soon as this is dropped"]
pub struct Lease(Vec<Box<dyn Leased>>);

/// One storage's lock, given back when it is dropped.
pub trait Leased: Debug + Send {
    /// Whether the storage's name still leads to it. An error says what could not be looked at.
    fn is_in_place(&self) -> io::Result<bool>;
}

impl Lease {
    /// The lease of a storage that has no locks.
    pub fn none() -> Self {
        Self::default()
    }

    /// The lease that gives back `lock` when it is dropped.
    pub fn new(lock: impl Leased + 'static) -> Self {
        Self(vec![Box::new(lock)])
    }

    /// Both leases in one.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Refuses to go on if the name of one of the storages leads elsewhere now
    /// ([`ErrorKind::Changed`]). `when` completes "another file took the image's place".
    pub(crate) fn check_in_place(&self, when: &str) -> Result<()> {
        let failed = |e| Error::io("check that the path still leads to the opened file", e);
        for lock in &self.0 {
            if !lock.is_in_place().map_err(failed)? {
                let text = format!("another file took the image's place {when}");
                return Err(Error::new(ErrorKind::Changed, text));
            }
        }
        Ok(())
    }
}
