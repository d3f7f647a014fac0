//! Lock that every change of an image is made under.

use std::time::Duration;

use crate::amend::commit;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::header::{Header, Stage, Step};
use crate::storage::Lease;
use crate::storage::{SharedBytes, Sharing};

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
        if let Some((offset, bytes)) = self.container.preparation()? {
            let bytes = SharedBytes::from(bytes.to_vec());
            let write = Step::Write { offset, bytes: bytes.clone() };
            let steps = vec![write, Step::Sync, Step::Verify { offset, bytes }];
            let on_failure = "no keyslot has changed".to_owned();
            commit(self.container.payload().as_ref(), [Ok(Stage { steps, on_failure })])?;
        }
        commit(self.container.header().as_ref(), stages)
    }

    /// Releases the lock. Fails if the file is no longer at its path.
    pub fn finish(self) -> Result<()> {
        self.lease.check_in_place("while it was changed: the file that was opened has the change")
    }
}

/// Adds the keyslot to an error of an access to its area, in the first of these headers that has one
/// there.
pub(super) fn with_keyslot_of<'a>(
    error: Error,
    headers: impl IntoIterator<Item = &'a Header>,
) -> Error {
    let mut headers = headers.into_iter();
    match error.offset().and_then(|at| headers.find_map(|header| header.keyslot_at(at))) {
        Some(keyslot) => error.with_keyslot(keyslot),
        None => error,
    }
}
