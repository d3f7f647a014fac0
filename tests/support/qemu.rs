//! QEMU's programs, on LUKS images whose payload begins with [`PATTERN`](super::amending::PATTERN).

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{peer, run, run_ok, stderr};

#[derive(Debug)]
pub struct Qemu {
    img: PathBuf,
    io: PathBuf,
}

impl Qemu {
    /// `None`, and a line that says so, if they are not here.
    pub fn find() -> Option<Self> {
        Some(Self { img: peer("qemu-img")?, io: peer("qemu-io")? })
    }

    /// `qemu-img create` of a small image with the pattern in it.
    pub fn create(&self, image: &Path, options: &str, secret: &str) {
        let mut command = Command::new(&self.img);
        command.args(["create", "-q", "-f", "luks", "--object", &object("s", secret)]);
        command.args(["-o", &format!("key-secret=s,iter-time=10{options}")]);
        run_ok(command.arg(image).arg("16K"));
        run_ok(&mut self.io(image, secret, "write -q -P 0xa5 0 4096"));
    }

    /// Whether `qemu-io` opens it with this secret. If so, the pattern must be in it.
    pub fn opens(&self, image: &Path, secret: &str) -> bool {
        let mut command = self.io(image, secret, "read -q -P 0xa5 0 4096");
        let output = run(command.arg("-r"));
        let said = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
        if output.status.success() {
            assert_eq!(said, "");
            return true;
        }
        let refusal = "qemu-io: can't open: Invalid password, cannot unlock any keyslot\n";
        assert_eq!(said, refusal, "{}", image.display());
        false
    }

    /// What `qemu-io` says against reading one sector, if anything.
    pub fn reading(&self, image: &Path, secret: &str) -> Option<String> {
        let output = run(self.io(image, secret, "read -q 0 512").arg("-r"));
        let said = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
        (!output.status.success()).then(|| {
            said.trim_end_matches('\n').trim_start_matches("qemu-io: can't open: ").to_owned()
        })
    }

    /// `qemu-img amend`; `n` is the secret `new`.
    pub fn amend(&self, image: &Path, secret: &str, new: &str, options: &str) {
        let mut command = Command::new(&self.img);
        command.args(["amend", "--object", &object("s", secret), "--object", &object("n", new)]);
        run_ok(command.args(["-o", options, "--image-opts", &opts(image)]));
    }

    /// `qemu-img info`, or what it says behind the name of the image.
    pub fn info(&self, image: &Path) -> Result<Value, String> {
        let image = format!("driver=luks,file.filename={}", image.display());
        let mut command = Command::new(&self.img);
        let output = run(command.args(["info", "--output=json", "--image-opts", &image]));
        if output.status.success() {
            return Ok(serde_json::from_slice(&output.stdout).unwrap());
        }
        let said = stderr(&output);
        let (_, said) = said.split_once(": Could not open '").unwrap();
        let (_, said) = said.split_once("': ").unwrap();
        Err(said.trim_end_matches('\n').to_owned())
    }

    /// The keyslots that are active in the eyes of `qemu-img info`.
    pub fn active(&self, image: &Path) -> Vec<usize> {
        let info = self.info(image).unwrap();
        let slots = info["format-specific"]["data"]["slots"].as_array().unwrap();
        assert_eq!(slots.len(), 8);
        (0..8).filter(|&i| slots[i]["active"] == true).collect()
    }

    /// Runs these commands of `qemu-io`, which must succeed and say nothing.
    pub fn io_ok(&self, image: &Path, secret: &str, commands: &[&str]) {
        let mut command = Command::new(&self.io);
        command.args(["--object", &object("s", secret), "--image-opts", &opts(image)]);
        for what in commands {
            command.args(["-c", what]);
        }
        let output = run_ok(&mut command);
        let said = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(said, "", "{commands:?}");
    }

    /// The whole payload as `qemu-img convert` reads it.
    pub fn payload(&self, image: &Path, secret: &str) -> Vec<u8> {
        let raw = image.with_extension("raw");
        let mut command = Command::new(&self.img);
        command.args(["convert", "-O", "raw", "--object", &object("s", secret)]);
        run_ok(command.args(["--image-opts", &opts(image)]).arg(&raw));
        std::fs::read(raw).unwrap()
    }

    fn io(&self, image: &Path, secret: &str, what: &str) -> Command {
        let mut command = Command::new(&self.io);
        command.args(["-c", what, "--object", &object("s", secret), "--image-opts", &opts(image)]);
        command
    }
}

fn object(id: &str, secret: &str) -> String {
    format!("secret,id={id},data={secret}")
}

fn opts(image: &Path) -> String {
    format!("driver=luks,key-secret=s,file.filename={}", image.display())
}
