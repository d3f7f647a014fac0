//! Report of `check` on one image.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use keyslot::header::luks2::Token;
use keyslot::header::{Header, Priority, luks1};
use keyslot::{Image, Result};
use serde::Serialize;

use super::super::backup_info::BackupInfo;
use super::super::changes::{KdfCost, LeftoverReport};
use super::super::create::Version;
use super::super::output::{self, Report};
use super::super::report::ErrorReport;
use super::super::status::Status;

/// A header, its keyslots and their faults.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckReport {
    filename: String,
    format: &'static str,
    cipher: Option<String>,
    key_bits: Option<usize>,
    hash: Option<String>,
    keyslots: Vec<KeyslotReport>,
    leftovers: Vec<LeftoverReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    weaknesses: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    payload_missing: bool,
    #[serde(flatten)]
    backup: Option<BackupInfo>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stale_tokens: Vec<TokenReport>,
    /// Keyslots that the secret opens, if one was tried
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_opens: Option<Vec<usize>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
    /// `LUKS1`, `LUKS2`
    #[serde(skip)]
    version: &'static str,
    /// Whether a keyslot holds the volume key
    #[serde(skip)]
    is_openable: bool,
}

#[derive(Serialize)]
struct KeyslotReport {
    keyslot: usize,
    active: bool,
    #[serde(flatten)]
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unbound: bool,
    /// Token without which the keyslot does not open
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<TokenReport>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum State {
    Active(KdfCost),
    Inactive { blank: bool },
    Unusable { unusable: String },
    Damaged { damage: String },
}

#[derive(Serialize)]
struct TokenReport {
    token: u32,
    #[serde(rename = "type")]
    kind: String,
}

impl TokenReport {
    fn new(token: &Token) -> Self {
        Self { token: token.number, kind: token.kind.clone() }
    }
}

impl CheckReport {
    /// Report on an image before a secret is tried on its keyslots.
    pub fn new(path: &Path, image: &Image) -> Result<Self> {
        let header = image.header();
        let hash = header.digest().map(|digest| digest.hash.name().to_owned());
        Ok(Self {
            filename: output::filename(path),
            format: Version::of_header(header).format(),
            cipher: header.cipher_text(),
            key_bits: header.key_size().map(|size| 8 * size),
            hash: hash.or_else(|| Some(header.luks1()?.hash_text())),
            keyslots: keyslots(image)?,
            leftovers: LeftoverReport::all(header.leftovers()),
            warning: header.warning().map(str::to_owned),
            weaknesses: header.weaknesses(),
            payload_missing: image.qcow2().is_none()
                && header.payload_offset() > image.payload_storage_len()?,
            backup: BackupInfo::new(image)?,
            stale_tokens: stale_tokens(header).map(TokenReport::new).collect(),
            secret_opens: None,
            error: None,
            version: header.format(),
            is_openable: header.check_openable().is_ok(),
        })
    }
}

impl Report for CheckReport {
    fn exit_status(&self) -> Status {
        self.error.as_ref().map_or(Status::Done, ErrorReport::exit_status)
    }
}

/// The keyslots by index: usable, unusable and inactive ones.
fn keyslots(image: &Image) -> Result<Vec<KeyslotReport>> {
    let header = image.header();
    let mut keyslots = Vec::new();
    for keyslot in image.keyslots() {
        let state = if keyslot.active {
            State::Active(KdfCost::of(keyslot.kdf.alg))
        } else {
            State::Inactive { blank: image.is_blank(keyslot.index)? }
        };
        let priority = keyslot.priority;
        keyslots.push(KeyslotReport {
            priority: (priority != Priority::Normal).then(|| priority.name()),
            unbound: !keyslot.is_bound,
            token: opener(header, keyslot.index).map(TokenReport::new),
            ..KeyslotReport::new(keyslot.index, keyslot.active, state)
        });
    }
    for (index, why) in header.unusable() {
        let state = State::Unusable { unusable: why.to_owned() };
        keyslots.push(KeyslotReport::new(index, true, state));
    }
    let usable: Vec<_> = image.keyslots().map(|keyslot| keyslot.index).collect();
    let entries = header.luks1().into_iter().flat_map(luks1::Luks1Header::entries);
    for entry in entries.filter(|it| !it.active && !usable.contains(&it.index)) {
        let state = match entry.damage {
            Some(why) => State::Damaged { damage: why },
            None => State::Inactive { blank: image.is_blank(entry.index)? },
        };
        keyslots.push(KeyslotReport::new(entry.index, false, state));
    }
    keyslots.sort_by_key(|it| it.keyslot);
    Ok(keyslots)
}

impl KeyslotReport {
    fn new(keyslot: usize, active: bool, state: State) -> Self {
        Self { keyslot, active, state, priority: None, unbound: false, token: None }
    }

