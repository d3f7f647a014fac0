//! One LUKS2 image, changed by cryptsetup and by keyslot in turn, in every way that either knows.
//! After each change exactly those secrets open exactly those keyslots that the model has.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use keyslot::Overrides;
use keyslot::amend::{Change, Request};
use keyslot::crypto::KdfKind;
use keyslot::{ErrorKind, Image, OpenOptions, Sharing};
use support::amending::{directory, passphrase};
use support::both_ways::{kdf_options, pbkdf};
use support::cryptsetup::Cryptsetup;
use support::luks2_state::State;
use support::parallel::in_parallel;

/// So many keyslots have room.
const ROOM: usize = 5;
const ROUNDS: usize = 36;
const KDFS: [KdfKind; 3] = [KdfKind::Pbkdf2, KdfKind::Argon2i, KdfKind::Argon2id];

#[test]
fn in_turn() {
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    in_parallel((1..=10).collect(), |&seed| {
        let directory = directory();
        let image = directory.path().join("image.luks");
        let size = ["256", "512"][usize::try_from(seed % 2).unwrap()];
        let options = [&["-s", size][..], &kdf_options(KdfKind::Pbkdf2)].concat();
        cryptsetup.format_luks2(&image, b"secret 0", ROOM, &options);
        // As many areas as there are, whatever their length.
        let room = if size == "512" { ROOM } else { 2 * ROOM };
        let slots = BTreeMap::from([(0, 0)]);
        let cryptsetup = &cryptsetup;
        let mut play = Play { cryptsetup, image, slots, room, name: seed, seed, last: 0 };
        for round in 0..ROUNDS {
            play.round(round);
        }
    });
}

struct Play<'a> {
    cryptsetup: &'a Cryptsetup,
    image: std::path::PathBuf,
    /// The secret in each keyslot
    slots: BTreeMap<usize, u64>,
    room: usize,
    name: u64,
    seed: u64,
    last: u64,
}

