//! `amend` does what `qemu-img amend` does: the same keyslots, the same words, the same exit.
//!
//! Every row of `amend_golden/` is run by the real qemu-img and by ours under its name, on
//! copies of one image. Where ours is stricter on purpose, `STRICTER` says so and why.
//! The qcow2 rows wait for qcow2.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "amend_golden/command_lines.rs"]
mod command_lines;
#[path = "support/side_by_side.rs"]
mod side_by_side;
mod support;
#[path = "amend_golden/table.rs"]
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use command_lines::COMMAND_LINES;
use side_by_side::{
    Outcome, Pair, directory_with, for_each, image, opened, secret, secret_objects,
};
use table::{Base, LENIENT, OPTIONS, STRICTER, UNDER_OUR_NAME};

/// Enough for the secrets of every base image and two more.
const SECRETS: usize = 10;
const SPEC: &str = "driver=luks,file.filename=a.luks,key-secret=sec0";

#[test]
fn options() {
    let Some(lab) = Lab::new() else { return };
    for_each(OPTIONS, |row| {
        let arguments = option_row(row.options, row.force);
        let [mut theirs, mut ours] = [&lab.pair.theirs, &lab.pair.ours]
            .map(|program| lab.run(program, row.base, &arguments));
        if !theirs.outcome.stderr.is_empty() && !theirs.outcome.stderr.ends_with('\n') {
            // QEMU forgets the newline behind one of its hints.
            theirs.outcome.stderr.push('\n');
        }
        if ours.outcome.stderr.starts_with("PBKDF iterations ") {
            ours.outcome.stderr = with_their_rate(&ours.outcome.stderr, &theirs.outcome.stderr);
        }
        same(&format!("{:?} {} {}", row.base, row.options, row.force), &theirs, &ours)
    });
}

#[test]
fn whole_command_lines() {
    let Some(lab) = Lab::new() else { return };
    for_each(COMMAND_LINES, |row| {
        let arguments = command_line(row);
        let [theirs, ours] = [&lab.pair.theirs, &lab.pair.ours]
            .map(|program| lab.run(program, Base::One, &arguments));
        same(row, &theirs, &ours)
    });
}

/// The differences, and that they are some: an entry that qemu-img agrees with is out of date.
#[test]
fn stricter() {
    let Some(lab) = Lab::new() else { return };
    for_each(STRICTER, |row| {
        let arguments = command_line(row.arguments);
        let [theirs, ours] = [&lab.pair.theirs, &lab.pair.ours]
            .map(|program| lab.run(program, row.base, &arguments));
        if theirs == ours {
            return Err(format!("{}: no difference\n{ours:?}", row.arguments));
        }
        if ours.outcome.stderr != format!("{}\n", row.text) || ours.outcome.status != Some(1) {
            return Err(format!("{} ({}): {ours:?}", row.arguments, row.reason));
        }
        if ours.opened.is_empty() {
            Ok(())
        } else {
            Err(format!("{}: the image was changed: {ours:?}", row.arguments))
        }
    });
}

#[test]
fn more_lenient() {
    let Some(lab) = Lab::new() else { return };
    for_each(LENIENT, |row| {
        let arguments = command_line(row.arguments);
        let [theirs, ours] = [&lab.pair.theirs, &lab.pair.ours]
            .map(|program| lab.run(program, Base::One, &arguments));
        if theirs.outcome.status == Some(1)
            && ours.outcome.status == Some(0)
            && ours.outcome.stdout == row.text
            && ours.outcome.stderr.is_empty()
        {
            Ok(())
        } else {
            Err(format!("{} ({}): {theirs:?}\n{ours:?}", row.arguments, row.reason))
        }
    });
}

#[test]
fn under_our_name() {
    let Some(lab) = Lab::new() else { return };
    for_each(UNDER_OUR_NAME, |row| {
        let arguments = option_row(row.options, false);
        let ours = Path::new(env!("CARGO_BIN_EXE_keyslot"));
        let outcome = lab.run(ours, row.base, &arguments).outcome;
        let first = outcome.stderr.lines().next().unwrap_or_default();
        if (outcome.status, first) == (Some(row.status), row.text) {
            Ok(())
        } else {
            Err(format!("{}: {outcome:?}", row.options))
        }
    });
}

fn option_row(options: &str, force: bool) -> Vec<Vec<u8>> {
    let mut arguments = vec!["amend".to_owned()];
    arguments.extend(secret_objects(SECRETS));
    arguments.extend(["--image-opts", SPEC, "-o", options].map(str::to_owned));
    arguments.extend(force.then(|| "--force".to_owned()));
    arguments.into_iter().map(String::into_bytes).collect()
}

