//! Validation of a LUKS1 header, before any of its numbers is used.
//!
//! The checks are QEMU's, in its order and with its texts (`qcrypto_block_luks_check_header` and
//! the functions called after it), in 64-bit arithmetic. A check against the end of the file, which QEMU
//! omits, follows. Two checks are cryptsetup's, so that images of its first versions open: key material
//! may begin at sector 2, and areas are as long as their material, not rounded up to 4096 bytes.
//!
//! Three faults do not invalidate the header as a whole, because the rest of it is usable:
//!
//! - an inactive entry that is invalid. cryptsetup ignores it until it needs the keyslot. Partition
//!   tools cause such entries by writing a disk signature at bytes 440 and 510;
//! - a cipher or hash that this crate does not support;
//! - a payload outside the file, as in a header backup or a detached header (payload offset 0).

use super::raw::{ACTIVE, HEADER_SIZE, INACTIVE, KEYSLOTS, MAGIC, RawHeader, SECTOR};
use crate::crypto::{CipherSpec, HashAlg, af};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{material_len, text};

/// Meaning of a valid header's fields.
#[derive(Clone)]
pub(super) struct Meaning {
    pub cipher: std::result::Result<CipherSpec, Fault>,
    pub hash: std::result::Result<HashAlg, Fault>,
    /// Faults of inactive entries
    pub damage: [Option<Fault>; KEYSLOTS],
}

/// An error in one item of the header, reported when the item is needed.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    kind: ErrorKind,
    pub text: String,
    hint: Option<String>,
}

impl Fault {
    fn corrupt(text: impl Into<String>, hint: impl Into<Option<String>>) -> Self {
        Self { kind: ErrorKind::Corrupt, text: text.into(), hint: hint.into() }
    }

    pub fn error(&self) -> Error {
        let error = Error::new(self.kind, &*self.text);
        match &self.hint {
            Some(hint) => error.with_hint(&**hint),
            None => error,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let hint = error.hint().map(str::to_owned);
        Self { kind: error.kind(), text: error.message().to_owned(), hint }
    }
}

/// Checks `raw`. If `storage_len` is given, the areas of keyslots must end within it.
pub(super) fn validate(raw: &RawHeader, storage_len: Option<u64>) -> Result<Meaning> {
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
    if payload != DETACHED && payload < FIRST_PAYLOAD_SECTOR {
        let error = corrupt(OVERLAPPING_PAYLOAD);
        return Err(error.with_hint(format!("it begins at sector {payload}")));
    }
    if raw.mk_digest_iterations.get() == 0 {
        return Err(corrupt("LUKS key iteration count is zero"));
    }
    let damage = keyslots(raw, payload, storage_len)?;

    let cipher = cipher(raw);
    // An unsupported cipher with damaged entries suggests a wrong key size, with which all areas seem
    // to overlap. The header is then invalid as a whole.
    if let (Err(_), Some(fault)) = (&cipher, damage.iter().flatten().next()) {
        return Err(fault.error());
    }
    let cipher = tolerate(cipher)?;
    let hash = tolerate(HashAlg::parse_any_case(&text(&raw.hash_spec)))?;
    match &cipher {
        Err(fault) if !KEY_BYTES.contains(&raw.key_bytes.get()) => return Err(fault.error()),
        _ => {}
    }
    Ok(Meaning { cipher, hash, damage })
}

fn cipher(raw: &RawHeader) -> Result<CipherSpec> {
    let (name, mode, key_bytes) =
        (text(&raw.cipher_name), text(&raw.cipher_mode), raw.key_bytes.get());
    CipherSpec::parse(&name, &mode, usize::try_from(key_bytes).unwrap_or(usize::MAX))
        .map_err(|e| e.with_hint(format!("it is {name}-{mode} with a key of {key_bytes} bytes")))
}

/// Defers the error of an unsupported item. Any other error invalidates the header.
fn tolerate<T>(result: Result<T>) -> Result<std::result::Result<T, Fault>> {
    match result {
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Err(error.into())),
        other => other.map(Ok),
    }
}