impl Play<'_> {
    fn round(&mut self, round: usize) {
        let before = State::of(&self.image);
        let slots = self.slots.clone();
        let ours = round.is_multiple_of(2);
        let what = if ours { self.ours() } else { self.theirs() };
        let after = State::of(&self.image);
        let at =
            format!("seed {}, round {round}: {what}: {slots:?} to {:?}", self.name, self.slots);
        eprintln!("{at}");
        assert!(after.seqid > before.seqid || after.bytes == before.bytes, "{at}");
        assert!(self.cryptsetup.finds_no_fault(&self.image), "{at}");
        assert!(fs::read(&self.image).unwrap() == after.bytes, "{at}");

        let opened = Image::open(&self.image).unwrap();
        assert!(opened.header().leftovers().is_empty() && opened.header().warning().is_none());
        let found: Vec<_> = opened.keyslots().map(|it| it.index).collect();
        assert_eq!(found, self.slots.keys().copied().collect::<Vec<_>>(), "{at}");
        for (keyslot, secret) in self.slots.clone() {
            let wrong = secret + 1 + self.random(3);
            assert!(opened.opens(keyslot, &passphrase(text(secret))).unwrap(), "{at}");
            assert!(!opened.opens(keyslot, &passphrase(text(wrong))).unwrap(), "{at}");
            // Those that were left alone it tries now and then.
            if slots.get(&keyslot) != Some(&secret) || (keyslot + round).is_multiple_of(4) {
                let opens = |secret: u64| {
                    let secret = text(secret).into_bytes();
                    self.cryptsetup.opens_keyslot(&self.image, &secret, keyslot)
                };
                assert!(opens(secret) && !opens(wrong), "{at}");
            }
        }
        let gone = slots.values().find(|secret| !self.slots.values().any(|it| it == *secret));
        if let Some(&secret) = gone {
            assert!(!self.cryptsetup.opens(&self.image, text(secret).as_bytes()), "{at}");
        }
    }

    /// A request of one or several changes by us, of which the model says whether it is refused.
    fn ours(&mut self) -> String {
        let force = self.random(4) == 0;
        let count = [1, 1, 1, 2, 3][self.pick(5)];
        let opener = text(*self.slots.values().next().unwrap());
        let (mut model, mut what, mut changes) = (self.slots.clone(), Vec::new(), Vec::new());
        let mut refusal = None;
        // What is there before and after, and so needs a second area
        let mut rewritten = Vec::new();
        for _ in 0..count {
            let keyslot = self.any();
            let (new, kdf) = (self.new_secret(), KDFS[self.pick(3)]);
            let number = Some(i64::try_from(keyslot).unwrap());
            let (new_secret, pbkdf) = (Ok(passphrase(text(new))), pbkdf(kdf));
            let old = |secret: u64| Some(Ok(passphrase(text(secret))));
            let holding = |secret: Option<&u64>| -> Vec<usize> {
                model.iter().filter(|it| Some(it.1) == secret).map(|it| *it.0).collect()
            };
            match self.pick(6) {
                0 | 1 => {
                    let free = (0..32).filter(|it| !model.contains_key(it));
                    let some = free.clone().nth(self.pick(4)).unwrap();
                    let named = self.random(2) == 0;
                    let keyslot = if named { some } else { free.clone().next().unwrap() };
                    what.push(format!("add to {keyslot}"));
                    let number = named.then(|| i64::try_from(keyslot).unwrap());
                    changes.push(Change::Add { keyslot: number, new_secret, pbkdf });
                    model.insert(keyslot, new);
                    rewritten.push(keyslot);
                }
                2 | 3 if model.contains_key(&keyslot) => {
                    let by_secret = self.random(2) == 0;
                    let secret = model[&keyslot];
                    what.push(format!("replace {keyslot} ({by_secret})"));
                    let (keyslot, old_secret, keyslots) = if by_secret {
                        (None, old(secret), holding(Some(&secret)))
                    } else {
                        (number, None, vec![keyslot])
                    };
                    changes.push(Change::Replace { keyslot, old_secret, new_secret, pbkdf });
                    for keyslot in keyslots {
                        model.insert(keyslot, new);
                        rewritten.push(keyslot);
                    }
                }
                4 | 5 if model.contains_key(&keyslot) => {
                    let by_secret = self.random(2) == 0;
                    let secret = model[&keyslot];
                    let keyslots = if by_secret { holding(Some(&secret)) } else { vec![keyslot] };
                    // All of them is refused without force; forced, this game would be over.
                    if keyslots.len() == model.len() {
                        if force {
                            continue;
                        }
                        refusal.get_or_insert(ErrorKind::Refused);
                    }
                    what.push(format!("erase {keyslot} ({by_secret})"));
                    let (keyslot, old_secret) =
                        if by_secret { (None, old(secret)) } else { (number, None) };
                    changes.push(Change::Erase { keyslot, old_secret });
                    model.retain(|it, _| !keyslots.contains(it));
                    rewritten.retain(|it| !keyslots.contains(it));
                    if refusal.is_some() {
                        break;
                    }
                }
                _ => {}
            }
        }
        let added = rewritten_of(&rewritten, |it| !self.slots.contains_key(it));
        let replaced = rewritten_of(&rewritten, |it| self.slots.contains_key(it));
        let erased = self.slots.keys().filter(|it| !model.contains_key(it)).count();
        let free = self.room - self.slots.len();
        let no_room = added > free || replaced > 0 && added == free && erased == 0 && !force;
        if no_room {
            refusal.get_or_insert(ErrorKind::NoFreeKeyslot);
        }
        let what = what.join(", ");
        let result =
            amend(&self.image, &opener, Request::new(changes).overrides(Overrides::all_if(force)));
        assert_eq!(
            result,
            refusal.map_or(Ok(()), Err),
            "{what} of {:?}, force {force}",
            self.slots
        );
        if refusal.is_none() {
            self.slots = model;
        }
        format!("{what}, force {force}, {refusal:?}")
    }

    fn theirs(&mut self) -> String {
        let keyslot = self.any();
        let (secret, number) = (self.slots[&keyslot], keyslot.to_string());
        let options = kdf_options(KDFS[self.pick(3)]);
        let (old, new) = (text(secret), self.new_secret());
        let secrets = [old.as_bytes(), &text(new).into_bytes()].map(<[u8]>::to_vec);
        let secrets = secrets.each_ref().map(Vec::as_slice);
        match self.pick(6) {
            0 | 1 if self.slots.len() < self.room => {
                self.cryptsetup.new_key("luksAddKey", &self.image, secrets, &options);
                let free = (0..32).find(|it| !self.slots.contains_key(it)).unwrap();
                self.slots.insert(free, new);
                format!("cryptsetup adds to {free}")
            }
            2 => {
                let options = [&options[..], &["-S", &number]].concat();
                self.cryptsetup.new_key("luksChangeKey", &self.image, secrets, &options);
                self.slots.insert(keyslot, new);
                format!("cryptsetup changes {keyslot}")
            }
            3 if self.slots.len() > 1 => {
                self.cryptsetup.kill(&self.image, keyslot);
                self.slots.remove(&keyslot);
                format!("cryptsetup kills {keyslot}")
            }
            4 => {
                let priority = ["prefer", "normal"][self.pick(2)];
                let options = ["--key-slot", &number, "--priority", priority];
                self.cryptsetup.run("config", &options, &self.image);
                format!("cryptsetup prefers {keyslot}")
            }
            _ => {
                let options = ["--key-description", "x", "--key-slot", &number];
                self.cryptsetup.run("token", &[&["add"][..], &options].concat(), &self.image);
                format!("cryptsetup adds a token to {keyslot}")
            }
        }
    }

    fn any(&mut self) -> usize {
        let number = self.pick(self.slots.len());
        *self.slots.keys().nth(number).unwrap()
    }

    /// Now and then one that is there already.
    fn new_secret(&mut self) -> u64 {
        if self.random(4) == 0 {
            return *self.slots.values().next().unwrap();
        }
        self.last += 1;
        10 * self.last
    }

    /// Below `bound`, the same in every run (xorshift).
    fn random(&mut self, bound: u64) -> u64 {
        for (left, by) in [(true, 13), (false, 7), (true, 17)] {
            self.seed ^= if left { self.seed << by } else { self.seed >> by };
        }
        self.seed % bound
    }

    fn pick(&mut self, bound: usize) -> usize {
        usize::try_from(self.random(bound as u64)).unwrap()
    }
}

fn rewritten_of(rewritten: &[usize], is: impl Fn(&usize) -> bool) -> usize {
    let mut keyslots: Vec<_> = rewritten.iter().filter(|it| is(it)).collect();
    keyslots.sort_unstable();
    keyslots.dedup();
    keyslots.len()
}

fn text(secret: u64) -> String {
    format!("secret {secret}")
}

fn amend(image: &Path, opener: &str, request: Request) -> Result<(), ErrorKind> {
    let mut opened = OpenOptions::new().sharing(Sharing::Amend).open(image).unwrap();
    let unlocked = opened.unlock(&passphrase(opener)).unwrap();
    let plan = opened.plan(request).map_err(|error| error.kind())?;
    opened.amend(&plan, Some(&unlocked)).map(drop).map_err(|error| error.kind())
}
