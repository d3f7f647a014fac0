//! The keyslots of LUKS disk images: read, check, add, erase and replace them, safely.
//!
//! No root, no device-mapper, no loop device: files in, files out. An [`Image`] is opened,
//! [unlocked](Image::unlock) with a [`Passphrase`], and amended in two steps: a
//! [plan](Image::plan), which is only looked at, and the [commit](Image::amend), which writes it
//! in an order that leaves an image that opens, wherever it is interrupted.
//!
//! ```
//! use keyslot::amend::{Change, Request};
//! use keyslot::kdf::Cost;
//! use keyslot::{Image, OpenOptions, Passphrase, Sharing};
//!
//! # fn main() -> keyslot::Result<()> {
//! # let directory = tempfile::tempdir().expect("a directory");
//! # let path = directory.path().join("image.luks");
//! # std::fs::copy("testdata/luks1_qemu.img", &path).expect("a copy");
//! let (old, new) = (Passphrase::new(b"hunter0")?, Passphrase::new(b"hunter1")?);
//!
//! // Locked against everybody else from here on, QEMU and cryptsetup included.
//! let mut image = OpenOptions::new().sharing(Sharing::Amend).open(&path)?;
//! let unlocked = image.unlock(&old)?;
//! let replace = Change::replace(&old, &new, Cost::Iterations(1000));
//! let plan = image.plan(Request::one(replace))?;
//! image.amend(&plan, Some(&unlocked))?;
//!
//! assert_eq!(image.unlock(&new)?.keyslot(), Some(0));
//! assert!(image.unlock(&old).is_err());
//! for keyslot in Image::open(&path)?.keyslots() {
//!     println!("keyslot {}: active {}", keyslot.index, keyslot.active);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What is in an unlocked image is read and written through a [`Volume`].
//!
//! The parts can be used alone: [`crypto`] does no I/O, [`header`] parses bytes, and
//! [`storage::Storage`] is a trait that anybody can supply. `default-features = false` gives the
//! library without what only the command needs.

#[cfg(all(feature = "file", not(target_os = "linux")))]
compile_error!("the feature `file` is for Linux: build with default-features = false");

pub mod amend;
pub mod container;
pub mod crypto;
pub mod error;
pub mod header;
pub mod image;
pub mod json;
pub mod kdf;
mod overrides;
#[cfg(feature = "qemu")]
pub mod qemu;
pub mod secret;
pub mod storage;
pub mod unlock;
pub mod volume;

pub use error::{Error, ErrorKind, Operation, Result};
#[cfg(feature = "file")]
pub use image::NewImage;
pub use image::{
    CreateOptions, Created, Done, Format, Image, Luks2Options, OpenOptions, Restoration,
};
pub use overrides::{Override, Overrides};
pub use secret::{Passphrase, VolumeKey};
#[cfg(feature = "file")]
pub use storage::Preallocation;
pub use storage::Sharing;
pub use unlock::{Limits, Unlocked};
pub use volume::Volume;
