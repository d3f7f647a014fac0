//! The `keyslot` command.

fn main() {}
