//! qcow2 images: in memory around a LUKS1 header, and by qemu-img.

use std::ops::Range;
use std::path::Path;
use std::process::Command;

use keyslot::container::Qcow2Header;
use keyslot::storage::ReadOnlyBytes;

use super::{peer, run_ok};

/// Offset of the autoclear features
pub const AUTOCLEAR: usize = 88;
/// An autoclear feature that is not defined, so a writer must clear it
pub const UNKNOWN_FEATURE: u64 = 1 << 40;

/// The smallest qcow2 image with this LUKS1 header and its areas: clusters of 512 bytes, an empty
/// disk, no reference counts, and a feature that the first change of keyslots must clear.
pub fn around(luks: &[u8]) -> Vec<u8> {
    let (refcount_table, offset) = (512_u64, 1024_u64);
    let mut image = vec![0; 1024];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &9_u32.to_be_bytes());
    put(32, &2_u32.to_be_bytes());
    put(48, &refcount_table.to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    put(AUTOCLEAR, &UNKNOWN_FEATURE.to_be_bytes());
    put(96, &4_u32.to_be_bytes());
    put(100, &112_u32.to_be_bytes());
    put(112, &0x0537_be77_u32.to_be_bytes());
    put(116, &16_u32.to_be_bytes());
    put(120, &offset.to_be_bytes());
    put(128, &(luks.len() as u64).to_be_bytes());
    [&image, luks].concat()
}

/// Where the LUKS header is in an image: from byte 0 on if it is not qcow2.
pub fn area(image: &[u8]) -> Range<usize> {
    if !image.starts_with(b"QFI\xfb") {
        return 0..image.len();
    }
    let header = Qcow2Header::read(&ReadOnlyBytes(image)).unwrap();
    let area = header.crypto_area().unwrap();
    usize::try_from(area.start).unwrap()..usize::try_from(area.end).unwrap()
}

/// Whether `qemu-img check` finds no fault. qemu-img must be here.
pub fn is_clean(image: &Path, secret: &str) -> bool {
    let mut command = Command::new(peer("qemu-img").unwrap());
    command.args(["check", "-q", "--object", &format!("secret,id=s,data={secret}")]);
    let opts = format!("driver=qcow2,encrypt.key-secret=s,file.filename={}", image.display());
    super::run(command.args(["--image-opts", &opts])).status.success()
}

/// `qemu-img create` of an image of `size` with LUKS encryption.
pub fn create(image: &Path, secret: &str, options: &str, size: &str) {
    let mut command = Command::new(peer("qemu-img").unwrap());
    command.args(["create", "-q", "-f", "qcow2", "--object"]);
    command.arg(format!("secret,id=s,data={secret}"));
    let encrypt = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    command.args(["-o", &format!("{encrypt}{options}")]).arg(image);
    run_ok(if size.is_empty() { &mut command } else { command.arg(size) });
}
