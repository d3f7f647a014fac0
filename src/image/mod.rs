//! An opened image: its container and its header. This is the main entry point of the crate.

#[cfg(feature = "file")]
mod backup;
mod change;
mod create;
#[cfg(feature = "file")]
mod file;
mod options;
mod plan;
#[cfg(feature = "file")]
mod resize;
mod restore;
mod session;
mod tried;
mod volume;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use change::Done;
#[cfg(feature = "file")]
pub use create::NewImage;
pub use create::{CreateOptions, Created, Format, Luks2Options};
pub use options::OpenOptions;
pub use restore::Restoration;

use crate::container::{Container, Qcow2Disk, Qcow2Header};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Header, Keyslot};
use crate::secret::{Passphrase, VolumeKey};
use crate::storage::transfer::length;
use crate::storage::{Sharing, Storage};
use crate::unlock::{
    Candidate, Unlocked, Until, confirm, search, search_admitted, unlock, unlock_keyslot,
};
use crate::volume::Volume;

use self::tried::Tried;

/// An opened LUKS image.
#[derive(Debug)]
pub struct Image {
    container: Container,
    header: Header,
    options: OpenOptions,
    /// Results of earlier unlock attempts, so that no KDF runs twice. Cleared when the header changes.
    tried: Mutex<Tried>,
}

