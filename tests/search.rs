//! A secret tried on many keyslots at once: what opens is what opens one after the other, the first
//! that opens ends the rest, and nothing is derived twice.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use keyslot::amend::{Change, Request};
use keyslot::crypto::{Argon2Variant, CipherSpec, HashAlg, KdfAlg};
use keyslot::header::{Header, Scheme, SlotChange, Step};
use keyslot::kdf::Cost;
use keyslot::storage::ReadOnlyBytes;
use keyslot::storage::Storage;
use keyslot::unlock::{Candidate, Until, seal, search};
use keyslot::{ErrorKind, Image, Limits, OpenOptions, Passphrase, Sharing};
use support::luks2::roomy;
use support::memory::{self, Memory};
use support::opener::{secret, small_key};
use support::watched::{Watch, Watched};

const ARGON2: KdfAlg =
    KdfAlg::Argon2 { variant: Argon2Variant::Argon2id, time: 1, memory: 32, parallelism: 1 };

fn pbkdf2(hash: HashAlg, iterations: u32) -> KdfAlg {
    KdfAlg::Pbkdf2 { hash, iterations }
}

/// A LUKS2 image with these secrets in its keyslots 8, 9 and so on, by these KDFs.
fn image(slots: &[(&Passphrase, KdfAlg)]) -> Vec<u8> {
    let mut bytes = roomy(slots.len()).bytes;
    let storage = ReadOnlyBytes(bytes.clone());
    let header = Header::read(&storage).unwrap();
    let image = support::open_on(storage, Limits::NONE).unwrap();
    let unlocked = image.unlock(&secret("hunter0")).unwrap();
    let encryption = CipherSpec::parse("aes", "xts-plain64", 64).unwrap();
    let change = |(place, &(secret, kdf)): (usize, &(&Passphrase, KdfAlg))| {
        let scheme = Scheme { kdf, encryption: encryption.clone(), af_hash: HashAlg::Sha256 };
        SlotChange::Activate {
            keyslot: 8 + place,
            sealed: seal(&scheme, unlocked.volume_key(), secret).unwrap(),
        }
    };
    let changes: Vec<_> = slots.iter().enumerate().map(change).collect();
    for step in header.lower(&changes).unwrap().0.iter().flat_map(|stage| &stage.steps) {
        if let Step::Write { offset, bytes: written } = step {
            let offset = usize::try_from(*offset).unwrap();
            bytes[offset..offset + written.len()].copy_from_slice(written);
        }
    }
    bytes
}

fn candidates<'a>(
    storage: &'a ReadOnlyBytes<Vec<u8>>,
    header: &'a Header,
    from: usize,
) -> Vec<Candidate<'a>> {
    let keyslots = header.keyslots().filter(|keyslot| keyslot.index >= from);
    keyslots.map(|keyslot| Candidate { storage, keyslot }).collect()
}

/// Every hash with lanes, one without, Argon2, and counts that differ.
#[test]
fn what_opens_is_what_opens_one_after_the_other() {
    let (a, b) = (secret("a"), secret("b"));
    let kdfs = [
        pbkdf2(HashAlg::Sha256, 1000),
        pbkdf2(HashAlg::Sha1, 300),
        ARGON2,
        pbkdf2(HashAlg::Sha512, 7),
        pbkdf2(HashAlg::Sha256, 1),
        pbkdf2(HashAlg::Whirlpool, 20),
        pbkdf2(HashAlg::Sha384, 5000),
        pbkdf2(HashAlg::Sha256, 2000),
        pbkdf2(HashAlg::Sha256, 1001),
        ARGON2,
    ];
    let slots: Vec<_> =
        kdfs.iter().enumerate().map(|(i, &kdf)| (if i % 3 == 1 { &b } else { &a }, kdf)).collect();
    let storage = ReadOnlyBytes(image(&slots));
    let header = Header::read(&storage).unwrap();
    let candidates = candidates(&storage, &header, 8);
    assert_eq!(candidates.len(), kdfs.len());
    for (secret, is_its) in [(&a, [true, false]), (&b, [false, true]), (&secret("c"), [false; 2])] {
        let outcomes = search(&candidates, secret, Limits::NONE, Until::All);
        for (i, outcome) in outcomes.into_iter().enumerate() {
            let opens = outcome.unwrap().unwrap().is_some();
            assert_eq!(opens, is_its[usize::from(i % 3 == 1)], "{i}");
        }
        for (i, candidate) in candidates.iter().enumerate() {
            let one = search(std::slice::from_ref(candidate), secret, Limits::NONE, Until::First);
            let opens = one.into_iter().next().flatten().unwrap().unwrap().is_some();
            assert_eq!(opens, is_its[usize::from(i % 3 == 1)], "{i}");
        }
    }
}

