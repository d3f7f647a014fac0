//! However many keyslots with Argon2 a secret is tried on, it takes the memory of one of them.
//!
//! The only test here: the system counts all children of the process together.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/command.rs"]
mod command;
mod support;

use command::{Scene, assert_no_secret};
use keyslot::Limits;
use keyslot::storage::ReadOnlyBytes;
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Map, Value, json};
use support::luks2::{Change, Luks2, roomy};

/// As many as there can be.
const KEYSLOTS: usize = 32;

/// Of one of them, in KiB.
const MEMORY: i64 = 64 << 10;

/// Of everything else, in KiB.
const REST: i64 = 40 << 10;

#[test]
fn a_wrong_secret_takes_the_memory_of_one_keyslot() {
    let image = image();
    let opened = support::open_on(ReadOnlyBytes(image.bytes.clone()), Limits::NONE).unwrap();
    assert_eq!(opened.keyslots().filter(|keyslot| keyslot.active).count(), KEYSLOTS);
    let scene = Scene::of(&image.bytes);

    let output = scene.command(&["check", "--secret", "env:WRONG", "IMG"]).output().unwrap();
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    assert_no_secret(&output);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    // They have been tried.
    eprintln!("{peak} KiB");
    assert!(peak >= MEMORY, "{peak} KiB");
    assert!(peak < MEMORY + REST, "{peak} KiB");
    assert!(scene.bytes() == image.bytes);
}

/// Nobody knows a secret of it: its key material is as blank as it can be.
fn image() -> Luks2 {
    let areas_before = 5;
    let image = roomy(KEYSLOTS - areas_before);
    let salt = &image.metadata(0)["keyslots"]["0"]["kdf"]["salt"];
    let keyslot = |index: usize| {
        json!({
            "type": "luks2",
            "key_size": 16,
            "af": { "type": "luks1", "stripes": 4000, "hash": "sha256" },
            "area": {
                "type": "raw",
                "offset": (2 * image.hdr_size + (index << 16)).to_string(),
                "size": "65536",
                "encryption": "aes-cbc-essiv:sha256",
                "key_size": 16,
            },
            "kdf": {
                "type": "argon2id",
                "time": 1,
                "memory": MEMORY,
                "cpus": 1,
                "salt": salt,
            },
        })
    };
    let keyslots: Map<_, _> = (0..KEYSLOTS).map(|i| (i.to_string(), keyslot(i))).collect();
    let names: Vec<_> = keyslots.keys().cloned().collect();
    let mut digests = image.metadata(0)["digests"].clone();
    digests.as_object_mut().unwrap().shift_remove("1").unwrap();
    digests["0"]["keyslots"] = json!(names);
    image.with(&Change::Set(vec![("/keyslots", Value::Object(keyslots)), ("/digests", digests)]))
}
