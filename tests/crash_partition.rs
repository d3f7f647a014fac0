//! The promise of an amendment, in a partition of a disk: it holds as it does for an image that has a
//! file to itself, and no state differs from the disk before outside of the partition.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use keyslot::Passphrase;
use keyslot::amend::Change;
use support::luks2::roomy;
use support::opener::{add, erase, replace, secret, small_key};
use support::promise::{Promise, check};
use support::{memory, partition};

/// Amends the image in the partition, which the first secret opens. `old` becomes `new`.
fn check_all(image: &[u8], untouched: &[&Passphrase], old: (usize, &Passphrase), is_luks2: bool) {
    let (keyslot, old) = old;
    let new = secret("new");
    let all = [untouched, &[old, &new]].concat();
    let with_old = [untouched, &[old]].concat();
    let disk = partition::around(image);
    let states = |what: &str, change: &dyn Fn() -> Change, promise: &Promise| {
        let amended = check(disk.clone(), &all, || vec![change()], promise);
        println!("{what}: {} states", amended.states);
    };
    let promise = Promise { untouched: &with_old, either: &[], atomic: true };
    states("add", &|| add(2, &new), &promise);
    let promise = Promise { untouched, either: &[], atomic: true };
    states("erase", &|| erase(keyslot), &promise);
    let promise = Promise { untouched, either: &[(old, &new)], atomic: is_luks2 };
    states("replace", &|| replace(keyslot, &new), &promise);
}

#[test]
fn luks1() {
    let (a, old) = (secret("a"), secret("old"));
    let image = memory::image(&small_key(), &[(0, &a), (6, &old)]);
    check_all(&image, &[&a], (6, &old), false);
}

#[test]
fn luks2() {
    let [zero, three, five, seven] = [0, 3, 5, 7].map(|number| secret(&format!("hunter{number}")));
    check_all(&roomy(2).bytes, &[&zero, &three, &seven], (5, &five), true);
}
