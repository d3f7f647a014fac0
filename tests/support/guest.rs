//! Guests' disks in qcow2 images, made, read and written by QEMU's programs.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use keyslot::container::{Gate, Reference, Referenced};
use keyslot::storage::{Access, FileStorage, Storage};
use keyslot::volume::VolumeStorage;
use keyslot::{Limits, OpenOptions, Passphrase, Result, Sharing};

use super::{peer, run, run_ok, stderr};

/// A qcow2 image, encrypted with the secret `abc` or not.
#[derive(Debug)]
pub struct Guest {
    pub image: PathBuf,
    pub is_encrypted: bool,
}

/// Opens backing files beside the image that names them: raw, or qcow2.
#[derive(Debug)]
pub struct Beside;

impl Gate for Beside {
    fn open(&self, reference: &Reference<'_>) -> Result<Referenced> {
        let name = std::str::from_utf8(reference.name).unwrap();
        let path = reference.image.unwrap().with_file_name(name);
        let file = Arc::new(FileStorage::open(path, Access::ReadOnly)?);
        Ok(match reference.format {
            Some(b"qcow2") => Referenced::Qcow2(file),
            _ => Referenced::Raw(file),
        })
    }
}

impl Guest {
    /// `qemu-img create`; `None`, and a line that says so, if it is not here. The backing file, as
    /// options of qemu-img, must be beside the image.
    pub fn create(image: &Path, is_encrypted: bool, options: &str, more: &[&str]) -> Option<Self> {
        let guest = Self { image: image.to_owned(), is_encrypted };
        peer("qemu-io")?;
        let mut command = Command::new(peer("qemu-img")?);
        command.current_dir(image.parent().unwrap());
        command.args(["create", "-q", "-f", "qcow2", "--object", SECRET]);
        let encryption = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
        let options = match (is_encrypted, options) {
            (true, "") => encryption.to_owned(),
            (true, options) => format!("{encryption},{options}"),
            (false, options) => options.to_owned(),
        };
        if !options.is_empty() {
            command.args(["-o", &options]);
        }
        run_ok(command.args(&more[..more.len() - 1]).arg(image).arg(more[more.len() - 1]));
        Some(guest)
    }

    /// Runs commands of `qemu-io`, one a line, which must succeed.
    pub fn io(&self, script: &str) {
        let mut command = Command::new(peer("qemu-io").unwrap());
        command.args(["--object", SECRET, "--image-opts", &self.opts()]);
        let pipes = (Stdio::piped(), Stdio::piped(), Stdio::piped());
        let mut child = command.stdin(pipes.0).stdout(pipes.1).stderr(pipes.2).spawn().unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
        let said = said.replace("qemu-io> ", "");
        assert!(output.status.success() && said.trim().is_empty(), "{said}");
    }

    /// The disk as `qemu-img convert` reads it.
    pub fn raw(&self) -> Vec<u8> {
        let raw = self.image.with_extension("raw");
        let mut command = Command::new(peer("qemu-img").unwrap());
        command.args(["convert", "-O", "raw", "--object", SECRET, "--image-opts", &self.opts()]);
        run_ok(command.arg(&raw));
        let bytes = fs::read(&raw).unwrap();
        fs::remove_file(raw).unwrap();
        bytes
    }

    /// Takes an internal snapshot.
    pub fn snapshot(&self, name: &str) {
        self.img(&["snapshot", "-c", name]);
    }

    /// Goes back to an internal snapshot.
    pub fn revert(&self, name: &str) {
        self.img(&["snapshot", "-a", name]);
    }

    /// Deletes an internal snapshot.
    pub fn forget(&self, name: &str) {
        self.img(&["snapshot", "-d", name]);
    }

    /// Adds a persistent bitmap. The image must not be encrypted.
    pub fn bitmap(&self, name: &str) {
        let mut command = Command::new(peer("qemu-img").unwrap());
        run_ok(command.args(["bitmap", "--add"]).arg(&self.image).arg(name));
    }

    /// `qemu-img` with these arguments, on the image.
    fn img(&self, args: &[&str]) {
        let mut command = Command::new(peer("qemu-img").unwrap());
        command.args(args).args(["--object", SECRET, "--image-opts", &self.opts()]);
        run_ok(&mut command);
    }

    /// Fails unless `qemu-img check` finds no error and no leak.
    pub fn check(&self) {
        let mut command = Command::new(peer("qemu-img").unwrap());
        command.args(["check", "--object", SECRET, "--image-opts", &self.opts()]);
        let output = run(&mut command);
        let said = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
    }

    /// The disk as keyslot sees it.
    pub fn disk(&self, sharing: Sharing) -> Result<Arc<dyn Storage>> {
        let file = Arc::new(FileStorage::open(&self.image, Access::ReadWrite)?);
        disk(file, self.is_encrypted, sharing)
    }

    fn opts(&self) -> String {
        let key = if self.is_encrypted { ",encrypt.key-secret=s" } else { "" };
        format!("driver=qcow2{key},file.filename={}", self.image.display())
    }
}

/// The disk in a qcow2 image.
pub fn disk(
    image: Arc<dyn Storage>,
    is_encrypted: bool,
    sharing: Sharing,
) -> Result<Arc<dyn Storage>> {
    let options =
        OpenOptions::new().sharing(sharing).limits(Limits::default()).gate(Arc::new(Beside));
    if !is_encrypted {
        return Ok(Arc::clone(options.open_disk_storage(image)?.storage()));
    }
    let image = options.open_storage(image)?;
    let volume = image.volume(&image.unlock(&Passphrase::new(b"abc").unwrap())?)?;
    Ok(Arc::new(VolumeStorage::from(volume)))
}

/// All of a storage.
pub fn all(storage: &dyn Storage) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(storage.len().unwrap()).unwrap()];
    storage.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Numbers that look random, the same in every run.
#[derive(Debug)]
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % end
    }
}

const SECRET: &str = "secret,id=s,data=abc";
