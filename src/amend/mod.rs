//! Amending keyslots. A [`Request`] lists the changes, a [`Plan`] resolves them to keyslots, and
//! `commit` writes them so that a crash at any instant leaves an image that opens.
//!
//! The semantics and the order of checks are those of `qemu-img amend`. Extensions are `replace`, several
//! changes at once, and erasing by index without a secret. A failed check is an [`AmendFault`].

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