/// The words of a command line; `SECRETS` stands for the secret objects, `IMAGE` for the option
/// and the usual image, `\x20` for a blank.
fn command_line(words: &str) -> Vec<Vec<u8>> {
    let mut arguments = vec![b"amend".to_vec()];
    for word in words.split(' ').filter(|word| !word.is_empty()) {
        match word {
            "SECRETS" => {
                arguments.extend(secret_objects(SECRETS).into_iter().map(String::into_bytes));
            }
            "IMAGE" => arguments.extend(["--image-opts", SPEC].map(Into::into)),
            "''" => arguments.push(Vec::new()),
            word => arguments.push(word.replace(r"\x20", " ").into_bytes()),
        }
    }
    arguments
}

/// QEMU's rate of this machine is not ours, to the last digit.
fn with_their_rate(ours: &str, theirs: &str) -> String {
    let number = |text: &str| {
        text.split(' ').nth(2).filter(|word| word.parse::<u64>().is_ok()).map(str::to_owned)
    };
    match (number(ours), number(theirs)) {
        (Some(our_number), Some(their_number)) => ours.replacen(&our_number, &their_number, 1),
        _ => ours.to_owned(),
    }
}

fn same(row: &str, theirs: &After, ours: &After) -> Result<(), String> {
    if theirs == ours {
        return Ok(());
    }
    Err(format!("{row}\n  theirs: {theirs:?}\n  ours:   {ours:?}"))
}

/// The base images, made once.
struct Lab {
    pair: Pair,
    images: TempDir,
}

/// What a run leaves.
#[derive(Debug, Eq, PartialEq)]
struct After {
    outcome: Outcome,
    /// State, iterations, whether there is a salt, key offset and stripes of each keyslot. Where
    /// the iterations depend on the machine, only whether they are enough.
    slots: Vec<(u32, u32, bool, u32, u32)>,
    /// The keyslots that each secret opens; none, if nothing was done or changed
    opened: Vec<Vec<usize>>,
}

impl Lab {
    fn new() -> Option<Self> {
        let lab = Self { pair: Pair::find()?, images: tempfile::tempdir().unwrap() };
        image(&lab.base(Base::One), &[0]);
        image(&lab.base(Base::Two), &[0, 1]);
        image(&lab.base(Base::Twice), &[0, 1, 0, 2, 1]);
        image(&lab.base(Base::Full), &[0, 1, 2, 3, 4, 5, 6, 7]);
        let mut bytes = fs::read(lab.base(Base::One)).unwrap();
        // Keyslot 0 made inactive, as a forced erase leaves it.
        bytes[208..212].copy_from_slice(&0xdead_u32.to_be_bytes());
        bytes[212..248].fill(0);
        fs::write(lab.base(Base::NoneActive), bytes).unwrap();
        Some(lab)
    }

    fn base(&self, base: Base) -> PathBuf {
        self.images.path().join(format!("{base:?}"))
    }

    fn run(&self, program: &Path, base: Base, arguments: &[Vec<u8>]) -> After {
        let directory = directory_with(&self.base(base), "a.luks");
        let image = directory.path().join("a.luks");
        fs::copy(&image, directory.path().join("it's, ü.luks")).unwrap();
        fs::write(directory.path().join("binary"), b"\xff\xfe").unwrap();
        fs::write(directory.path().join("nul"), b"a\0b").unwrap();
        fs::write(directory.path().join("line"), b"hunter0\n").unwrap();
        fs::write(directory.path().join("plain"), [0; 4096]).unwrap();
        let outcome = Outcome::of(program, arguments, directory.path());
        let bytes = fs::read(&image).unwrap();
        let calibrated = arguments.iter().any(|argument| {
            argument.ends_with(b"iter-time=10") || argument.ends_with(b"iter-time=1")
        });
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let entry = |at: usize| {
            let salted = bytes[at + 8..at + 40].iter().any(|&byte| byte != 0);
            let iterations = if calibrated { word(at + 4).min(1000) } else { word(at + 4) };
            (word(at), iterations, salted, word(at + 40), word(at + 44))
        };
        let slots = (0..8).map(|i| entry(208 + 48 * i)).collect();
        let untouched = bytes == fs::read(self.base(base)).unwrap();
        let tried = if untouched && outcome.status != Some(0) { 0 } else { SECRETS };
        let opened = (0..tried).map(|number| opened(&image, &secret(number))).collect();
        After { outcome, slots, opened }
    }
}
