//! LUKS2 images go both ways between cryptsetup 2.6.1 and keyslot: what it makes we amend, and what
//! we amend it opens and amends. Nothing in the metadata is lost on the way, and nothing is where
//! cryptsetup would not have put it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::path::Path;

use keyslot::Done;
use keyslot::amend::Change;
use keyslot::crypto::KdfKind;
use serde_json::json;
use support::amending::{amend, directory, passphrase};
use support::both_ways::{add, kdf_options, opens_as_it_should, pbkdf, replace};
use support::cryptsetup::Cryptsetup;
use support::luks2::{Change as Edit, Luks2};
use support::luks2_state::State;
use support::parallel::in_parallel;

const CIPHERS: [(&str, usize); 13] = [
    ("aes-xts-plain64", 512),
    ("aes-xts-plain64", 256),
    ("aes-xts-plain", 256),
    ("aes-xts-essiv:sha256", 512),
    ("aes-cbc-essiv:sha256", 128),
    ("aes-cbc-essiv:sha256", 192),
    ("aes-cbc-plain64", 256),
    ("aes-cbc-plain64be", 128),
    ("aes-cbc-null", 256),
    ("aes-ctr-plain64", 192),
    ("aes-ecb", 256),
    ("camellia-cbc-plain64", 256),
    ("camellia-ctr-plain64", 128),
];
const HASHES: [&str; 5] = ["sha256", "sha1", "sha512", "ripemd160", "whirlpool"];
const KDFS: [KdfKind; 3] = [KdfKind::Pbkdf2, KdfKind::Argon2i, KdfKind::Argon2id];
const SECTORS: [usize; 4] = [512, 1024, 2048, 4096];

