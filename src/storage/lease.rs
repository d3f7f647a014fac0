//! Locks on storages that are held for a while.

use std::fmt::Debug;
use std::io;

use crate::error::{Error, ErrorKind, Result};

/// Locks on one or several storages, released on drop.
#[derive(Debug, Default)]
#[must_use = "the locks are given back as soon as this is dropped"]
pub struct Lease(Vec<Box<dyn Leased>>);

/// The lock of one storage, released on drop.
pub trait Leased: Debug + Send {
    /// Whether the storage's name still leads to it. An error describes what could not be checked.
    fn is_in_place(&self) -> io::Result<bool>;
}

impl Lease {
    /// The lease of a storage that has no locks.
    pub fn none() -> Self {
        Self::default()
    }

    /// Wraps `lock`, which is dropped with the lease.
    pub fn new(lock: impl Leased + 'static) -> Self {
        Self(vec![Box::new(lock)])
    }

    /// Combines two leases.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Fails with [`ErrorKind::Changed`] if the name of one of the storages now leads elsewhere.
    /// `when` completes "another file took the image's place".
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
