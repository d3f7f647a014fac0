//! The data of LUKS2 images: what a volume writes, a loop over whole sectors in this file reads, which
//! shares nothing with it but the block cipher. And what of LUKS2 a volume refuses.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;

use aes::Aes256;
use cipher::{Array, Block, BlockCipherDecrypt, KeyInit};
use keyslot::crypto::CipherSpec;
use keyslot::{ErrorKind, Image, OpenOptions, Sharing, Volume};
use serde_json::{Value, json};
use serpent::Serpent;
use support::amending::{command, directory, passphrase};
use support::cryptsetup::Cryptsetup;
use support::luks2::{Change, Luks2};
use support::run_ok;
use xts_mode::Xts128;

/// The start of the data in `luks2_argon2id.img`, whose key is of 32 bytes.
const DATA: usize = 160 << 10;
const LEN: usize = 48 << 10;

/// A segment as the metadata has it.
fn segment(
    offset: usize,
    size: Option<usize>,
    sector: usize,
    iv_tweak: u64,
    cipher: &str,
) -> Value {
    json!({
        "type": "crypt",
        "offset": offset.to_string(),
        "size": size.map_or("dynamic".to_owned(), |size| size.to_string()),
        "iv_tweak": iv_tweak.to_string(),
        "encryption": cipher,
        "sector_size": sector,
    })
}

/// The image with these segments, in a file.
fn image_with(path: &Path, segments: &[Value]) {
    let mut image = Luks2::testdata("luks2_argon2id.img");
    image.bytes.resize(DATA + LEN, 0);
    let names: Vec<_> = (0..segments.len()).map(|i| i.to_string()).collect();
    let all: serde_json::Map<_, _> = names.iter().cloned().zip(segments.iter().cloned()).collect();
    let change =
        Change::Set(vec![("/segments", all.into()), ("/digests/0/segments", json!(names))]);
    std::fs::write(path, image.with(&change).bytes).unwrap();
}

fn volume(path: &Path, sharing: Sharing) -> keyslot::Result<Volume> {
    let image = OpenOptions::new().sharing(sharing).open(path).unwrap();
    image.volume(&image.unlock(&passphrase("hunter0")).unwrap())
}

fn key(path: &Path) -> Vec<u8> {
    let unlocked = Image::open(path).unwrap().unlock(&passphrase("hunter0")).unwrap();
    unlocked.volume_key().as_bytes().to_vec()
}

fn plain(len: usize) -> Vec<u8> {
    (0_u32..).map(|i| (i.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0]).take(len).collect()
}

/// Decrypts a segment: the number of a sector is that of its first 512 bytes.
fn decrypt(key: &[u8], value: &Value, bytes: &[u8]) -> Vec<u8> {
    let size = usize::try_from(value["sector_size"].as_u64().unwrap()).unwrap();
    let tweak: u64 = value["iv_tweak"].as_str().unwrap().parse().unwrap();
    let mut out = bytes.to_vec();
    for (i, sector) in out.chunks_mut(size).enumerate() {
        let number = tweak.wrapping_add((i * size / 512) as u64);
        let mut iv = [0; 16];
        iv[..8].copy_from_slice(&number.to_le_bytes());
        match value["encryption"].as_str().unwrap() {
            "aes-xts-plain64" => {
                let (one, two) = key.split_at(16);
                let xts = Xts128::new(
                    aes::Aes128::new_from_slice(one).unwrap(),
                    aes::Aes128::new_from_slice(two).unwrap(),
                );
                xts.decrypt_sector(sector, Array(iv));
            }
            "serpent-xts-plain64" => {
                let (one, two) = key.split_at(16);
                let xts = Xts128::new(
                    Serpent::new_from_slice(one).unwrap(),
                    Serpent::new_from_slice(two).unwrap(),
                );
                xts.decrypt_sector(sector, Array(iv));
            }
            "aes-cbc-plain64" => {
                let cipher = Aes256::new_from_slice(key).unwrap();
                let mut previous = iv;
                for block in sector.chunks_mut(16) {
                    let encrypted: [u8; 16] = (&*block).try_into().unwrap();
                    let mut decrypted = Block::<Aes256>::from(encrypted);
                    cipher.decrypt_block(&mut decrypted);
                    for (byte, (one, other)) in block.iter_mut().zip(decrypted.iter().zip(previous))
                    {
                        *byte = one ^ other;
                    }
                    previous = encrypted;
                }
            }
            other => panic!("{other}"),
        }
    }
    out
}

