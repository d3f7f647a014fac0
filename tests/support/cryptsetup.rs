//! cryptsetup, as far as it goes without root and device-mapper.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::{peer, run, run_ok, stderr};

#[derive(Debug)]
pub struct Cryptsetup(PathBuf);

impl Cryptsetup {
    /// `None`, and a line that says so, if it is not here.
    pub fn find() -> Option<Self> {
        peer("cryptsetup").map(Self)
    }

    /// `luksFormat` of an image of 4 MiB.
    pub fn format(&self, image: &Path, secret: &[u8], options: &[&str]) {
        File::create(image).unwrap().set_len(4 << 20).unwrap();
        let mut command = self.command("luksFormat");
        command.args(["--type", "luks1", "--pbkdf-force-iterations", "1000"]).args(options);
        must_succeed(&with_stdin(command.args(["--key-file", "-"]).arg(image), secret));
    }

    /// `luksFormat` of a LUKS2 image of 4 MiB, with room for `keyslots` keyslots.
    pub fn format_luks2(&self, image: &Path, secret: &[u8], keyslots: usize, options: &[&str]) {
        let _ = std::fs::remove_file(image);
        let areas = keyslots * (256 << 10);
        File::create(image).unwrap().set_len((4 << 20) + areas as u64).unwrap();
        let mut command = self.command("luksFormat");
        command.args(["--type", "luks2", "--luks2-metadata-size", "16k"]);
        command.args(["--luks2-keyslots-size", &areas.to_string()]).args(options);
        must_succeed(&with_stdin(command.args(["--key-file", "-"]).arg(image), secret));
    }

    /// `luksFormat` of a LUKS2 image, with as much room for metadata as there can be.
    pub fn format_large(&self, image: &Path, secret: &[u8]) {
        let mut command = self.command("luksFormat");
        command.args(["--type", "luks2", "--luks2-metadata-size", "4m"]);
        command.args(["--luks2-keyslots-size", "512k", "--pbkdf", "pbkdf2"]);
        command.args(["--pbkdf-force-iterations", "1000", "--key-file", "-"]);
        must_succeed(&with_stdin(command.arg(image), secret));
    }

    /// `luksAddKey` into this keyslot, with these options.
    pub fn add_luks2(
        &self,
        image: &Path,
        [secret, new]: [&[u8]; 2],
        keyslot: usize,
        options: &[&str],
    ) {
        let new_file = image.with_extension("new");
        std::fs::write(&new_file, new).unwrap();
        let mut command = self.command("luksAddKey");
        command.args(options).args(["--key-file", "-"]);
        command.args(["--key-slot", &keyslot.to_string()]).arg(image).arg(&new_file);
        must_succeed(&with_stdin(&mut command, secret));
    }

    /// `luksAddKey` or `luksChangeKey`: a new secret, with these options.
    pub fn new_key(&self, action: &str, image: &Path, [secret, new]: [&[u8]; 2], options: &[&str]) {
        let new_file = image.with_extension("new");
        std::fs::write(&new_file, new).unwrap();
        let mut command = self.command(action);
        command.args(options).args(["--key-file", "-"]).arg(image).arg(&new_file);
        must_succeed(&with_stdin(&mut command, secret));
    }

    /// `luksRemoveKey`: the first keyslot that opens with this secret.
    pub fn remove(&self, image: &Path, secret: &[u8]) {
        let mut command = self.command("luksRemoveKey");
        must_succeed(&with_stdin(command.args(["--key-file", "-"]).arg(image), secret));
    }

    /// Whether `luksDump --debug` finds nothing to say against a LUKS2 header: neither about a copy
    /// of it nor about what is in it.
    pub fn finds_no_fault(&self, image: &Path) -> bool {
        let output = run_ok(self.command("luksDump").arg("--debug").arg(image));
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        let text = text.replace("(repair disabled)", "").to_ascii_lowercase();
        let faults = [
            "error",
            "fail",
            "invalid",
            "warning",
            "repair",
            "recover",
            "obsolete",
            "write lock",
            "trying to write",
            "missing",
            "unknown",
            "illegal",
            "overlap",
            "not valid",
        ];
        let is_fault = |line: &&str| faults.iter().any(|fault| line.contains(fault));
        let found: Vec<_> = text.lines().filter(is_fault).collect();
        assert!(text.contains("read lock released"), "{text}");
        if !found.is_empty() {
            eprintln!("{found:#?}");
        }
        found.is_empty()
    }

