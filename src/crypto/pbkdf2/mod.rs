//! PBKDF2-HMAC (RFC 8018, section 5.2), with as many output blocks at a time as a core can run.
//!
//! Each iteration depends on the one before it, which leaves most of a core idle. But output blocks
//! do not depend on each other: those of one key, keys of other keyslots, and the digest checks
//! that follow. So each is a [`Job`], and [`Lanes`] runs many of them together.
//!
//! SHA-1 and SHA-2 have kernels for instruction set extensions (`x86`), which are detected at run
//! time. `kernel` selects the fastest of them for a number of jobs. All other hashes run one job
//! after the other (`portable`).
//!
//! # Many keyslots
//!
//! This example tries one password on eight keyslots with keys of two blocks each. When a key is
//! complete, its digest is checked, which is another job. The first match ends the search. A
//! program with threads gives each of them its own lanes and a shared queue of jobs, as
//! [`search`](crate::unlock::search) does.
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
//! // For each keyslot, its key and the number of missing blocks.
//! let mut keys = vec![(vec![0; key_size], blocks); 8];
//! let mut found = None;
//!
//! let mut lanes = Lanes::new(hash);
//! while found.is_none() {
//!     while lanes.has_room()
//!         && let Some(task) = tasks.pop_front()
//!     {
//!         // The id of a job: block 0 stands for the digest.
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
//!     // Takes a few milliseconds at most.
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
