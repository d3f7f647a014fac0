//! Creates an image in a new file.

use std::path::Path;
use std::sync::Arc;

use super::{CreateOptions, Created, Format, Parts, image_len, invalid, round_up};
use crate::container::{DiskFiles, NewQcow2, Qcow2Header, Qcow2Map, Qcow2Options};
use crate::error::{Error, Result};
use crate::header::Header;
use crate::image::OpenOptions;
use crate::image::volume::crypt_of;
use crate::secret::Passphrase;
use crate::storage::{FileStorage, NewFile, Place, Preallocation, Storage, Window};
use crate::unlock::Limits;
use crate::volume::{Keyring, Volume};

impl CreateOptions {
    /// Sets how space for the payload is allocated.
    #[must_use]
    pub fn preallocation(mut self, preallocation: Preallocation) -> Self {
        self.preallocation = preallocation;
        self
    }

    /// Creates an image with `size` bytes of payload, rounded up to a sector. `passphrase` opens its
    /// keyslot 0.
    ///
    /// Fails with [`ErrorKind::Exists`](crate::ErrorKind::Exists) if the file exists and
    /// [`overwrite`](Self::overwrite) is not set, with [`ErrorKind::InUse`](crate::ErrorKind::InUse) if
    /// the file to replace is open in another program, and with the errors of [`check`](Self::check).
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

    /// Creates an image without a name, so that it can be filled first.
    /// [`finish`](NewImage::finish) gives it its name.
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
        let place = Place::new(path, self.overwrite)?.keep_file(self.keep_file);
        let parts = self.make(size, passphrase)?;
        if let Format::Qcow2(options) = &self.format {
            let qcow2 = options.build(round_up(size)?, self.header_len()?)?;
            let file = place.create(qcow2.len, self.preallocation)?;
            return Self::begin_qcow2(file, &qcow2, size, parts, options);
        }
        let payload = if self.detached { 0 } else { size };
        let len = image_len(payload, self.header_len()?)?;
        let file = place.create(len, self.preallocation)?;
        let storage: Arc<dyn Storage> = Arc::<FileStorage>::clone(file.storage());
        let (header, unlocked) = parts.write(storage.as_ref(), "no image was created")?;
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
        Ok(NewImage { file, created, volume, qcow2: None })
    }
}

impl CreateOptions {
    /// Writes a qcow2 image to a new file.
    fn begin_qcow2(
        file: NewFile,
        qcow2: &NewQcow2,
        size: u64,
        parts: Parts,
        options: &Qcow2Options,
    ) -> Result<NewImage> {
        let storage: Arc<dyn Storage> = Arc::<FileStorage>::clone(file.storage());
        qcow2.write(storage.as_ref())?;
        let (offset, len) = (qcow2.crypto.start, qcow2.crypto.end - qcow2.crypto.start);
        let window = Window::new(Arc::clone(&storage), offset, Some(len));
        let window = window.map_err(|e| Error::io("find the LUKS header", e))?;
        let (header, unlocked) = parts.write(&window, "no image was created")?;
        let created = Created { header, unlocked, payload_len: round_up(size)? };
        let volume = if options.backing_file.is_some() {
            None
        } else {
            let (crypt, files) = (crypt_of(&created.header)?, DiskFiles::default());
            let clusters = Qcow2Header::read(storage.as_ref())
                .and_then(|header| Qcow2Map::open(storage, header, files, Some(crypt)))?;
            // The file has no name until it is complete.
            let clusters = Arc::new(clusters.unordered());
            let key = Keyring::single(created.unlocked.volume_key());
            Some(Volume::over(clusters, &key)?)
        };
        Ok(NewImage { file, created, volume, qcow2: Some(options.clone()) })
    }
}

/// A complete image without a name. Dropping it discards the image.
#[derive(Debug)]
pub struct NewImage {
    file: NewFile,
    created: Created,
    /// `None` if the header is detached, or bytes may come from a backing file
    volume: Option<Volume>,
    qcow2: Option<Qcow2Options>,
}

impl NewImage {
    /// Header of the image.
    pub fn header(&self) -> &Header {
        self.created.header()
    }

    /// Options of the qcow2 image, if it is one.
    pub fn qcow2(&self) -> Option<&Qcow2Options> {
        self.qcow2.as_ref()
    }

    /// Volume of the image. Sectors that were never written decrypt to noise.
    ///
    /// Fails with [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the header is detached,
    /// because the payload is in another file, and if the image has a backing file.
    pub fn volume(&self) -> Result<&Volume> {
        self.volume.as_ref().ok_or_else(|| invalid("the new image has data in other files"))
    }

    /// File of the image.
    pub fn file(&self) -> &FileStorage {
        self.file.storage()
    }

    /// Reads the header back and checks that the passphrase opens it.
    pub fn check(&self, passphrase: &Passphrase) -> Result<()> {
        let file = self.file.storage();
        let options = OpenOptions::new().limits(Limits::NONE).name(file.path());
        let storage: Arc<dyn Storage> = Arc::<FileStorage>::clone(file);
        options.open_storage(storage)?.unlock(passphrase).map(drop)
    }

    /// Makes the image durable, then gives it its name.
    pub fn finish(self) -> Result<Created> {
        self.file.publish()?;
        Ok(self.created)
    }
}
