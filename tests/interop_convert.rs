//! What `keyslot convert` encrypts QEMU decrypts, and the other way round, to the byte; and the
//! holes that qemu-img keeps are kept.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
#[path = "support/converting.rs"]
mod converting;
mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use converting::{Desk, FROM_LUKS, OBJECTS, TO_LUKS, allocated, luks, noise, padded, payload};
use keyslot::crypto::CipherSpec;
use support::parallel::in_parallel;
use support::qemu::Qemu;
use support::{peer, run_ok};

/// Options of `-o`, and the cipher that they mean.
const CIPHERS: [(&str, &str, &str, usize); 12] = [
    ("aes-256,cipher-mode=xts,ivgen-alg=plain64", "aes", "xts-plain64", 64),
    ("aes-128,cipher-mode=xts,ivgen-alg=plain", "aes", "xts-plain", 32),
    ("aes-256,cipher-mode=xts,ivgen-alg=essiv", "aes", "xts-essiv:sha256", 64),
    ("aes-128,cipher-mode=cbc,ivgen-alg=essiv", "aes", "cbc-essiv:sha256", 16),
    ("aes-256,cipher-mode=cbc,ivgen-alg=plain64", "aes", "cbc-plain64", 32),
    ("aes-256,cipher-mode=ctr,ivgen-alg=plain64", "aes", "ctr-plain64", 32),
    ("aes-128,cipher-mode=ecb,ivgen-alg=plain64", "aes", "ecb-plain64", 16),
    ("serpent-256,cipher-mode=xts,ivgen-alg=plain64", "serpent", "xts-plain64", 64),
    ("serpent-128,cipher-mode=cbc,ivgen-alg=essiv", "serpent", "cbc-essiv:sha256", 16),
    ("twofish-256,cipher-mode=xts,ivgen-alg=plain64", "twofish", "xts-plain64", 64),
    ("twofish-128,cipher-mode=ctr,ivgen-alg=plain", "twofish", "ctr-plain", 16),
    ("cast5-128,cipher-mode=cbc,ivgen-alg=plain64", "cast5", "cbc-plain64", 16),
];
/// Lengths of a payload. The last has several buffers and is no whole number of them.
const SIZES: [usize; 7] = [0, 512, 1000, 4096, 65536, (1 << 20) + 512, (5 << 20) + 1];

/// qemu-img, in a directory.
struct Peer {
    img: PathBuf,
}

impl Peer {
    fn find() -> Option<Self> {
        Some(Self { img: peer("qemu-img")? })
    }

    fn convert(&self, desk: &Desk, words: &str) {
        let mut command = Command::new(&self.img);
        command.arg("convert").args(words.split_whitespace()).args(OBJECTS.split(' '));
        run_ok(command.current_dir(desk.dir.path()));
    }

    /// What it reads out of a LUKS image.
    fn decrypted(&self, desk: &Desk, image: &str, secret: &str) -> Vec<u8> {
        let node = format!("driver=luks,file.filename={image},key-secret={secret}");
        self.convert(desk, &format!("--image-opts {node} decrypted.raw"));
        desk.bytes("decrypted.raw")
    }

    /// It fills a LUKS image that we made: it takes no time, as a calibration would.
    fn encrypt(&self, desk: &Desk, plain: &str, image: &str) {
        let node = format!("driver=luks,file.filename={image},key-secret=old");
        self.convert(desk, &format!("-n -f raw {plain} --target-image-opts {node}"));
    }
}

#[test]
fn what_we_encrypt_qemu_reads() {
    let Some(peer) = Peer::find() else { return };
    let Some(qemu) = Qemu::find() else { return };
    in_parallel(CIPHERS.into_iter().enumerate().collect(), |&(i, (options, name, mode, size))| {
        for len in [SIZES[i % 6], SIZES[(i + 3) % 6], 200 * 512] {
            let desk = Desk::with(Vec::new());
            let plain = noise(len);
            fs::write(desk.path("plain.raw"), &plain).unwrap();
            desk.done(&format!("-q -f raw plain.raw {TO_LUKS} -o cipher-alg={options} a.luks"));
            assert!(peer.decrypted(&desk, "a.luks", "new") == padded(&plain), "{len} bytes");
            let info = qemu.info(&desk.path("a.luks")).unwrap();
            assert_eq!(info["virtual-size"], padded(&plain).len());

            // Another volume, with another key, out of that.
            let source = "-f luks --secret env:NEW a.luks";
            desk.done(&format!("{source} {TO_LUKS} b.luks"));
            assert!(peer.decrypted(&desk, "b.luks", "new") == padded(&plain), "{len} bytes");
            let cipher = CipherSpec::parse(name, mode, size).unwrap();
            luks(&desk.path("c.luks"), &cipher, "NEW", &vec![0xaa; padded(&plain).len()]);
            let into = "--target-image-opts driver=luks,file.filename=c.luks,key-secret=new";
            desk.done(&format!("-n {OBJECTS} {source} {into}"));
            assert!(peer.decrypted(&desk, "c.luks", "new") == padded(&plain), "{len} bytes");
        }
    });
}

