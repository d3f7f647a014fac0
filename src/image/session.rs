//! The locked image that every change goes through.

use std::time::Duration;

use crate::amend::commit;
use crate::container::Container;
use crate::error::Result;
use crate::header::Stage;
use crate::storage::Lease;
use crate::storage::Sharing;

/// An image that nobody else has open, and whose path leads to it, until this is dropped.
#[derive(Debug)]
pub(super) struct Session<'a> {
    container: &'a Container,
    lease: Lease,
}

impl<'a> Session<'a> {
    /// Locks all files of the image. The caller must read the header again and compare it with the
    /// one that the change was planned for: `cryptsetup` takes no lock on LUKS1.
    pub fn open(container: &'a Container, wait: Option<Duration>) -> Result<Self> {
        let lease = container.lease(Sharing::Amend, wait)?;
        lease.check_in_place("since it was opened")?;
        Ok(Self { container, lease })
    }

    /// Writes the stages, durably.
    pub fn commit(&self, stages: impl IntoIterator<Item = Result<Stage>>) -> Result<()> {
        commit(self.container.header().as_ref(), stages)
    }

    /// Refuses to report success for a file that is not at its path any more.
    pub fn finish(self) -> Result<()> {
        self.lease.check_in_place("while it was changed: the file that was opened has the change")
    }
}
