//! PBKDF2-HMAC (RFC 8018, section 5.2), as many output blocks at a time as a core has room for.
//!
//! An iteration waits for the one before it, and leaves most of a core idle. But output blocks do
//! not depend on each other: those of one key, the keys of other keyslots, the check of a digest
//! after them. So each is a [`Job`], and [`Lanes`] carries many of them on together.
//!
//! For SHA-1 and SHA-2 there are kernels of instructions that a CPU may have or not (`x86`), which
//! is found out when the program runs; `kernel` knows which of them is the fastest for a number
//! of jobs. All other hashes run one job after the other (`portable`).
//!
//! # Many keyslots
//!
//! One password is tried on eight keyslots with keys of two blocks each; a key that is complete has its
//! digest compared, which is a job more; the first that is right ends it all. With threads, each has
//! lanes of its own and takes jobs from wherever the program keeps them: so does
//! [`search`](crate::unlock::search).
//!
//! ```
//! use std::collections::VecDeque;
//!
//! use keyslot::crypto::HashAlg;
//! use keyslot::crypto::kdf;
//! use keyslot::crypto::pbkdf2::{Job, Lanes};
//!
//! /// An output block of a keyslot's key, or the digest of a key that is complete.
//! enum Task {
//!     Key { slot: usize, block: u32 },
//!     Digest { slot: usize, key: Vec<u8> },
//! }
//!
//! # let (password, key_size, hash) = (b"password", 64, HashAlg::Sha256);
//! # let salts: Vec<[u8; 32]> = (0..8).map(|slot| [slot; 32]).collect();
//! # let mut right = [0; 64];
//! # kdf::pbkdf2(hash, password, &salts[5], 2000, &mut right);
//! # let mut digest = [0; 32];
//! # kdf::pbkdf2(hash, &right, b"salt", 1000, &mut digest);
//! let size = hash.digest_size();
//! let blocks = u32::try_from(key_size / size).unwrap();
//! let tasks = (0..8).flat_map(|slot| (1..=blocks).map(move |block| Task::Key { slot, block }));
//! let mut tasks: VecDeque<Task> = tasks.collect();
//! // Of each keyslot: its key, and how many blocks of it are still to come.
//! let mut keys = vec![(vec![0; key_size], blocks); 8];
//! let mut found = None;
//!
//! let mut lanes = Lanes::new(hash);
//! while found.is_none() {
//!     while lanes.has_room()
//!         && let Some(task) = tasks.pop_front()
//!     {
//!         // What it is known by: the digest is block 0.
//!         let (job, name) = match &task {
//!             Task::Key { slot, block } => (
//!                 Job { password, salt: &salts[*slot], iterations: 2000, block: *block },
//!                 (*slot, *block),
//!             ),
//!             Task::Digest { slot, key } => {
//!                 (Job { password: key, salt: b"salt", iterations: 1000, block: 1 }, (*slot, 0))
//!             }
//!         };
//!         lanes.push(job, name);
//!     }
//!     if lanes.is_empty() {
//!         break;
//!     }
//!     // A few milliseconds at most.
//!     lanes.step(|(slot, block), output| {
//!         if block == 0 {
//!             found = found.or((output == digest).then_some(slot));
//!             return;
//!         }
//!         let (key, missing) = &mut keys[slot];
//!         key[(block as usize - 1) * size..][..size].copy_from_slice(output);
//!         *missing -= 1;
//!         if *missing == 0 {
//!             tasks.push_front(Task::Digest { slot, key: key.clone() });
//!         }
//!     });
//! }
//! assert_eq!(found, Some(5));
//! ```

mod chain;
mod constants;
mod job;
mod kernel;
mod lanes;
mod portable;
mod sha;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests;

pub use job::Job;
pub use lanes::Lanes;