/// What cryptsetup makes, and where we add.
#[derive(Debug)]
struct Case {
    cipher: (&'static str, usize),
    hash: &'static str,
    sector: usize,
    /// KDF of the keyslots that are there, of the one to be added, of the replaced ones
    kdfs: [KdfKind; 3],
    /// The first keyslot, and how many more
    first: usize,
    more: usize,
    /// Where to add
    keyslot: Option<usize>,
}

/// Every value of each with most of the others'.
fn cases() -> Vec<Case> {
    let firsts = [0, 1, 31, 7];
    let keyslots = [None, Some(0), Some(1), Some(7), Some(31), Some(30), None];
    let all = (0..52).map(|i| Case {
        cipher: CIPHERS[i % 13],
        hash: HASHES[i % 5],
        sector: SECTORS[i / 2 % 4],
        kdfs: [KDFS[i % 3], KDFS[(i / 3 + 1) % 3], KDFS[(i / 9 + 2) % 3]],
        first: firsts[i / 3 % 4],
        more: [0, 1, 3][i / 5 % 3],
        keyslot: keyslots[i % 7].filter(|&keyslot| keyslot != firsts[i / 3 % 4]),
    });
    all.collect()
}

/// Members that nobody knows, long numbers, and tokens for these two keyslots.
fn decorate(image: &Path, keyslots: [usize; 2]) {
    let luks2 = Luks2::new(fs::read(image).unwrap());
    let [one, other] = keyslots.map(|keyslot| keyslot.to_string());
    let mut slots = luks2.metadata(0)["keyslots"].clone();
    slots[&one]["x-note"] = json!({ "of": ["nobody", null, i64::MIN] });
    slots[&one]["area"]["x-area"] = json!(true);
    let tokens = json!({
        "3": {
            "type": "systemd-tpm2", "keyslots": [one], "tpm2-blob": "AJ4AIA==", "tpm2-pcrs": [7],
            "tpm2-pcr-bank": "sha256", "tpm2-primary-alg": "ecc", "tpm2-pin": false,
            "tpm2-policy-hash": "00".repeat(32),
        },
        "0": {
            "type": "clevis", "keyslots": [other, one],
            "jwe": { "ciphertext": "x/y", "protected": { "clevis": { "pin": "tang" } } },
        },
        "31": { "type": "nobody-knows", "keyslots": [] },
    });
    let changed = luks2.with(&Edit::Set(vec![
        ("/keyslots", slots),
        ("/tokens", tokens),
        ("/digests/0/x-digest", json!(u64::MAX)),
        ("/segments/0/x-segment", json!("\u{fc}\"\\\n")),
        ("/config/x-config", json!({ "z": 1, "a": i64::MAX, "m": [] })),
        ("/x-top", json!([{ "b": 1, "a": 2 }])),
    ]));
    fs::write(image, changed.bytes).unwrap();
}

const MORE: [&str; 3] = ["more 0", "more 1", "more 2"];

#[test]
fn what_cryptsetup_makes_we_amend_and_it_opens_and_amends() {
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    in_parallel(cases(), |case| {
        let directory = directory();
        let image = &directory.path().join("image.luks");
        let mut open = made_by_cryptsetup(&cryptsetup, image, case);
        let added = add_as_cryptsetup_does(&cryptsetup, image, case);
        open.push((added, "second"));
        opens_as_it_should(&cryptsetup, image, &open, &["third", "fourth"]);

        let kdf = pbkdf(case.kdfs[2]);
        let before = State::of(image);
        assert_eq!(replace(image, ["first", "third"], None, kdf), case.first);
        State::of(image).assert_replaced_in(&before, case.first);
        let before = State::of(image);
        let kept = pbkdf(case.kdfs[1]).kind(None);
        assert_eq!(replace(image, ["third", "fourth"], Some(added), kept), added);
        let after = State::of(image);
        after.assert_replaced_in(&before, added);
        assert_eq!(after.slot(added)["kdf"]["type"], case.kdfs[1].name());
        open[0].1 = "third";
        open.last_mut().unwrap().1 = "fourth";
        opens_as_it_should(&cryptsetup, image, &open, &["first", "second"]);

        let before = State::of(image);
        let by_secret = Change::erase_secret(&passphrase("third"));
        assert_eq!(amend(image, None, by_secret), [Done::Erased { keyslot: case.first }]);
        State::of(image).assert_erased_from(&before, case.first);
        open.remove(0);
        opens_as_it_should(&cryptsetup, image, &open, &["first", "third"]);
        if case.more > 0 {
            let (keyslot, secret) = open.remove(0);
            let before = State::of(image);
            amend(image, None, Change::erase(keyslot));
            State::of(image).assert_erased_from(&before, keyslot);
            opens_as_it_should(&cryptsetup, image, &open, &["third", secret]);
        }
        amend_by_cryptsetup(&cryptsetup, image, open);
    });
}

/// An image of the case, and what opens its keyslots, the first one first.
fn made_by_cryptsetup(
    cryptsetup: &Cryptsetup,
    image: &Path,
    case: &Case,
) -> Vec<(usize, &'static str)> {
    let (bits, sector) = (case.cipher.1.to_string(), case.sector.to_string());
    let first = case.first.to_string();
    let mut options = vec!["-c", case.cipher.0, "-s", &bits, "-h", case.hash];
    options.extend(["--sector-size", &sector, "-S", &first]);
    options.extend(kdf_options(case.kdfs[0]));
    cryptsetup.format_luks2(image, b"first", case.more + 3, &options);
    let mut open = vec![(case.first, "first")];
    let free = (2..32).filter(|it| *it != case.first && Some(*it) != case.keyslot);
    for (secret, keyslot) in MORE.into_iter().take(case.more).zip(free) {
        let options = [&["-h", case.hash][..], &kdf_options(case.kdfs[1])].concat();
        cryptsetup.add_luks2(image, [b"first", secret.as_bytes()], keyslot, &options);
        open.push((keyslot, secret));
    }
    decorate(image, [open[0].0, open.last().unwrap().0]);
    open
}

/// Adds a secret, and compares what comes of it with what cryptsetup makes of a copy.
fn add_as_cryptsetup_does(cryptsetup: &Cryptsetup, image: &Path, case: &Case) -> usize {
    let theirs = &image.with_extension("theirs");
    fs::copy(image, theirs).unwrap();
    let before = State::of(image);
    let added = add(image, ["first", "second"], case.keyslot, pbkdf(case.kdfs[1]));
    let ours = State::of(image);
    ours.assert_added_to(&before, added);

    let number = case.keyslot.map(|keyslot| keyslot.to_string());
    let mut options = kdf_options(case.kdfs[1]);
    options.extend(number.iter().flat_map(|number| ["--new-key-slot", number]));
    cryptsetup.new_key("luksAddKey", theirs, [b"first", b"second"], &options);
    let theirs = State::of(theirs);
    let [ours, theirs] = [ours, theirs].map(|it| {
        let mut metadata = it.metadata;
        metadata["keyslots"][added.to_string()]["kdf"]["salt"] = json!("");
        metadata
    });
    assert_eq!(ours, theirs);
    added
}

/// The other way round: cryptsetup changes what we changed, and we open it.
fn amend_by_cryptsetup(cryptsetup: &Cryptsetup, image: &Path, mut open: Vec<(usize, &str)>) {
    let (keyslot, secret) = open[0];
    let options = kdf_options(KdfKind::Pbkdf2);
    let free = (0..32).find(|it| open.iter().all(|(keyslot, _)| keyslot != it)).unwrap();
    cryptsetup.new_key("luksAddKey", image, [secret.as_bytes(), b"fifth"], &options);
    open.push((free, "fifth"));
    opens_as_it_should(cryptsetup, image, &open, &["third"]);

    let number = keyslot.to_string();
    let options = [&["-S", &number][..], &kdf_options(KdfKind::Argon2id)].concat();
    cryptsetup.new_key("luksChangeKey", image, [secret.as_bytes(), b"sixth"], &options);
    open[0].1 = "sixth";
    opens_as_it_should(cryptsetup, image, &open, &[secret]);

    cryptsetup.kill(image, free);
    open.pop();
    opens_as_it_should(cryptsetup, image, &open, &["fifth"]);
    // What it killed is free for us.
    assert_eq!(add(image, ["sixth", "seventh"], None, pbkdf(KdfKind::Argon2i)), free);
    cryptsetup.remove(image, b"sixth");
    open[0] = (free, "seventh");
    opens_as_it_should(cryptsetup, image, &open, &["fifth", "sixth"]);
}