#[test]
fn what_a_volume_writes_a_model_reads() {
    let directory = directory();
    let path = &directory.path().join("image");
    for sector in [512, 1024, 2048, 4096] {
        for cipher in ["aes-xts-plain64", "serpent-xts-plain64", "aes-cbc-plain64"] {
            for segments in [
                vec![segment(DATA, None, sector, 0, cipher)],
                vec![segment(DATA, Some(16384), sector, 0, cipher)],
                vec![segment(DATA + 4096, None, sector, u64::MAX - 40, cipher)],
                // One behind the other, with a gap, each with numbers of its own.
                vec![
                    segment(DATA, Some(8192), sector, 7, cipher),
                    segment(DATA + 8192, Some(4096), 512, 1 << 40, "aes-xts-plain64"),
                    segment(DATA + 16384, None, sector, 0, cipher),
                ],
            ] {
                image_with(path, &segments);
                writes_what_is_read(path, &segments);
            }
        }
    }
}

fn writes_what_is_read(path: &Path, segments: &[Value]) {
    let before = std::fs::read(path).unwrap();
    let writer = volume(path, Sharing::WriteData).unwrap();
    let plain = plain(usize::try_from(writer.len()).unwrap());
    // In pieces that are no sectors, from the back.
    let mut starts: Vec<_> = (0..plain.len()).step_by(5000).collect();
    starts.reverse();
    for start in starts {
        let end = (start + 5000).min(plain.len());
        writer.write_all_at(&plain[start..end], start as u64).unwrap();
    }
    drop(writer);

    let (bytes, key) = (std::fs::read(path).unwrap(), key(path));
    let (mut at, mut end) = (0, DATA);
    for value in segments {
        let offset: usize = value["offset"].as_str().unwrap().parse().unwrap();
        let size = value["size"].as_str().unwrap().parse().unwrap_or(DATA + LEN - offset);
        let found = decrypt(&key, value, &bytes[offset..offset + size]);
        assert!(found == plain[at..at + size], "{value}");
        // What is between is left alone.
        assert!(bytes[end..offset] == before[end..offset]);
        (at, end) = (at + size, offset + size);
    }
    assert_eq!(at, plain.len());
    assert!(bytes[end..] == before[end..] && bytes[..DATA] == before[..DATA]);

    let mut again = vec![0; plain.len()];
    volume(path, Sharing::ReadData).unwrap().read_exact_at(&mut again, 0).unwrap();
    assert!(again == plain);
}

