//! Changing keyslots: what to change ([`request`](Request)), which slots that is ([`Plan`]), and
//! writing it so that a crash at any instant leaves an image that opens (`commit`).
//!
//! The semantics and the order of checks are those of `qemu-img amend`; `replace`, several changes
//! at once, and erasing by index without a secret are ours. A check that fails is an [`AmendFault`].

mod commit;
mod fault;
mod new_secret;
mod picture;
mod plan;
mod request;
mod warnings;

pub(crate) use commit::commit;
pub use fault::{AmendFault, ChangeKind};
pub use new_secret::NewSecret;
pub use plan::{Plan, PlannedChange};
pub use request::{Change, Request};