    /// Description of the keyslot.
    fn text(&self, is_opened: bool) -> String {
        let mut text = match &self.state {
            State::Damaged { damage } => {
                format!("inactive, its entry is damaged: {damage}; 'keyslot repair' repairs it")
            }
            State::Unusable { unusable } => format!("cannot be opened: {unusable}"),
            State::Active(kdf) => match kdf.text() {
                Some(cost) => format!("active, {cost}"),
                None => "active".to_owned(),
            },
            State::Inactive { blank: true } => "inactive, blank".to_owned(),
            State::Inactive { blank: false } => {
                "inactive, not blank (random data, or old key material)".to_owned()
            }
        };
        if let Some(priority) = self.priority {
            text = format!("{text}, priority {priority}");
        }
        if self.unbound {
            text.push_str(", unbound: its key is not the volume key");
        }
        if let Some(TokenReport { token, kind }) = &self.token {
            // The tried secret opens the keyslot too.
            text = if is_opened {
                format!("{text}, also for token {token} ({kind})")
            } else {
                format!("{text}, only token {token} ({kind}) opens it")
            };
        }
        text
    }
}

/// Tokens without keyslots.
fn stale_tokens(header: &Header) -> impl Iterator<Item = &Token> {
    let tokens = header.luks2().map_or(&[][..], |header| header.metadata().tokens());
    tokens.iter().filter(|token| token.keyslots.is_empty())
}

/// The token without which a keyslot does not open.
fn opener(header: &Header, keyslot: usize) -> Option<&Token> {
    header.luks2()?.metadata().opener_of(u32::try_from(keyslot).ok()?)
}

impl Display for CheckReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let opened = self.secret_opens.as_deref().unwrap_or_default();
        let mut lines = vec![self.heading()];
        for slot in &self.keyslots {
            let text = slot.text(opened.contains(&slot.keyslot));
            lines.push(format!("keyslot {}: {text}", slot.keyslot));
        }
        for warning in self.warning.iter().chain(&self.weaknesses) {
            lines.push(format!("warning: {warning}"));
        }
        if let Some(backup) = &self.backup {
            lines.push(backup.to_string());
        } else if self.payload_missing {
            lines.push("note: the file ends before the payload: a truncated image".to_owned());
        }
        lines.extend(self.leftovers.iter().map(leftover));
        for TokenReport { token, kind } in &self.stale_tokens {
            lines.push(format!(
                "stale: token {token} ({kind}) has no keyslot; 'keyslot token remove --token {token}' removes it"
            ));
        }
        if !opened.is_empty() {
            lines.push(format!("the secret opens {}", output::keyslots(opened)));
        }
        lines.iter().try_for_each(|line| writeln!(f, "{}", output::foreign(line)))
    }
}

impl CheckReport {
    fn heading(&self) -> String {
        let version = self.version;
        let is_damaged = self.warning.is_some()
            || self.keyslots.iter().any(|it| matches!(it.state, State::Damaged { .. }));
        let header = if !self.is_openable {
            format!("{version} header that no keyslot opens")
        } else if is_damaged || !self.weaknesses.is_empty() {
            format!("{version} header")
        } else {
            format!("sound {version} header")
        };
        let unknown = |text: &Option<String>| text.clone().unwrap_or("unknown".to_owned());
        let key = self.key_bits.map(|bits| format!("{bits}-bit key"));
        format!(
            "{}: {header}, {}, {}, {}",
            self.filename,
            unknown(&self.cipher),
            key.unwrap_or("unknown key".to_owned()),
            unknown(&self.hash),
        )
    }
}

fn leftover(left: &LeftoverReport) -> String {
    match left {
        LeftoverReport::Wipe { keyslot } => format!(
            "leftover: erasing keyslot {keyslot} was interrupted before its area was overwritten; 'keyslot repair' overwrites it"
        ),
        LeftoverReport::Replace { keyslot, staging } => format!(
            "leftover: replacing keyslot {keyslot} was interrupted; its new secret opens keyslot {staging}; 'keyslot repair' finishes it"
        ),
        LeftoverReport::Area { offset, size } => format!(
            "leftover: {size} bytes from byte {offset} on may be key material of an erased keyslot; 'keyslot repair' overwrites them"
        ),
        LeftoverReport::Staging { keyslot, staging } => format!(
            "leftover: replacing keyslot {keyslot} was interrupted; its old secret still opens it, the new one opens keyslot {staging}; 'keyslot repair' erases the new one"
        ),
        LeftoverReport::Twins { keyslot, staging } => format!(
            "leftover: keyslot {staging} holds a copy of the key material of keyslot {keyslot}; 'keyslot repair' removes it"
        ),
    }
}
