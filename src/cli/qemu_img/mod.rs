//! The name qemu-img: which command lines keyslot serves itself.

mod served;

pub use self::served::{Images, Side};
