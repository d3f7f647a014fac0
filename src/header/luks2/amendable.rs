//! Facts for an amendment: the present keyslots, whether they may be changed, the parameters of new
//! ones, and the room for them.

use std::ops::Range;

use super::areas::Areas;
use super::steps::KEYSLOTS;
use super::{Luks2Header, Slot, unsupported};
use crate::crypto::{CipherSpec, HashAlg, KdfAlg, KdfKind};
use crate::error::{Error, ErrorKind, Result};
use crate::header::change::no_volume_key;
use crate::header::{HeldKey, Occupant, Staging, Template};

impl Luks2Header {
    /// Keyslot with this number, whether or not it can be opened.
    pub(super) fn slot(&self, number: usize) -> Option<&Slot> {
        self.metadata.keyslots().iter().find(|slot| slot.number as usize == number)
    }

    /// Region for the areas of keyslots, in bytes from the start of the header.
    pub(super) fn areas(&self) -> Range<u64> {
        let start = 2 * self.hdr_size();
        start..start + self.metadata.config().keyslots_size
    }

    /// Number of the digest of the volume key.
    pub(super) fn volume_key_digest(&self) -> Result<u32> {
        let digest = self.metadata.digest_of_segment(self.first_segment());
        digest.map(|digest| digest.number).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "the image has no volume key: it is not encrypted")
        })
    }

    /// Occupants of all keyslots that the format has.
    pub(in crate::header) fn occupants(&self) -> Vec<Option<Occupant>> {
        let mut occupants = vec![None; KEYSLOTS];
        let volume_key = self.volume_key_digest().ok();
        for slot in self.metadata.keyslots() {
            let key = match self.metadata.digest_of_keyslot(slot.number) {
                Some(digest) if Some(digest.number) == volume_key => HeldKey::Volume,
                Some(digest) if !digest.segments.is_empty() => HeldKey::Segments(digest.number),
                _ => HeldKey::Unbound,
            };
            let is_usable = self.view(slot).is_ok();
            occupants[slot.number as usize] = Some(Occupant { key, is_usable });
        }
        occupants
    }

    /// Checks that the metadata may be written. cryptsetup refuses the same headers.
    pub(in crate::header) fn check_amendable(&self) -> Result<()> {
        self.check_requirements()?;
        if let Some(unread) = &self.unread {
            let text =
                format!("{unread}; it may be newer than the other copy, which would replace it");
            let error = Error::new(ErrorKind::Refused, text);
            return Err(error.with_hint("use 'keyslot repair --newer-copy' to replace it"));
        }
        if self.is_foreign {
            let text =
                "the image does not begin with a LUKS header: only the secondary copy is left";
            let error = Error::new(ErrorKind::Refused, text);
            return Err(
                error.with_hint("use 'keyslot repair --foreign-data' to restore the primary copy")
            );
        }
        Ok(())
    }

    /// Parameters for a new key in this keyslot: its present ones, or those of a new keyslot.
    pub(in crate::header) fn template(&self, number: usize) -> Result<Template> {
        let old = self.slot(number).and_then(|slot| self.view(slot).ok());
        if let Some(old) = old {
            let hash = match old.kdf.alg {
                KdfAlg::Pbkdf2 { hash, .. } => hash,
                KdfAlg::Argon2 { .. } => HashAlg::Sha256,
            };
            return Ok(Template {
                encryption: old.encryption.clone(),
                af_hash: old.af_hash,
                key_size: old.key_size,
                kdf: old.kdf.alg.kind(),
                hash,
                digest: Some(old.digest.into()),
            });
        }
        self.new_template()
    }

    /// Parameters for a new keyslot: the cipher of the volume, and cryptsetup's defaults.
    pub(in crate::header) fn new_template(&self) -> Result<Template> {
        let key_size = self.volume_key_size()?;
        let digest = self.digest().map_err(unsupported)?;
        let same = self.cipher().ok().filter(|cipher| cipher.key_size() == key_size);
        let encryption = match same {
            Some(cipher) => cipher.clone(),
            None => CipherSpec::parse("aes", "xts-plain64", 64)?,
        };
        Ok(Template {
            encryption,
            af_hash: HashAlg::Sha256,
            key_size,
            kdf: KdfKind::Argon2id,
            hash: HashAlg::Sha256,
            digest: Some(digest.into()),
        })
    }

    /// Chooses the staging of each replaced keyslot. Fails if there is no room for the added
    /// keyslots.
    pub(in crate::header) fn arrange(
        &self,
        added: usize,
        erased: &[usize],
        replaced: &[usize],
    ) -> Result<Vec<Staging>> {
        let slots = |numbers: &[usize]| -> Vec<_> {
            numbers.iter().filter_map(|&number| self.slot(number)).collect()
        };
        let added = match added {
            0 => Vec::new(),
            _ => vec![u32::try_from(self.volume_key_size()?).unwrap_or(u32::MAX); added],
        };
        let arranged = Areas::of(self).arrange(&added, &slots(erased), &slots(replaced))?;
        let staging =
            |place: Option<_>| if place.is_some() { Staging::Area } else { Staging::InPlace };
        Ok(arranged.replaced.into_iter().map(staging).collect())
    }

    /// Length in bytes of the volume key, which only its keyslots record.
    pub(in crate::header) fn volume_key_size(&self) -> Result<usize> {
        match super::key_size(&self.metadata, self.first_segment()) {
            0 => Err(no_volume_key()),
            size => Ok(size),
        }
    }
}
