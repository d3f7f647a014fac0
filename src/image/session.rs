//! Lock that every change of an image is made under.

use std::time::Duration;

use crate::amend::commit;
use crate::container::Container;
use crate::error::Result;
use crate::header::Stage;
use crate::storage::Lease;
use crate::storage::Sharing;

/// Exclusive lock on an image whose path still leads to it. Released on drop.
#[derive(Debug)]
pub(super) struct Session<'a> {
    container: &'a Container,
    lease: Lease,
}

impl<'a> Session<'a> {
    /// Locks all files of the image. The caller must then read the header again and compare it with the
    /// one that the change was planned for, because `cryptsetup` takes no lock on LUKS1.
    pub fn open(container: &'a Container, wait: Option<Duration>) -> Result<Self> {
        let lease = container.lease(Sharing::Amend, wait)?;
        lease.check_in_place("since it was opened")?;
        container.check_unchanged()?;
        Ok(Self { container, lease })
    }

    /// Runs the stages durably.
    pub fn commit(&self, stages: impl IntoIterator<Item = Result<Stage>>) -> Result<()> {
        self.container.prepare_amendment()?;
        commit(self.container.header().as_ref(), stages)
    }

    /// Releases the lock. Fails if the file is no longer at its path.
    pub fn finish(self) -> Result<()> {
        self.lease.check_in_place("while it was changed: the file that was opened has the change")
    }
}