#[test]
fn what_qemu_encrypts_we_read() {
    let Some(peer) = Peer::find() else { return };
    in_parallel(CIPHERS.into_iter().enumerate().collect(), |&(i, (_, name, mode, size))| {
        let cipher = CipherSpec::parse(name, mode, size).unwrap();
        for len in [SIZES[i % 6], SIZES[(i + 2) % 6], 200 * 512] {
            let desk = Desk::with(Vec::new());
            let plain = noise(len);
            fs::write(desk.path("plain.raw"), &plain).unwrap();
            luks(&desk.path("disk.luks"), &cipher, "OLD", &vec![0; len]);
            peer.encrypt(&desk, "plain.raw", "disk.luks");
            desk.done(&format!("{FROM_LUKS} a.raw"));
            assert!(desk.bytes("a.raw") == padded(&plain), "{len} bytes");
            desk.done(&format!("{FROM_LUKS} {TO_LUKS} a.luks"));
            assert!(payload(&desk.path("a.luks"), "NEW").unwrap() == padded(&plain), "{len} bytes");
        }
    });
}

/// Images that are QEMU's from the first byte.
#[test]
fn what_qemu_makes_we_read() {
    let Some(peer) = Peer::find() else { return };
    in_parallel(vec![SIZES[5], SIZES[6]], |&len| {
        let desk = Desk::with(Vec::new());
        let plain = noise(len);
        fs::write(desk.path("plain.raw"), &plain).unwrap();
        let options = "-O luks -o key-secret=old,iter-time=10";
        peer.convert(&desk, &format!("-f raw {options} plain.raw theirs.luks"));
        desk.done("--secret env:OLD theirs.luks ours.raw");
        assert!(desk.bytes("ours.raw") == padded(&plain), "{len} bytes");
        desk.done(&format!("--secret env:OLD theirs.luks {TO_LUKS} ours.luks"));
        assert!(peer.decrypted(&desk, "ours.luks", "new") == padded(&plain), "{len} bytes");
    });
}

#[test]
fn every_size_both_ways() {
    let Some(peer) = Peer::find() else { return };
    in_parallel(SIZES.to_vec(), |&len| {
        let desk = Desk::with(noise(len.next_multiple_of(512)));
        fs::write(desk.path("plain.raw"), noise(len)).unwrap();
        for (ours, theirs) in [
            ("-f raw plain.raw", "-f raw plain.raw"),
            (FROM_LUKS, "--image-opts driver=luks,file.filename=disk.luks,key-secret=old"),
        ] {
            desk.done(&format!("{ours} --force ours.raw"));
            peer.convert(&desk, &format!("{theirs} theirs.raw"));
            assert!(desk.bytes("ours.raw") == desk.bytes("theirs.raw"), "{len} bytes, {ours}");
        }
        desk.done(&format!("-f raw plain.raw {TO_LUKS} ours.luks"));
        let padded = padded(&noise(len));
        assert!(peer.decrypted(&desk, "ours.luks", "new") == padded, "{len} bytes");
        assert_eq!(desk.bytes("ours.luks").len(), 2_068_480 + padded.len());
    });
}

/// Where there are zeros, from and to; a hole in the source or written ones.
const ZEROS: [(&str, &[(usize, usize)]); 8] = [
    ("none", &[]),
    ("all", &[(0, MIB)]),
    ("aligned", &[(65536, 4096), (131_072, 65536)]),
    ("not aligned", &[(66048, 4096), (131_584, 65536), (300_000, 7680)]),
    ("too short", &[(65536, 3584), (69632, 512)]),
    ("at the ends", &[(0, 8192), (MIB - 8192, 8192)]),
    ("across buffers", &[(MIB / 2 - 4096, 8192)]),
    ("most", &[(4096, MIB - 8192)]),
];
const MIB: usize = 1 << 20;

