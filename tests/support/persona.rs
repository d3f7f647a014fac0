//! Command lines that keyslot under the name qemu-img and the real qemu-img answer alike. (Not in
//! `support` itself: it needs the command.)
#![allow(dead_code, reason = "no test uses all of it")]

use std::fs;
use std::path::Path;

use keyslot::{OpenOptions, Sharing};
use tempfile::TempDir;

use crate::side_by_side::{Outcome, Pair, image, secret};

/// Length of the payload of `a.luks` and `b.luks`, and of `plain.raw`.
pub const LEN: usize = 1 << 16;

/// A directory with the images that the command lines name, as they are before each of them:
/// `a.luks` and `b.luks` with the contents of `plain.raw`, and other files.
pub struct Images {
    files: Vec<(String, Vec<u8>)>,
}

impl Images {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let plain: Vec<u8> =
            (0..LEN).map(|at| u8::try_from((at * 7 + at / 251) % 256).unwrap()).collect();
        let mut files = Vec::new();
        for name in ["a.luks", "b.luks"] {
            let path = directory.path().join(name);
            image(&path, &[0]);
            let image = OpenOptions::new().sharing(Sharing::WriteAlone).open(&path).unwrap();
            let volume = image.volume(&image.unlock(&secret(0)).unwrap()).unwrap();
            volume.write_all_at(&plain, 0).unwrap();
            files.push((name.to_owned(), fs::read(&path).unwrap()));
        }
        let disk = [&[5; 4096][..], &files[0].1].concat();
        files.push(("disk".to_owned(), disk));
        files.push(("plain.raw".to_owned(), plain));
        let header = directory.path().join("header");
        let cost = keyslot::kdf::Cost::Iterations(1000);
        let create = keyslot::CreateOptions::new().unwrap().cost(cost).detached(true);
        create.create(&header, 4096, &secret(0)).unwrap();
        files.push(("header".to_owned(), fs::read(&header).unwrap()));
        files.push(("payload".to_owned(), vec![1; 4096]));
        files.push(("empty".to_owned(), Vec::new()));
        Self { files }
    }

    /// Bytes of the file of this name.
    pub fn bytes(&self, name: &str) -> &[u8] {
        &self.files.iter().find(|(it, _)| it == name).unwrap().1
    }

    /// Adds a file.
    pub fn add(&mut self, name: &str, bytes: Vec<u8>) {
        self.files.push((name.to_owned(), bytes));
    }

    /// A new directory with all of them.
    pub fn directory(&self) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, bytes) in &self.files {
            fs::write(directory.path().join(name), bytes).unwrap();
        }
        directory
    }

    /// Runs the command line with both programs, each in a directory of its own, and compares what
    /// they say and the files that they leave. In it, `S` stands for the object of the secret, and
    /// other letters for the options of images.
    pub fn judge(&self, pair: &Pair, line: &str) -> Result<Outcome, String> {
        let arguments = arguments(line);
        let run = |program: &Path| {
            let directory = self.directory();
            let outcome = Outcome::of(program, &arguments, directory.path());
            (outcome, contents(directory.path()))
        };
        let (theirs, ours) = (run(&pair.theirs), run(&pair.ours));
        if ours.0 != theirs.0 {
            return Err(format!("{line}\n  ours   {:?}\n  theirs {:?}", ours.0, theirs.0));
        }
        if ours.1 != theirs.1 {
            let differs = |it: &&(String, Vec<u8>)| !theirs.1.contains(it);
            let names: Vec<_> =
                ours.1.iter().filter(differs).map(|it| (&it.0, it.1.len())).collect();
            return Err(format!("{line}: the files differ: {names:?} of {}", theirs.1.len()));
        }
        Ok(ours.0)
    }
}

/// Names and bytes of all files, sorted.
fn contents(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut files: Vec<_> = entries.map(|path| (name(&path), fs::read(&path).unwrap())).collect();
    files.sort();
    files
}

/// Letters, and the image options that they stand for: images, raw data, an image with a detached
/// header, an image behind others in a file, with and without a length.
const NAMES: [(&str, &str); 6] = [
    ("A", "driver=luks,key-secret=s,file.filename=a.luks"),
    ("B", "driver=luks,key-secret=s,file.filename=b.luks"),
    ("R", "driver=raw,file.filename=plain.raw"),
    (
        "D",
        "driver=luks,key-secret=s,file.filename=payload,header.driver=file,header.filename=header",
    ),
    ("W", "driver=luks,key-secret=s,file.driver=raw,file.offset=4096,file.file.filename=disk"),
    (
        "V",
        "driver=luks,key-secret=s,file.driver=raw,file.offset=4096,file.size=2M,file.file.filename=disk",
    ),
];

/// The arguments that a line stands for.
pub fn arguments(line: &str) -> Vec<String> {
    let mut arguments = Vec::new();
    for word in line.split_whitespace() {
        match word {
            "S" => arguments.extend(["--object", "secret,id=s,data=hunter0"].map(str::to_owned)),
            word => {
                let mut word = word.to_owned();
                for (name, options) in NAMES {
                    if word == name || word.starts_with(&format!("{name},")) {
                        word = word.replacen(name, options, 1);
                    }
                    word = word.replace(&format!("={name}!"), &format!("={options}"));
                }
                arguments.push(if word == "''" { String::new() } else { word });
            }
        }
    }
    arguments
}