    /// Any other command, which must succeed, and what it prints.
    pub fn run(&self, action: &str, options: &[&str], image: &Path) -> String {
        let output = run_ok(self.command(action).args(options).arg(image));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The key in the first keyslot that opens with this secret, or in this one.
    pub fn volume_key(&self, image: &Path, secret: &[u8], keyslot: Option<usize>) -> Vec<u8> {
        let (secret_file, key) = (image.with_extension("secret"), image.with_extension("key"));
        std::fs::write(&secret_file, secret).unwrap();
        let _ = std::fs::remove_file(&key);
        let mut command = self.command("luksDump");
        match keyslot {
            // Of an unbound keyslot only this form knows.
            Some(keyslot) => command.args(["--unbound", "--key-slot", &keyslot.to_string()]),
            None => command.arg("--dump-volume-key"),
        };
        command.arg("--key-file").arg(&secret_file).arg("--volume-key-file").arg(&key);
        run_ok(command.arg(image));
        std::fs::read(key).unwrap()
    }

    /// Whether it opens with this secret.
    pub fn opens(&self, image: &Path, secret: &[u8]) -> bool {
        self.opens_at(image, secret, &[])
    }

    /// Whether this keyslot opens with this secret.
    pub fn opens_keyslot(&self, image: &Path, secret: &[u8], keyslot: usize) -> bool {
        self.opens_at(image, secret, &["--key-slot", &keyslot.to_string()])
    }

    fn opens_at(&self, image: &Path, secret: &[u8], options: &[&str]) -> bool {
        let mut command = self.command("open");
        // From a pipe it would read a byte at a time.
        let file = image.with_extension("secret");
        std::fs::write(&file, secret).unwrap();
        command.args(["--test-passphrase", "--key-file"]).arg(file).args(options).arg(image);
        let output = run(&mut command);
        match output.status.code() {
            Some(0) => true,
            Some(2) => false,
            _ => panic!("{}: {output:?}", image.display()),
        }
    }

    /// `luksAddKey` into this keyslot.
    pub fn add(&self, image: &Path, secret: &[u8], new: &[u8], keyslot: usize) {
        let new_file = image.with_extension("new");
        std::fs::write(&new_file, new).unwrap();
        let mut command = self.command("luksAddKey");
        command.args(["--pbkdf-force-iterations", "1000", "--key-file", "-"]);
        command.args(["--key-slot", &keyslot.to_string()]).arg(image).arg(&new_file);
        must_succeed(&with_stdin(&mut command, secret));
    }

    /// `luksKillSlot`.
    pub fn kill(&self, image: &Path, keyslot: usize) {
        run_ok(self.command("luksKillSlot").arg(image).arg(keyslot.to_string()));
    }

    /// Whether it takes the header for one of LUKS1, and for a valid one.
    pub fn accepts(&self, image: &Path) -> bool {
        let is_luks = run(self.command("isLuks").args(["--type", "luks1"]).arg(image));
        let dump = run(self.command("luksDump").args(["--type", "luks1"]).arg(image));
        assert_eq!(is_luks.status.success(), dump.status.success(), "{}", image.display());
        dump.status.success()
    }

    /// Whether it takes the header for one of LUKS2, and for a valid one. The file is not changed.
    pub fn accepts_luks2(&self, image: &Path) -> bool {
        // With locks it would repair a copy.
        let dump = run(self.command("luksDump").arg("--disable-locks").arg(image));
        dump.status.success()
    }

    /// What `luksDump` says of a LUKS2 header, if it takes it, without repairing it.
    pub fn epoch_and_label(&self, image: &Path) -> Option<(String, String)> {
        let dump = run(self.command("luksDump").arg("--disable-locks").arg(image));
        let text = String::from_utf8_lossy(&dump.stdout).into_owned();
        let line = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().to_owned()
        };
        dump.status.success().then(|| (line("Epoch:"), line("Label:")))
    }

    /// The keyslots that are active in the eyes of `luksDump`.
    pub fn active(&self, image: &Path) -> Vec<usize> {
        let output = run_ok(self.command("luksDump").arg(image));
        let text = String::from_utf8(output.stdout).unwrap();
        (0..8).filter(|i| text.contains(&format!("Key Slot {i}: ENABLED"))).collect()
    }

    fn command(&self, action: &str) -> Command {
        let mut command = Command::new(&self.0);
        command.args([action, "--batch-mode"]);
        command
    }
}

fn with_stdin(command: &mut Command, input: &[u8]) -> Output {
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    // It may end without reading, which is for the caller to judge by its exit status.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn must_succeed(output: &Output) {
    assert!(output.status.success(), "{}", stderr(output));
}