/// Faults of inactive entries. A fault of an active entry invalidates the header.
fn keyslots(
    raw: &RawHeader,
    payload: u64,
    storage_len: Option<u64>,
) -> Result<[Option<Fault>; KEYSLOTS]> {
    let sectors = material_len(raw.key_bytes.get()) / SECTOR;
    let start = |i: usize| u64::from(raw.keyslots[i].key_material_offset.get());
    let is_active = |i: usize| raw.keyslots[i].state.get() == ACTIVE;
    let own: [_; KEYSLOTS] = std::array::from_fn(|i| own_fault(raw, i, payload));
    let mut damage = own.clone();
    for i in 0..KEYSLOTS {
        if let (true, Some(fault)) = (is_active(i), &own[i]) {
            return Err(fault.error());
        }
        for j in i + 1..KEYSLOTS {
            let apart = start(i) >= start(j) + sectors || start(j) >= start(i) + sectors;
            if apart || own[i].is_some() || own[j].is_some() {
                continue;
            }
            let fault = Fault::corrupt(
                format!("Keyslots {i} and {j} are overlapping in the header"),
                format!(
                    "their key material is {sectors} sectors from sector {} and from sector {} on",
                    start(i),
                    start(j)
                ),
            );
            if is_active(i) && is_active(j) {
                return Err(fault.error());
            }
            for it in [i, j].into_iter().filter(|&it| !is_active(it)) {
                damage[it].get_or_insert_with(|| fault.clone());
            }
        }
    }
    for (i, damage) in damage.iter_mut().enumerate() {
        let end = (start(i) + sectors) * SECTOR;
        if let (None, Some(len)) = (&damage, storage_len.filter(|len| end > *len)) {
            let fault = Fault::corrupt(
                format!("Keyslot {i} ends at byte {end}, the image at byte {len}"),
                "the image is truncated".to_owned(),
            );
            if is_active(i) {
                return Err(fault.error());
            }
            *damage = Some(fault);
        }
    }
    Ok(damage)
}

/// Fault of an entry by itself, without regard to other entries.
fn own_fault(raw: &RawHeader, i: usize, payload: u64) -> Option<Fault> {
    let slot = &raw.keyslots[i];
    let sectors = material_len(raw.key_bytes.get()) / SECTOR;
    let (stripes, state) = (slot.stripes.get(), slot.state.get());
    let start = u64::from(slot.key_material_offset.get());
    if stripes != af::STRIPES {
        let wanted = af::STRIPES;
        let text = format!("Keyslot {i} is corrupted (stripes {stripes} != {wanted})");
        return Some(Fault::corrupt(text, None));
    }
    if state != ACTIVE && state != INACTIVE {
        let text = format!("Keyslot {i} state (active/disable) is corrupted");
        return Some(Fault::corrupt(text, format!("its state is {state:#010x}")));
    }
    if state == ACTIVE && slot.iterations.get() == 0 {
        return Some(Fault::corrupt(format!("Keyslot {i} iteration count is zero"), None));
    }
    if start < FIRST_MATERIAL_SECTOR {
        let text = format!("Keyslot {i} is overlapping with the LUKS header");
        let hint = format!("its key material begins at sector {start}");
        return Some(Fault::corrupt(text, hint));
    }
    if payload != DETACHED && start + sectors > payload {
        let text = format!("Keyslot {i} is overlapping with the encrypted payload");
        let hint = format!(
            "its key material is {sectors} sectors from sector {start} on, the payload begins at sector {payload}"
        );
        return Some(Fault::corrupt(text, hint));
    }
    None
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

/// QEMU's text for a payload within the header, and for a payload offset of 0, which in cryptsetup means a
/// detached header.
pub(super) const OVERLAPPING_PAYLOAD: &str = "LUKS payload is overlapping with the header";
/// Payload offset of a detached header.
pub(super) const DETACHED: u64 = 0;
/// First sector that QEMU permits for the payload.
const FIRST_PAYLOAD_SECTOR: u64 = 8;
/// First sector after the header's 592 bytes.
pub(super) const FIRST_MATERIAL_SECTOR: u64 = (HEADER_SIZE as u64).div_ceil(SECTOR);
/// Accepted lengths in bytes of the volume key of an unsupported cipher. The upper end is cryptsetup's
/// limit.
const KEY_BYTES: std::ops::RangeInclusive<u32> = 1..=512;