#[test]
fn the_right_one_is_found_wherever_it_is() {
    let (right, wrong) = (secret("right"), secret("wrong"));
    for place in 0..8 {
        let slots: Vec<_> = (0..8).map(|i| (i, if i == place { &right } else { &wrong })).collect();
        let bytes = memory::image(&small_key(), &slots);
        let image = support::open_on(ReadOnlyBytes(bytes), Limits::NONE).unwrap();
        assert_eq!(image.unlock(&right).unwrap().keyslot(), Some(place));
        let other = image.unlock(&secret("other")).unwrap_err();
        assert_eq!(other.kind(), ErrorKind::WrongSecret);
    }
}

/// The others would take minutes.
#[test]
fn the_first_that_opens_ends_the_rest() {
    let (right, wrong) = (secret("right"), secret("wrong"));
    let endless = pbkdf2(HashAlg::Sha256, u32::MAX);
    let mut slots = vec![(&right, pbkdf2(HashAlg::Sha256, 1000))];
    slots.extend([(&wrong, pbkdf2(HashAlg::Sha256, 1)); 9]);
    let mut bytes = image(&slots);
    // What they hold does not matter any more.
    let text = support::luks2::Luks2::new(bytes.clone());
    let mut metadata = text.metadata(0);
    for number in 9..18 {
        metadata["keyslots"][number.to_string()]["kdf"]["iterations"] = u32::MAX.into();
    }
    let keyslots = metadata["keyslots"].clone();
    bytes = text.with(&support::luks2::Change::Set(vec![("/keyslots", keyslots)])).bytes;
    let storage = ReadOnlyBytes(bytes);
    let header = Header::read(&storage).unwrap();
    let mut candidates = candidates(&storage, &header, 8);
    assert_eq!(candidates[1].keyslot.kdf.alg, endless);
    let has_threads = std::thread::available_parallelism().is_ok_and(|it| it.get() > 1);
    // In front, and behind one that has a thread to itself for the rest of the day.
    for place in if has_threads { 0..2 } else { 0..1 } {
        let right_one = candidates.iter().position(|it| it.keyslot.index == 8).unwrap();
        let moved = candidates.remove(right_one);
        candidates.insert(place, moved);
        let outcomes = search(&candidates, &right, Limits::NONE, Until::First);
        for (i, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Some(outcome) => assert!(i == place && outcome.unwrap().is_some()),
                None => assert_ne!(i, place),
            }
        }
    }
}

/// A storage that counts how often key material is read: once for each derivation.
#[derive(Debug)]
struct Counting(Arc<Memory>, Arc<AtomicUsize>);

impl Watch for Counting {
    fn below(&self) -> &dyn Storage {
        &self.0
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        // The length of the key material of a key of 16 bytes.
        self.1.fetch_add(usize::from(buf.len() == 64_000), Ordering::Relaxed);
        self.0.read_exact_at(buf, offset)
    }
}

#[test]
fn no_keyslot_is_derived_twice_for_one_amendment() {
    let (old, new) = (secret("old"), secret("new"));
    let bytes = memory::image(&small_key(), &[(2, &old)]);
    let count = Arc::new(AtomicUsize::new(0));
    let storage = Watched(Counting(Memory::new(bytes, None), Arc::clone(&count)));
    let mut image = support::open_on(storage, Limits::NONE).unwrap();
    let unlocked = image.unlock(&old).unwrap();
    let replace = Change::replace(&old, &new, Cost::Iterations(1));
    let plan = image.plan(Request::one(replace)).unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 1);
    image.amend(&plan, Some(&unlocked)).unwrap();
    // What was known of the old header is forgotten.
    assert!(image.unlock(&old).is_err() && image.opens(2, &new).unwrap());
    assert!(!image.opens(2, &old).unwrap());
}