impl Image {
    /// Header as it was read, or as the last amendment left it.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Keyslots, by index.
    pub fn keyslots(&self) -> impl ExactSizeIterator<Item = Keyslot<'_>> {
        self.header.keyslots()
    }

    /// Storage that holds the header.
    pub fn storage(&self) -> &dyn Storage {
        self.container.header().as_ref()
    }

    /// Offset and length in bytes of the image within its file or storage. `None` if the image is all
    /// of it. A length of `None` extends to the end.
    pub fn part(&self) -> Option<(u64, Option<u64>)> {
        self.container.part()
    }

    /// Whether the header and the payload are in different files.
    pub fn is_detached(&self) -> bool {
        self.container.is_detached()
    }

    /// Header of the qcow2 image that contains the LUKS header. `None` if the image is not qcow2.
    pub fn qcow2(&self) -> Option<&Qcow2Header> {
        self.container.qcow2()
    }

    /// Header of the qcow2 image that contains the guest's disk of which the image is a part. `None` if
    /// it is no such part.
    pub fn guest_disk(&self) -> Option<&Qcow2Header> {
        self.container.disk().map(Qcow2Disk::header)
    }

    /// Length in bytes of the payload's file or storage, or of the part of it that holds the image.
    pub fn payload_storage_len(&self) -> Result<u64> {
        self.named(length(self.container.payload()))
    }

    /// Length of the volume in bytes, whether or not it can be opened. `None` if the payload is missing
    /// or shorter than the header says.
    pub fn volume_len(&self) -> Result<Option<u64>> {
        if let Some(qcow2) = self.qcow2() {
            return Ok(Some(qcow2.virtual_size()));
        }
        if self.header.is_detached() && !self.container.is_detached() {
            return Ok(None);
        }
        Ok(self.header.volume_len(self.payload_storage_len()?))
    }

    /// Recovers the volume key from the first keyslot that opens. Keyslots are tried in parallel, so it
    /// need not be the one with the lowest index.
    ///
    /// Fails with [`ErrorKind::WrongSecret`] if no keyslot opens. If additionally one was left out because
    /// it asks for more work than the [limits](OpenOptions::limits) allow, the error is
    /// [`ErrorKind::Limit`].
    pub fn unlock(&self, passphrase: &Passphrase) -> Result<Unlocked> {
        let limits = self.options.limits;
        let unlocked = self.named(unlock(self.storage(), &self.header, passphrase, limits))?;
        if let Some(keyslot) = unlocked.keyslot() {
            self.remember(keyslot, passphrase, true);
        }
        Ok(unlocked)
    }

    /// Accepts the volume key itself, such as one from a key store, and checks it against the digest in
    /// the header.
    ///
    /// Fails with [`ErrorKind::WrongSecret`] if the key belongs to another image.
    ///
    /// ```
    /// use keyslot::{Image, Passphrase, VolumeKey};
    ///
    /// # fn main() -> keyslot::Result<()> {
    /// let image = Image::open("testdata/luks1_qemu.img")?;
    /// let unlocked = image.unlock(&Passphrase::new(b"hunter0")?)?;
    /// let kept = VolumeKey::new(unlocked.volume_key().as_bytes())?;
    ///
    /// let volume = image.volume(&image.unlock_with_key(kept)?)?;
    /// println!("{} bytes", volume.len());
    /// # Ok(())
    /// # }
    /// ```
    pub fn unlock_with_key(&self, key: VolumeKey) -> Result<Unlocked> {
        self.named(confirm(&self.header, key, self.options.limits))
    }

    /// Recovers the key in this keyslot, regardless of its priority, even if it is not the volume key.
    ///
    /// Fails with [`ErrorKind::WrongSecret`] if the keyslot does not open, and with
    /// [`ErrorKind::InvalidInput`] if it is inactive or does not exist.
    pub fn unlock_keyslot(&self, keyslot: usize, passphrase: &Passphrase) -> Result<Unlocked> {
        let limits = self.options.limits;
        let storage = self.storage();
        let unlocked = unlock_keyslot(storage, &self.header, keyslot, passphrase, limits);
        let unlocked = self.named(unlocked)?;
        self.remember(keyslot, passphrase, true);
        Ok(unlocked)
    }

    /// Remembers the result of an attempt if an amendment may follow, which needs it again. Images
    /// opened to write data remember nothing, because they may be open for a long time.
    fn remember(&self, keyslot: usize, secret: &Passphrase, opens: bool) {
        use Sharing::{WriteAlone, WriteData, WriteQcow2};
        let has_volume = matches!(self.options.sharing, WriteData | WriteAlone | WriteQcow2);
        if has_volume || !self.options.write {
            return;
        }
        let mut tried = lock(&self.tried);
        if let Some(tag) = tried.tag(secret) {
            tried.remember(keyslot, tag, opens);
        }
    }

    /// Returns the decrypted contents of the image.
    ///
    /// The volume is writable if the image was opened with [`Sharing::WriteAlone`],
    /// [`Sharing::WriteData`] or [`Sharing::Amend`]; otherwise it is read-only. With [`Sharing::None`], other programs may change the data while it is read.
    pub fn volume(&self, unlocked: &Unlocked) -> Result<Volume> {
        self.volume_with(&[unlocked])
    }

    /// Returns the decrypted contents of an image whose segments have several keys, each recovered from
    /// its own keyslot.
    pub fn volume_with(&self, unlocked: &[&Unlocked]) -> Result<Volume> {
        self.named(self.try_volume(unlocked))
    }

    /// Whether the passphrase opens this keyslot. An inactive keyslot never opens.
    pub fn opens(&self, keyslot: usize, passphrase: &Passphrase) -> Result<bool> {
        let outcomes = self.try_keyslots(&[keyslot], passphrase, Until::All);
        outcomes.into_iter().next().flatten().unwrap_or(Ok(false))
    }

    /// Tries the passphrase on these keyslots in parallel and returns whether each opens. `None` marks a
    /// keyslot that was not tried because another one opened first.
    ///
    /// Keyslots that are inactive or that this crate cannot open count as not opening. A keyslot that
    /// asks for more work than the [limits](OpenOptions::limits) allow is an error.
    pub fn try_keyslots(
        &self,
        keyslots: &[usize],
        passphrase: &Passphrase,
        until: Until,
    ) -> Vec<Option<Result<bool>>> {
        let tried: Vec<_> = {
            let mut tried = lock(&self.tried);
            let tag = if tried.is_empty() { None } else { tried.tag(passphrase) };
            let known = |&keyslot: &usize| tag.and_then(|tag| tried.known(keyslot, tag));
            keyslots.iter().map(known).collect()
        };
        let active = |keyslot| self.header.keyslot(keyslot).filter(|it| it.active);
        let mut outcomes: Vec<_> = keyslots
            .iter()
            .zip(tried)
            .map(|(&keyslot, known)| known.or_else(|| active(keyslot).is_none().then_some(false)))
            .map(|known| known.map(Ok))
            .collect();
        if until == Until::First && outcomes.iter().any(|it| matches!(it, Some(Ok(true)))) {
            return outcomes;
        }
        let open: Vec<_> = (0..keyslots.len()).filter(|&place| outcomes[place].is_none()).collect();
        let candidate = |&place: &usize| {
            let keyslot = active(keyslots[place])?;
            Some(Candidate { storage: self.storage(), keyslot })
        };
        let candidates: Vec<_> = open.iter().filter_map(candidate).collect();
        let found = search(&candidates, passphrase, self.options.limits, until);
        for (place, outcome) in open.into_iter().zip(found) {
            let outcome = outcome.map(|outcome| outcome.map(|key| key.is_some()));
            if let Some(Ok(opens)) = outcome {
                self.remember(keyslots[place], passphrase, opens);
            }
            outcomes[place] = outcome.map(|outcome| self.named(outcome));
        }
        outcomes
    }

    /// Tries the passphrase on all active keyslots of many images at once. For each image it returns the
    /// index of every active keyslot and whether it opens, as [`try_keyslots`](Self::try_keyslots) does,
    /// in less time than one image after the other. Each image's own limits apply.
    pub fn try_images(
        images: &[&Self],
        passphrase: &Passphrase,
    ) -> Vec<Vec<(usize, Result<bool>)>> {
        let mut all: Vec<Vec<_>> = images.iter().map(|_| Vec::new()).collect();
        let (mut owners, mut candidates, mut admitted) = (Vec::new(), Vec::new(), Vec::new());
        for (place, image) in images.iter().enumerate() {
            let active: Vec<_> = image.keyslots().filter(|keyslot| keyslot.active).collect();
            admitted.extend(image.options.limits.admit(&active));
            for keyslot in active {
                owners.push((place, keyslot.index));
                candidates.push(Candidate { storage: image.storage(), keyslot });
            }
        }
        let outcomes = search_admitted(&candidates, passphrase, admitted, Until::All);
        for ((place, keyslot), outcome) in owners.into_iter().zip(outcomes) {
            let opens = outcome.unwrap_or(Ok(None)).map(|key| key.is_some());
            all[place].push((keyslot, images[place].named(opens)));
        }
        all
    }

    /// Whether the keyslot's area is all zeros, either because it was never used or because this crate
    /// erased it.
    pub fn is_blank(&self, keyslot: usize) -> Result<bool> {
        self.named(self.header.is_blank(keyslot, self.storage()))
    }

    fn must_own(&self, unlocked: &Unlocked) -> Result<()> {
        if unlocked.belongs_to(&self.header) {
            return Ok(());
        }
        Err(another_image())
    }

    /// Adds the file's name to an error.
    fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| self.container.named(error))
    }
}

fn another_image() -> Error {
    Error::new(ErrorKind::InvalidInput, "the volume key belongs to another image")
}

/// A poisoned lock still guards valid data: no critical section leaves it half updated.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
