//! LUKS disk images in user space: read, check, add, erase and replace keyslots, and read and write
//! the data they protect. Needs no root, no device-mapper and no loop device.
//!
//! # Which API do you want
//!
//! | to | use |
//! |---|---|
//! | read the header and the keyslots of a file | [`Image::open`](crate::Image) |
//! | lock an image, amend it, or serve it as a disk | [`OpenOptions`] |
//! | open an image by a descriptor, such as one that was passed to a VMM | [`OpenOptions::open_file`](crate::OpenOptions) |
//! | open an image that is not a local file | [`OpenOptions::open_storage`] over your [`storage::Storage`] |
//! | add, erase or replace keyslots | [`Image::plan`], then [`Image::amend`] |
//! | read and write the data | [`Image::unlock`], then [`Image::volume`] and [`Volume`] |
//! | unlock with a volume key that you keep | [`Image::unlock_with_key`] |
//! | create an image | [`CreateOptions`] |
//! | copy and convert | [`volume::CopyOptions`] |
//! | save and restore a header | [`header::Backup`], [`Restoration`] |
//! | parse a header alone | [`header::Header::read`] |
//! | encrypt sectors with your own I/O | [`crypto::SectorCipher`] |
//!
//! # Changing keyslots
//!
//! An image is amended in two steps. A [plan](Image::plan) describes the change and can be printed.
//! The [commit](Image::amend) writes it in an order that leaves an image that opens, wherever it is
//! interrupted.
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
//! // Locked against all other programs from here on, including QEMU and cryptsetup.
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
//! # Reading and writing the data
//!
//! ```
//! use keyslot::{Image, OpenOptions, Passphrase, Sharing};
//!
//! # fn main() -> keyslot::Result<()> {
//! # let directory = tempfile::tempdir().expect("a directory");
//! # let path = directory.path().join("image.luks");
//! # std::fs::copy("testdata/luks1_qemu.img", &path).expect("a copy");
//! // The disk of a virtual machine: others may read the image, but none may write it.
//! let image = OpenOptions::new().sharing(Sharing::WriteAlone).open(&path)?;
//! let unlocked = image.unlock(&Passphrase::new(b"hunter0")?)?;
//! let volume = image.volume(&unlocked)?;
//! volume.write_all_at(b"any bytes, at any offset", 1000)?;
//! volume.sync()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Features and systems
//!
//! | feature | contents | systems |
//! |---|---|---|
//! | none | headers, crypto, [`Volume`] and amendments over your own storage | any with std: Linux, macOS, FreeBSD, Windows, 32 and 64 bits |
//! | `file` | files and block devices, their locks, new files | Linux |
//! | `qemu` | QEMU's option strings, image specifications and secret objects | any |
//! | `cli` (default) | the command, with both | Linux |
//!
//! Use `default-features = false` in a library. The minimum supported Rust version is 1.89; raising
//! it is a minor version change. The crate enables no feature of a dependency that changes its
//! behaviour for other crates.
//!
//! # Blocking and threads
//!
//! Every call blocks. Unlocking takes as long as the keyslot's KDF, often seconds, so an
//! asynchronous program should call it on a thread for blocking work. Reads and writes of a
//! [`Volume`] take `&self`, and any number of threads may make them. A KDF, a search over keyslots
//! and a copy start their own threads, up to one for each CPU. These end before the call returns,
//! and rayon's global pool is not used.
//!
//! # Fork
//!
//! A child shares the open file descriptions of its parent and therefore their locks: the image
//! stays locked until both have closed it. The only global state in the process is a table of the
//! storages that have volumes. It is needed because volumes over one file must be serialised,
//! however often the file was opened. Its mutex is held while [`Image::volume`] looks up a storage,
//! and never during I/O. If a program forks while another thread is in that call, the child must
//! not open a volume before `exec`.
//!
//! # Memory
//!
//! Passphrases, derived keys and volume keys are in pages of their own, locked and excluded from
//! core dumps where the system allows, and wiped when dropped ([`secret::SecretBytes`]). An
//! [`Unlocked`] holds the volume key for as long as it lives, and a [`Volume`] holds its round
//! keys. An image opened for amendment keeps keyed digests of the passphrases tried, but no
//! passphrase. Round keys and the memory of Argon2 are ordinary memory that is wiped after use, so
//! a program should disable its core dumps.
//!
//! A header is hostile input. Its numbers are bounded before memory is allocated, and [`Limits`]
//! bound the time and memory of its KDFs: by default two minutes on a PC of 2025, and 4 GiB.

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

pub use container::DiskFormat;
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
