//! What a change has to know of a header, and the writes that make it, whatever the format.

use super::{Edit, Header, HeldKey, Occupant, SlotChange, Stage, Staging, Template, luks1};
use crate::crypto::{KdfKind, random};
use crate::error::{Error, ErrorKind, Result};
use crate::overrides::Overrides;

impl Header {
    /// Whether its keyslots can be changed.
    pub fn check_amendable(&self) -> Result<()> {
        match self {
            Self::Luks1(_) => Ok(()),
            Self::Luks2(header) => header.check_amendable(),
        }
    }

    /// What is in each keyslot that there can be: 8 of LUKS1, 32 of LUKS2.
    pub fn occupants(&self) -> Vec<Option<Occupant>> {
        match self {
            Self::Luks1(header) => {
                let is_usable = header.check_supported().is_ok();
                let occupant = Occupant { key: HeldKey::Volume, is_usable };
                header.entries().map(|entry| entry.active.then_some(occupant)).collect()
            }
            Self::Luks2(header) => header.occupants(),
        }
    }

    /// What a new key in this keyslot is made by: the keyslot's own parameters where it has some.
    pub fn template(&self, keyslot: usize) -> Result<Template> {
        match self {
            Self::Luks1(header) => header.template(),
            Self::Luks2(header) => header.template(keyslot),
        }
    }

    /// What a new key in a keyslot that is not in use is made by.
    pub fn new_template(&self) -> Result<Template> {
        match self {
            Self::Luks1(header) => header.template(),
            Self::Luks2(header) => header.new_template(),
        }
    }

    /// A salt for new key material of a keyslot. In LUKS1 it says which keyslot it is for, if that is
    /// active: so the staging keyslot of an interrupted replacement is recognised.
    pub fn salt(&self, keyslot: usize) -> Result<[u8; 32]> {
        match self {
            Self::Luks1(header) => header.salt(keyslot),
            Self::Luks2(_) => {
                let mut salt = [0; 32];
                random::fill(&mut salt)?;
                Ok(salt)
            }
        }
    }

    /// Makes sure that a keyslot holds the volume key, whether or not this crate can open it.
    ///
    /// [`ErrorKind::Unsupported`] if nothing opens the image any more.
    pub fn check_openable(&self) -> Result<()> {
        let holds_it = |it: &Occupant| it.key == HeldKey::Volume;
        // An entry whose state is damaged may have been active.
        let may_hold_it = self.luks1().is_some_and(luks1::Luks1Header::has_unknown_state);
        if may_hold_it || self.occupants().iter().flatten().any(holds_it) {
            return Ok(());
        }
        Err(no_volume_key())
    }

    /// The type of the token that alone can open a keyslot: its secret was never anybody's to type.
    pub(crate) fn token_only(&self, keyslot: usize) -> Option<&str> {
        let token = self.luks2()?.metadata().opener_of(u32::try_from(keyslot).ok()?)?;
        Some(&token.kind)
    }

    /// How each of the keyslots that are `replaced` is staged, while as many are `added` and others
    /// `erased`. `spare` is a keyslot that is inactive before and after. Refused if there is no
    /// room for the added ones.
    pub(crate) fn arrange(
        &self,
        added: usize,
        erased: &[usize],
        replaced: &[usize],
        spare: Option<usize>,
    ) -> Result<Vec<Staging>> {
        match self {
            Self::Luks1(_) => {
                let staging = spare.map_or(Staging::InPlace, Staging::Keyslot);
                Ok(vec![staging; replaced.len()])
            }
            Self::Luks2(header) => header.arrange(added, erased, replaced),
        }
    }

    /// The writes that make `changes`, in stages, and the header as it is after them.
    ///
    /// Every keyslot may occur once, and must be in the state that its change starts from.
    /// LUKS2: tokens that lose their last keyslot are removed.
    pub fn lower(&self, changes: &[SlotChange]) -> Result<(Vec<Stage>, Self)> {
        self.lower_with(changes, false)
    }

    /// The same, and tokens that lose their last keyslot may be kept.
    pub(crate) fn lower_with(
        &self,
        changes: &[SlotChange],
        keep_tokens: bool,
    ) -> Result<(Vec<Stage>, Self)> {
        match self {
            Self::Luks1(header) => {
                let (stages, after) = header.lower(changes)?;
                Ok((stages, Self::Luks1(after)))
            }
            Self::Luks2(header) => {
                let (stages, after) = header.lower(changes, keep_tokens)?;
                Ok((stages, Self::Luks2(after)))
            }
        }
    }

    /// The writes that make changes which touch no key, in stages, and the header after them.
    ///
    /// [`ErrorKind::InvalidInput`] for what LUKS1 does not have, and for what is not there.
    pub fn lower_edits(&self, edits: &[Edit]) -> Result<(Vec<Stage>, Self)> {
        match self {
            Self::Luks1(header) => {
                let (stages, after) = header.lower_edits(edits)?;
                Ok((stages, Self::Luks1(after)))
            }
            Self::Luks2(header) => {
                let (stages, after) = header.lower_edits(edits)?;
                Ok((stages, Self::Luks2(after)))
            }
        }
    }

    /// The writes that bring a header into order, and overwrite what an interruption left, where
    /// there is something to do; and the header after them.
    ///
    /// [`ErrorKind::Refused`] if the image begins with something else, or if a damaged keyslot may
    /// have been active, and it is not forced.
    pub fn lower_repair(&self, overrides: Overrides) -> Result<Option<(Vec<Stage>, Self)>> {
        let wraps = |(stages, after)| (stages, Self::Luks2(after));
        match self {
            Self::Luks1(header) => {
                let wraps = |(stages, after)| (stages, Self::Luks1(after));
                Ok(header.lower_repair(overrides)?.map(wraps))
            }
            Self::Luks2(header)
                if header.warning().is_none() && header.areas_to_wipe().is_empty() =>
            {
                Ok(None)
            }
            Self::Luks2(header) => header.lower_repair(overrides).map(|it| Some(wraps(it))),
        }
    }

    /// Whether a keyslot can have this KDF.
    pub(crate) fn has_kdf(&self, kdf: KdfKind) -> bool {
        matches!(self, Self::Luks2(_)) || kdf == KdfKind::Pbkdf2
    }

    /// What is missing when a keyslot can only be replaced in place.
    pub(crate) fn no_room(&self) -> &'static str {
        match self {
            Self::Luks1(_) => "no keyslot is left free",
            Self::Luks2(_) => "no gap between the areas of keyslots is large enough",
        }
    }
}

/// The error of an image that nothing opens any more.
pub(super) fn no_volume_key() -> Error {
    let text = "no keyslot holds the volume key any more";
    Error::new(ErrorKind::Unsupported, text)
}