/// Never more on the disk than qemu-img's, and no less than what its rule keeps.
#[test]
fn holes_are_kept() {
    let Some(peer) = Peer::find() else { return };
    in_parallel(ZEROS.to_vec(), |&(_, zeros)| {
        let mut plain = noise(MIB);
        for &(start, len) in zeros {
            plain[start..start + len].fill(0);
        }
        let desk = Desk::with(plain);
        let len = u64::try_from(MIB).unwrap();
        sparse(&desk.path("sparse.raw"), &desk.plain);
        let luks = "--image-opts driver=luks,file.filename=disk.luks,key-secret=old";
        for (ours, theirs) in [
            ("-f raw sparse.raw", "-f raw sparse.raw"),
            ("-f raw plain.raw", "-f raw plain.raw"),
            (FROM_LUKS, luks),
        ] {
            for options in ["", "-S 4k", "-S 64k", "-S 512", "-S 0", "-W -m 3", "-o size=1M"] {
                let what = format!("{options} {ours}");
                desk.done(&format!("{what} --force -O raw ours.raw"));
                peer.convert(&desk, &format!("{options} {theirs} -O raw theirs.raw"));
                desk.assert_plain("ours.raw");
                let taken = ["ours.raw", "theirs.raw"].map(|name| allocated(&desk.path(name)));
                assert!(taken[0] <= taken[1], "{what}: {taken:?}");
                // Its first block is always there.
                assert!(taken[0] + 4096 >= taken[1], "{what}: {taken:?}: -S was not heeded");
                assert!(options != "-S 0" || taken[0] == len, "{what}: {taken:?}");
            }

            // Into a file that was full: zeros are punched or written.
            for name in ["ours.raw", "theirs.raw"] {
                fs::write(desk.path(name), vec![0xaa; MIB]).unwrap();
            }
            desk.done(&format!("-n {ours} -O raw ours.raw"));
            peer.convert(&desk, &format!("-n {theirs} -O raw theirs.raw"));
            desk.assert_plain("ours.raw");
            let taken = ["ours.raw", "theirs.raw"].map(|name| allocated(&desk.path(name)));
            assert!(taken[0] <= taken[1], "-n {ours}: {taken:?}");

            // Of a hole in an encrypted payload garbage would come.
            desk.done(&format!("{ours} {TO_LUKS} --force ours.luks"));
            desk.assert_luks("ours.luks", "NEW");
            assert!(peer.decrypted(&desk, "ours.luks", "new") == desk.plain, "{ours}");
            let taken = allocated(&desk.path("ours.luks"));
            assert!((len..=len + 262_144).contains(&taken), "{ours}: {taken}");
        }
    });
}

#[test]
fn space_that_is_asked_for() {
    let mut plain = noise(MIB);
    plain[4096..MIB / 2].fill(0);
    let desk = Desk::with(plain);
    for preallocation in ["falloc", "full"] {
        for (source, target) in
            [("-f raw plain.raw", "-O raw"), (FROM_LUKS, "-O raw"), (FROM_LUKS, TO_LUKS)]
        {
            let words = format!("{source} {target} -o preallocation={preallocation} --force new");
            desk.done(&words);
            let len = fs::metadata(desk.path("new")).unwrap().len();
            assert!(allocated(&desk.path("new")) >= len, "{words}");
        }
        desk.assert_luks("new", "NEW");
    }
}

/// A payload beyond 4 GiB of the file, where only the ends are written.
#[test]
fn a_large_hole() {
    let Some(peer) = Peer::find() else { return };
    let desk = Desk::with(Vec::new());
    let len = (5_u64 << 30) + 512;
    let file = fs::File::create(desk.path("plain.raw")).unwrap();
    file.set_len(len).unwrap();
    for at in [0, 4 << 30, len - 512] {
        file.write_all_at(&noise(512), at).unwrap();
    }
    desk.done("-f raw plain.raw a.raw");
    let a = fs::File::open(desk.path("a.raw")).unwrap();
    assert_eq!(a.metadata().unwrap().len(), len);
    for (at, is_there) in [(0, true), (1 << 30, false), (4 << 30, true), (len - 512, true)] {
        let mut sector = [0; 512];
        a.read_exact_at(&mut sector, at).unwrap();
        assert!(sector[..] == if is_there { noise(512) } else { vec![0; 512] }, "at {at}");
    }
    peer.convert(&desk, "-f raw plain.raw theirs.raw");
    assert!(allocated(&desk.path("a.raw")) <= allocated(&desk.path("theirs.raw")));
}

/// Writes a file and leaves out its blocks of zeros.
fn sparse(path: &Path, bytes: &[u8]) {
    let file = fs::File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (i, block) in bytes.chunks(4096).enumerate() {
        if block.iter().any(|&byte| byte != 0) {
            file.write_all_at(block, i as u64 * 4096).unwrap();
        }
    }
    assert!(fs::read(path).unwrap() == bytes);
}