/// The command opens an image without a lock, and locks it when all keys are derived.
#[test]
fn attempts_are_remembered_where_a_file_is_open_to_be_amended() {
    let a = secret("a");
    let bytes = memory::image(&small_key(), &[(0, &a)]);
    let options = OpenOptions::new;
    for (options, is_remembered) in [
        (options().write(true), true),
        (options().sharing(Sharing::ReadData).write(true), true),
        (options().sharing(Sharing::Amend), true),
        (options().sharing(Sharing::WriteAlone), false),
        (options(), false),
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let image = options.open(file.path()).unwrap();
        assert!(image.opens(0, &a).unwrap());
        // A derivation would read this.
        let keyslot = image.header().keyslot(0).unwrap();
        std::os::unix::fs::FileExt::write_all_at(
            file.as_file(),
            &vec![0; keyslot.area.len],
            keyslot.area.offset,
        )
        .unwrap();
        assert_eq!(image.opens(0, &a).unwrap(), is_remembered);
    }
}

/// Somebody else changed the keyslot meanwhile: what opened it before does not count.
#[test]
fn what_was_tried_on_another_header_is_forgotten() {
    let (old, other, new) = (secret("old"), secret("other"), secret("new"));
    let memory = Memory::new(memory::image(&small_key(), &[(0, &old), (1, &other)]), None);
    let open = || support::open_on(Arc::clone(&memory), Limits::NONE).unwrap();
    let mut mine = open();
    let plan = mine.plan(Request::one(Change::erase_secret(&old))).unwrap();
    let mut theirs = open();
    let unlocked = theirs.unlock(&old).unwrap();
    let replace = Change::replace(&old, &new, Cost::Iterations(1));
    let their_plan = theirs.plan(Request::one(replace)).unwrap();
    theirs.amend(&their_plan, Some(&unlocked)).unwrap();
    assert_eq!(mine.amend(&plan, None).unwrap_err().kind(), ErrorKind::Changed);
    let again = mine.plan(Request::one(Change::erase_secret(&old)));
    assert_eq!(again.unwrap_err().kind(), ErrorKind::WrongSecret);
}

/// Argon2 in front is not behind PBKDF2, which would take for ever.
#[test]
fn the_first_is_the_first_whatever_its_kdf() {
    let (right, wrong) = (secret("right"), secret("wrong"));
    let bytes = image(&[(&right, ARGON2), (&wrong, pbkdf2(HashAlg::Sha256, 1))]);
    let image = support::luks2::Luks2::new(bytes);
    let endless = vec![("/keyslots/9/kdf/iterations", u32::MAX.into())];
    let storage = ReadOnlyBytes(image.with(&support::luks2::Change::Set(endless)).bytes);
    let header = Header::read(&storage).unwrap();
    let candidates = candidates(&storage, &header, 8);
    let outcomes = search(&candidates, &right, Limits::NONE, Until::First);
    assert!(matches!(outcomes[..], [Some(Ok(Some(_))), None]));
}

#[test]
fn many_images_at_once() {
    let (a, b) = (secret("a"), secret("b"));
    let open = |slots: &[(usize, &Passphrase)]| {
        support::open_on(ReadOnlyBytes(memory::image(&small_key(), slots)), Limits::NONE).unwrap()
    };
    let luks2 = image(&[(&b, pbkdf2(HashAlg::Sha512, 3)), (&a, ARGON2)]);
    let images = [
        open(&[(0, &a), (5, &b)]),
        open(&[(1, &b)]),
        support::open_on(ReadOnlyBytes(luks2), Limits::default().with_memory(16)).unwrap(),
        open(&[]),
        open(&[(2, &a), (3, &a), (7, &b)]),
    ];
    let all = Image::try_images(&images.each_ref(), &a);
    let opened = |outcomes: &[(usize, keyslot::Result<bool>)]| -> Vec<_> {
        let opens = |outcome: &keyslot::Result<bool>| outcome.as_ref().is_ok_and(|&it| it);
        outcomes.iter().filter(|it| opens(&it.1)).map(|it| it.0).collect()
    };
    let all: Vec<_> = all.iter().map(|outcomes| (outcomes.len(), opened(outcomes))).collect();
    assert_eq!(all, [(2, vec![0]), (1, vec![]), (6, vec![]), (0, vec![]), (3, vec![2, 3])]);
    let kind = |outcome: &keyslot::Result<bool>| outcome.as_ref().err().map(keyslot::Error::kind);
    let luks2 = &Image::try_images(&[&images[2]], &b)[0];
    assert_eq!(opened(luks2), [8]);
    let refused: Vec<_> = luks2.iter().filter(|it| kind(&it.1).is_some()).map(|it| it.0).collect();
    assert_eq!(refused, [3, 9]);
}

