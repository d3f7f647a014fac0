//! Calibration of key derivations to a given time on this machine.
//!
//! `Rate` is for PBKDF2, whose cost is one number. `argon2` finds passes and memory.

mod argon2;
mod pbkdf2;

pub use self::argon2::argon2;
pub use self::pbkdf2::Rate;
