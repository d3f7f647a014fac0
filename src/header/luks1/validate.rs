//! What a LUKS1 header must satisfy before any of its numbers is used.
//!
//! The checks are QEMU's, in its order and with its texts (`qcrypto_block_luks_check_header` and
//! what follows it), in 64-bit arithmetic; then what QEMU leaves out: the end of the file. Two
//! are cryptsetup's instead, so that images of its first versions open: key material may begin
//! at sector 2, and areas are as long as their material, not rounded up to 4096 bytes.

use super::raw::{ACTIVE, HEADER_SIZE, INACTIVE, MAGIC, RawHeader, SECTOR};
use crate::crypto::{CipherSpec, HashAlg, af};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{material_len, text};

/// What the strings of a valid header say.
pub(super) struct Meaning {
    pub cipher: CipherSpec,
    pub hash: HashAlg,
}

/// Checks `raw`, the header of an image of `image_len` bytes.
pub(super) fn validate(raw: &RawHeader, image_len: u64) -> Result<Meaning> {
    if raw.magic != MAGIC {
        return Err(Error::new(ErrorKind::NotLuks, "Volume is not in LUKS format"));
    }
    let version = raw.version.get();
    if version != 1 {
        let text = format!("LUKS version {version} is not supported");
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    terminated(&raw.cipher_name, "cipher name")?;
    terminated(&raw.cipher_mode, "cipher mode")?;
    terminated(&raw.hash_spec, "hash spec")?;

    let payload = u64::from(raw.payload_offset.get());
    if payload < FIRST_PAYLOAD_SECTOR {
        let error = corrupt("LUKS payload is overlapping with the header");
        return Err(match payload {
            0 => error.with_hint("payload offset 0 marks a detached header; its image is needed"),
            _ => error.with_hint(format!("it begins at sector {payload}")),
        });
    }
    if raw.mk_digest_iterations.get() == 0 {
        return Err(corrupt("LUKS key iteration count is zero"));
    }
    keyslots(raw, payload)?;

    let (name, mode, key_bytes) =
        (text(&raw.cipher_name), text(&raw.cipher_mode), raw.key_bytes.get());
    let cipher = CipherSpec::parse(&name, &mode, usize::try_from(key_bytes).unwrap_or(usize::MAX))
        .map_err(|e| e.with_hint(format!("it is {name}-{mode} with a key of {key_bytes} bytes")))?;
    let hash = HashAlg::parse(&text(&raw.hash_spec))?;

    let payload_byte = payload * SECTOR;
    if payload_byte > image_len {
        return Err(corrupt(format!(
            "payload offset {payload_byte} is beyond the end of the image ({image_len} bytes)"
        ))
        .with_hint("the image is truncated"));
    }
    Ok(Meaning { cipher, hash })
}

fn keyslots(raw: &RawHeader, payload: u64) -> Result<()> {
    let sectors = material_len(raw.key_bytes.get()) / SECTOR;
    let start = |i: usize| u64::from(raw.keyslots[i].key_material_offset.get());

    for (i, slot) in raw.keyslots.iter().enumerate() {
        let stripes = slot.stripes.get();
        if stripes != af::STRIPES {
            let wanted = af::STRIPES;
            return Err(corrupt(format!(
                "Keyslot {i} is corrupted (stripes {stripes} != {wanted})"
            )));
        }
        let state = slot.state.get();
        if state != ACTIVE && state != INACTIVE {
            return Err(corrupt(format!("Keyslot {i} state (active/disable) is corrupted"))
                .with_hint(format!("its state is {state:#010x}")));
        }
        if state == ACTIVE && slot.iterations.get() == 0 {
            return Err(corrupt(format!("Keyslot {i} iteration count is zero")));
        }
        if start(i) < FIRST_MATERIAL_SECTOR {
            return Err(corrupt(format!("Keyslot {i} is overlapping with the LUKS header"))
                .with_hint(format!("its key material begins at sector {}", start(i))));
        }
        if start(i) + sectors > payload {
            return Err(corrupt(format!("Keyslot {i} is overlapping with the encrypted payload"))
                .with_hint(format!(
                    "its key material is {sectors} sectors from sector {} on, the payload begins at sector {payload}",
                    start(i)
                )));
        }
        for j in i + 1..raw.keyslots.len() {
            if start(i) < start(j) + sectors && start(j) < start(i) + sectors {
                return Err(corrupt(format!("Keyslots {i} and {j} are overlapping in the header"))
                    .with_hint(format!(
                        "their key material is {sectors} sectors from sector {} and from sector {} on",
                        start(i),
                        start(j)
                    )));
            }
        }
    }
    Ok(())
}

fn terminated(field: &[u8], what: &str) -> Result<()> {
    if field.contains(&0) {
        return Ok(());
    }
    Err(corrupt(format!("LUKS header {what} is not NUL terminated")))
}

fn corrupt(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, text)
}

/// The header and 8 sectors' alignment, as QEMU wants of the payload.
const FIRST_PAYLOAD_SECTOR: u64 = 8;
/// The first sector behind the header's 592 bytes.
const FIRST_MATERIAL_SECTOR: u64 = (HEADER_SIZE as u64).div_ceil(SECTOR);