#[test]
fn limits_and_failures_are_of_one_keyslot() {
    let right = secret("right");
    let slots = [
        (&right, pbkdf2(HashAlg::Sha256, 2000)),
        (&right, pbkdf2(HashAlg::Sha256, 1000)),
        (&right, ARGON2),
    ];
    let storage = ReadOnlyBytes(image(&slots));
    let header = Header::read(&storage).unwrap();
    let candidates = candidates(&storage, &header, 8);
    let limits = Limits::default().with_iterations(1500).with_memory(16);
    let kinds: Vec<_> = search(&candidates, &right, limits, Until::All)
        .into_iter()
        .map(|outcome| outcome.unwrap().map(|key| key.is_some()).map_err(|error| error.kind()))
        .collect();
    assert_eq!(kinds, [Err(ErrorKind::Limit), Ok(true), Err(ErrorKind::Limit)]);
    assert!(search(&[], &right, limits, Until::First).is_empty());
}

/// The cheapest are tried, and no image is refused for the work of another one.
#[test]
fn the_limit_on_time_is_for_all_keyslots_of_an_image_together() {
    const WORK: u32 = 100_000;
    let right = secret("right");
    // 14 ms each on a PC of 2025, by the table of the limits; and one of 280 ms.
    let mut slots = vec![(&right, pbkdf2(HashAlg::Sha256, WORK / 1000)); 4];
    slots.push((&right, pbkdf2(HashAlg::Whirlpool, 1)));
    let image = support::luks2::Luks2::new(image(&slots));
    let mut metadata = image.metadata(0);
    // What they hold does not matter: nothing over a limit is derived.
    for number in 8..12 {
        metadata["keyslots"][number.to_string()]["kdf"]["iterations"] = WORK.into();
    }
    metadata["keyslots"]["12"]["kdf"]["iterations"] = (2 * WORK).into();
    let keyslots = vec![("/keyslots", metadata["keyslots"].clone())];
    let bytes = image.with(&support::luks2::Change::Set(keyslots)).bytes;
    let open = |millis| {
        let limits = Limits::NONE.with_time(Duration::from_millis(millis));
        support::open_on(ReadOnlyBytes(bytes.clone()), limits).unwrap()
    };
    let over = |image: &Image| -> Vec<usize> {
        let mut over = Vec::new();
        for (keyslot, outcome) in Image::try_images(&[image], &secret("wrong")).remove(0) {
            if outcome.is_err_and(|error| error.kind() == ErrorKind::Limit) {
                over.push(keyslot);
            }
        }
        over
    };
    for (millis, expected) in [
        (400, vec![]),
        (330, vec![12]),
        (60, vec![12]),
        (45, vec![11, 12]),
        (20, vec![9, 10, 11, 12]),
    ] {
        assert_eq!(over(&open(millis)), expected, "{millis} ms");
    }
    let error = open(45).unlock(&secret("wrong")).unwrap_err();
    let text = "keyslot 11 asks for 14 ms of work after 43 ms for cheaper keyslots, the limit is 45 ms in total";
    assert_eq!((error.kind(), error.message()), (ErrorKind::Limit, text));
    let images = [open(60), open(60)];
    let outcomes = Image::try_images(&images.each_ref(), &secret("wrong"));
    for (image, outcomes) in images.iter().zip(outcomes) {
        assert_eq!(over(image), [12]);
        assert_eq!(outcomes.iter().filter(|(_, outcome)| outcome.is_err()).count(), 1);
    }
}

/// Also wrong ones, and on a storage of one's own.
#[test]
fn tried_passphrases_are_not_kept() {
    const LEN: usize = 1 << 18;
    let image = support::open_on(
        ReadOnlyBytes(memory::image(&small_key(), &[(0, &secret("a"))])),
        Limits::NONE,
    )
    .unwrap();
    let size = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').next().unwrap().parse::<usize>().unwrap() * 4096
    };
    let before = size();
    for number in 0..200_u8 {
        let wrong = Passphrase::new(&vec![number; LEN]).unwrap();
        assert!(!image.opens(0, &wrong).unwrap());
    }
    assert!(size() < before + 100 * LEN, "{} bytes more", size() - before);
}
