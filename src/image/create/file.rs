//! A new image in a file of its own.

use std::path::Path;
use std::sync::Arc;

use super::{CreateOptions, Created, image_len, invalid};
use crate::error::Result;
use crate::header::Header;
use crate::secret::Passphrase;
use crate::storage::{FileStorage, NewFile, Place, Preallocation, Storage};
use crate::unlock::{Limits, unlock};
use crate::volume::{Keyring, Volume};

impl CreateOptions {
    /// What is done for the space of the payload.
    #[must_use]
    pub fn preallocation(mut self, preallocation: Preallocation) -> Self {
        self.preallocation = preallocation;
        self
    }

    /// Makes an image with `size` bytes of payload (rounded up to a sector) that opens with
    /// `passphrase`, in keyslot 0.
    ///
    /// [`ErrorKind::Exists`](crate::ErrorKind::Exists) if there is a file of this name and it may not be replaced,
    /// [`ErrorKind::InUse`](crate::ErrorKind::InUse) if it may, but somebody has it open; and what [`check`](Self::check)
    /// says.
    ///
    /// ```
    /// use keyslot::kdf::Cost;
    /// use keyslot::{CreateOptions, Passphrase, OpenOptions, Sharing};
    ///
    /// # fn main() -> keyslot::Result<()> {
    /// # let directory = tempfile::tempdir().expect("a directory");
    /// # let path = directory.path().join("image.luks");
    /// let secret = Passphrase::new(b"hunter0")?;
    /// let options = CreateOptions::new()?.cost(Cost::Iterations(1000));
    /// let created = options.create(&path, 1 << 20, &secret)?;
    ///
    /// // The volume key is at hand: nothing is derived once more.
    /// let image = OpenOptions::new().sharing(Sharing::WriteAlone).open(&path)?;
    /// image.volume(created.unlocked())?.write_all_at(b"first bytes", 0)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn create(
        &self,
        path: impl AsRef<Path>,
        size: u64,
        passphrase: &Passphrase,
    ) -> Result<Created> {
        self.begin(path, size, passphrase)?.finish()
    }

    /// The same, but for the end of it: the image has no name until it is
    /// [finished](NewImage::finish), so that it can be filled before.
    pub fn begin(
        &self,
        path: impl AsRef<Path>,
        size: u64,
        passphrase: &Passphrase,
    ) -> Result<NewImage> {
        let path = path.as_ref();
        self.try_begin(path, size, passphrase).map_err(|error| error.with_path(path))
    }

    fn try_begin(&self, path: &Path, size: u64, passphrase: &Passphrase) -> Result<NewImage> {
        self.check(size)?;
        let place = Place::new(path, self.overwrite)?;
        let parts = self.make(size, passphrase)?;
        let payload = if self.detached { 0 } else { size };
        let len = image_len(payload, self.header_len()?)?;
        let file = place.create(len, self.preallocation)?;
        let storage: Arc<dyn Storage> = Arc::<FileStorage>::clone(file.storage());
        let (header, unlocked) = parts.write(storage.as_ref(), "no image was made")?;
        let volume = if self.detached {
            None
        } else {
            Some(Volume::new(
                storage,
                header.segments(len)?,
                &Keyring::single(unlocked.volume_key()),
            )?)
        };
        let created = Created { header, unlocked, payload_len: size.next_multiple_of(512) };
        Ok(NewImage { file, created, volume })
    }
}

/// An image that is complete but for its name. If it is dropped, there was none.
#[derive(Debug)]
pub struct NewImage {
    file: NewFile,
    created: Created,
    /// None if the header is detached
    volume: Option<Volume>,
}

impl NewImage {
    /// Its header
    pub fn header(&self) -> &Header {
        self.created.header()
    }

    /// The data of the image: nothing yet, which decrypts to noise.
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the header is detached: its payload is not there yet.
    pub fn volume(&self) -> Result<&Volume> {
        self.volume.as_ref().ok_or_else(|| invalid("a new detached header has no volume"))
    }

    /// The image's file
    pub fn file(&self) -> &FileStorage {
        self.file.storage()
    }

    /// Reads the header and opens it with the passphrase, as whoever opens the image will.
    pub fn check(&self, passphrase: &Passphrase) -> Result<()> {
        let file = self.file();
        Header::read(file)
            .and_then(|header| unlock(file, &header, passphrase, Limits::NONE))
            .map(drop)
            .map_err(|error| error.with_path(file.path()))
    }

    /// Makes all of it durable, and gives it its name.
    pub fn finish(self) -> Result<Created> {
        self.file.publish()?;
        Ok(self.created)
    }
}