#[test]
fn what_a_volume_refuses_by_name() {
    let directory = directory();
    let path = &directory.path().join("image");
    let good = segment(DATA, None, 4096, 0, "aes-xts-plain64");
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        changed
    };
    let integrity = json!({ "type": "hmac(sha256)", "journal_encryption": "none", "journal_integrity": "none" });
    for (segment, kind, text) in [
        (
            with("type", json!("linear")),
            ErrorKind::Unsupported,
            "segment 0 is of type \"linear\", which is not supported",
        ),
        (
            with("integrity", integrity),
            ErrorKind::Unsupported,
            "segment 0 has the integrity protection \"hmac(sha256)\", which is not supported",
        ),
        (
            with("offset", json!("0")),
            ErrorKind::Unsupported,
            "the header is detached: its payload is in another file",
        ),
        (
            with("encryption", json!("rot13-ecb")),
            ErrorKind::Unsupported,
            "segment 0: the cipher \"rot13-ecb\" with a key of 32 bytes is not supported",
        ),
        (
            with("encryption", json!("capi:xts(aes)-plain64")),
            ErrorKind::Unsupported,
            "segment 0: the cipher \"capi:xts(aes)-plain64\" with a key of 32 bytes is not supported",
        ),
        (
            with("sector_size", json!(1536)),
            ErrorKind::Unsupported,
            "segment 0: sectors of 1536 bytes are not supported",
        ),
        (
            with("sector_size", json!(8192)),
            ErrorKind::Unsupported,
            "segment 0: sectors of 8192 bytes are not supported",
        ),
        (
            with("size", json!("53248")),
            ErrorKind::Corrupt,
            "segment 0 is from byte 163840 to byte 217088, the image ends at byte 212992",
        ),
        (
            with("offset", json!("212992000")),
            ErrorKind::Corrupt,
            "segment 0 is from byte 212992000 on, the image ends at byte 212992",
        ),
        (
            with("offset", json!("164352")),
            ErrorKind::Corrupt,
            "segment 0 has 48640 bytes, which is not a multiple of the sector size 4096",
        ),
    ] {
        image_with(path, std::slice::from_ref(&segment));
        let error = volume(path, Sharing::ReadData).unwrap_err();
        assert_eq!((error.kind(), error.message()), (kind, text));
    }
    image_with(
        path,
        &[segment(DATA, Some(4096), 512, 0, "aes-xts-plain64"), with("offset", json!("172032"))],
    );
    assert!(volume(path, Sharing::ReadData).is_ok());
    let mut image = Luks2::new(std::fs::read(path).unwrap());
    for requirement in ["offline-reencrypt", "somebody's", "opal"] {
        let change =
            Change::Set(vec![("/config/requirements", json!({ "mandatory": [requirement] }))]);
        std::fs::write(path, image.with(&change).bytes).unwrap();
        let error = volume(path, Sharing::ReadData).unwrap_err();
        let text =
            format!("the image has the requirement \"{requirement}\", which is not supported");
        assert_eq!((error.kind(), error.message()), (ErrorKind::Unsupported, text.as_str()));
    }
    // Another volume key.
    let digest = image.metadata(0)["digests"]["0"].clone();
    let mut other = digest.clone();
    other["segments"] = json!(["1"]);
    other["keyslots"] = json!([]);
    other["digest"] = json!("AAECAwQFBgcICQoLDA0ODxAREhM=");
    let change = Change::Set(vec![("/digests/1", other), ("/digests/0/segments", json!(["0"]))]);
    image = image.with(&change);
    std::fs::write(path, image.bytes).unwrap();
    let error = volume(path, Sharing::ReadData).unwrap_err();
    assert_eq!(error.message(), "segment 1: no keyslot holds its key any more");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

/// As while an image is reencrypted: each segment has the key of its own digest.
#[test]
fn segments_with_different_keys_are_one_volume() {
    let directory = directory();
    let path = &directory.path().join("image");
    let mut image = Luks2::testdata("luks2_keyslots.img");
    let data = image.bytes.len();
    image.bytes.resize(data + 16384, 0);
    let first = segment(data, Some(8192), 512, 0, "aes-cbc-plain64");
    let second = segment(data + 8192, None, 4096, 16, "aes-xts-plain64");
    let change = Change::Set(vec![
        ("/segments", json!({ "0": first, "1": second })),
        ("/digests/0/segments", json!(["0"])),
        ("/digests/1/segments", json!(["1"])),
    ]);
    std::fs::write(path, image.with(&change).bytes).unwrap();

    let image = OpenOptions::new().write(true).sharing(Sharing::WriteAlone).open(path).unwrap();
    let one = image.unlock_keyslot(0, &passphrase("hunter0")).unwrap();
    let other = image.unlock_keyslot(7, &passphrase("hunter7")).unwrap();
    let keys = [&one, &other].map(|it| it.volume_key().as_bytes().to_vec());
    assert_ne!(keys[0], keys[1]);
    let error = image.volume(&one).unwrap_err();
    assert_eq!(error.message(), "segment 1: the key of digest 1 is missing");

    let bytes = plain(16384);
    let volume = image.volume_with(&[&one, &other]).unwrap();
    assert_eq!(volume.len(), 16384);
    volume.write_all_at(&bytes, 0).unwrap();
    let mut again = vec![0; 300];
    volume.read_exact_at(&mut again, 8000).unwrap();
    assert_eq!(again, bytes[8000..8300]);
    let stored = std::fs::read(path).unwrap();
    let cipher = CipherSpec::parse("aes", "cbc-plain64", 16).unwrap();
    let mut decrypted = stored[data..data + 8192].to_vec();
    cipher.sector_cipher(&keys[0]).unwrap().decrypt(0, &mut decrypted);
    assert_eq!(decrypted, bytes[..8192]);
    assert_eq!(decrypt(&keys[1], &second, &stored[data + 8192..]), bytes[8192..]);
}

