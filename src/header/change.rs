//! Format-independent facts that a change needs about a header, and the writes that make the change.

use super::{Edit, Header, HeldKey, Occupant, SlotChange, Stage, Staging, Template, luks1};
use crate::crypto::{KdfKind, random};
use crate::error::{Error, ErrorKind, Result};
use crate::overrides::Overrides;

impl Header {
    /// Checks that the keyslots can be changed.
    pub fn check_amendable(&self) -> Result<()> {
        match self {
            Self::Luks1(_) => Ok(()),
            Self::Luks2(header) => header.check_amendable(),
        }
    }

    /// Occupants of all keyslots that the format has: 8 in LUKS1, 32 in LUKS2.
    #[doc(hidden)]
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

    /// Parameters for a new key in this keyslot. An active keyslot keeps its own.
    #[doc(hidden)]
    pub fn template(&self, keyslot: usize) -> Result<Template> {
        match self {
            Self::Luks1(header) => header.template(),
            Self::Luks2(header) => header.template(keyslot),
        }
    }

    /// Parameters for a new key in an inactive keyslot.
    pub(crate) fn new_template(&self) -> Result<Template> {
        match self {
            Self::Luks1(header) => header.template(),
            Self::Luks2(header) => header.new_template(),
        }
    }

    /// Generates a salt for new key material of a keyslot. In LUKS1, if the keyslot is active, the salt
    /// encodes its index, which identifies the staging keyslot of an interrupted replacement.
    pub(crate) fn salt(&self, keyslot: usize) -> Result<[u8; 32]> {
        match self {
            Self::Luks1(header) => header.salt(keyslot),
            Self::Luks2(_) => {
                let mut salt = [0; 32];
                random::fill(&mut salt)?;
                Ok(salt)
            }
        }
    }

    /// Checks that some keyslot holds the volume key, whether or not this crate can open it.
    ///
    /// Fails with [`ErrorKind::Unsupported`] if no keyslot is left that opens the image.
    pub fn check_openable(&self) -> Result<()> {
        let holds_it = |it: &Occupant| it.key == HeldKey::Volume;
        // An entry whose state is damaged may have been active.
        let may_hold_it = self.luks1().is_some_and(luks1::Luks1Header::has_unknown_state);
        if may_hold_it || self.occupants().iter().flatten().any(holds_it) {
            return Ok(());
        }
        Err(no_volume_key())
    }

    /// Type of the token that alone can open a keyslot, because the keyslot's secret is random.
    pub(crate) fn token_only(&self, keyslot: usize) -> Option<&str> {
        let token = self.luks2()?.metadata().opener_of(u32::try_from(keyslot).ok()?)?;
        Some(&token.kind)
    }

    /// Chooses the staging of each `replaced` keyslot in an amendment that also adds `added` keyslots and
    /// erases others. `spare` is a keyslot that is inactive before and after. Fails if the added
    /// keyslots do not fit.
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

    /// Lowers `changes` to writes, in stages. Also returns the header after them.
    ///
    /// Every keyslot may occur once, and must be in the state that its change starts from.
    /// LUKS2 tokens that lose their last keyslot are removed.
    #[doc(hidden)]
    pub fn lower(&self, changes: &[SlotChange]) -> Result<(Vec<Stage>, Self)> {
        self.lower_with(changes, false)
    }

    /// Lowers `changes` like [`lower`](Self::lower), optionally keeping tokens that lose their last
    /// keyslot.
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

    /// Lowers changes that touch no key to writes, in stages. Also returns the header after them.
    ///
    /// Fails with [`ErrorKind::InvalidInput`] if the format does not support an edit, or if the token or
    /// keyslot does not exist.
    #[doc(hidden)]
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

    /// Writes that repair the header and overwrite key material that an interruption left, and the
    /// header after them. `None` if nothing needs repair.
    ///
    /// Fails with [`ErrorKind::Refused`] if the repair may destroy something, such as foreign data at
    /// the start of the image or a damaged keyslot that may have been active, and no override permits it.
    #[doc(hidden)]
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

    /// Whether the format supports this KDF.
    pub(crate) fn has_kdf(&self, kdf: KdfKind) -> bool {
        matches!(self, Self::Luks2(_)) || kdf == KdfKind::Pbkdf2
    }

    /// Reason why a keyslot can only be replaced in place.
    pub(crate) fn no_room(&self) -> &'static str {
        match self {
            Self::Luks1(_) => "no keyslot is left free",
            Self::Luks2(_) => "no gap between the areas of keyslots is large enough",
        }
    }
}

/// Error for an image without a keyslot that opens it.
pub(super) fn no_volume_key() -> Error {
    let text = "no keyslot holds the volume key any more";
    Error::new(ErrorKind::Unsupported, text)
}