/// Half of 512 bytes at the end is not there, as it is not for a loop device.
#[test]
fn the_end_of_a_file_that_is_no_whole_sector() {
    let directory = directory();
    let path = &directory.path().join("image");
    image_with(path, &[segment(DATA, None, 4096, 0, "aes-xts-plain64")]);
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len((DATA + LEN + 511) as u64).unwrap();
    assert_eq!(volume(path, Sharing::ReadData).unwrap().len(), LEN as u64);
    file.set_len((DATA + LEN + 512) as u64).unwrap();
    assert_eq!(volume(path, Sharing::ReadData).unwrap_err().kind(), ErrorKind::Corrupt);
}

/// A reencryption that cryptsetup began.
#[test]
fn a_reencryption_is_refused_by_name() {
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    let directory = directory();
    let path = &directory.path().join("image");
    let cheap = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
    cryptsetup.format_luks2(path, b"hunter0", 8, &cheap);
    assert!(volume(path, Sharing::ReadData).is_ok());
    let key = directory.path().join("key");
    std::fs::write(&key, "hunter0").unwrap();
    let mut options = vec!["--init-only", "--force-offline-reencrypt", "--key-file"];
    options.push(key.to_str().unwrap());
    options.extend(cheap);
    cryptsetup.run("reencrypt", &options, path);
    let error = volume(path, Sharing::ReadData).unwrap_err();
    let text = "the image has the requirement \"online-reencrypt-v2\", which is not supported";
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unsupported, text));
    let info = run_ok(&mut command("info --output json", path)).stdout;
    let info: Value = serde_json::from_slice(&info).unwrap();
    let unusable = &info["format-specific"]["data"]["keyslots"][2];
    assert_eq!(unusable["unusable"], "keyslots of type \"reencrypt\" are not supported");
}

/// `convert` out of LUKS2, and into one that exists; the header stays.
#[test]
fn convert_both_ways() {
    let directory = directory();
    let (path, raw) = (&directory.path().join("image"), &directory.path().join("raw"));
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "hunter0").unwrap();
    image_with(path, &[segment(DATA, None, 2048, 5, "aes-xts-plain64")]);
    writes_what_is_read(path, &[segment(DATA, None, 2048, 5, "aes-xts-plain64")]);
    let source = format!("file:{}", secret.display());
    let mut out = command(&format!("convert -q --secret {source}"), path);
    run_ok(out.arg(raw));
    assert!(std::fs::read(raw).unwrap() == plain(LEN));

    let reversed: Vec<u8> = plain(LEN).into_iter().rev().collect();
    std::fs::write(raw, &reversed).unwrap();
    let header = std::fs::read(path).unwrap()[..DATA].to_vec();
    let mut back = command(&format!("convert -q -n --new-secret {source} -f raw -O luks"), raw);
    run_ok(back.arg(path));
    let mut found = vec![0; LEN];
    volume(path, Sharing::ReadData).unwrap().read_exact_at(&mut found, 0).unwrap();
    assert!(found == reversed && std::fs::read(path).unwrap()[..DATA] == header);
}
