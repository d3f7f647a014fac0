//! What `check` prints for a person.

use serde_json::{Value, json};

use super::super::changes::kdf;
use super::super::output;

/// What there is to say of a keyslot.
fn keyslot(slot: &Value, is_opened: bool) -> String {
    let mut text = if let Some(why) = slot["damage"].as_str() {
        format!("inactive, its entry is damaged: {why}; 'keyslot repair' puts it right")
    } else if let Some(why) = slot["unusable"].as_str() {
        format!("cannot be opened: {why}")
    } else if let Some(kdf) = kdf(slot) {
        format!("active, {kdf}")
    } else if slot["blank"] == json!(true) {
        "inactive, blank".to_owned()
    } else {
        "inactive, not blank (random data, or old key material)".to_owned()
    };
    if let Some(priority) = slot["priority"].as_str() {
        text = format!("{text}, priority {priority}");
    }
    if slot["unbound"] == json!(true) {
        text.push_str(", unbound: its key is not the volume key");
    }
    if let (Some(number), Some(kind)) = (slot["token"].get("token"), slot["token"]["type"].as_str())
    {
        // The secret that was tried opens it, too.
        text = if is_opened {
            format!("{text}, token {number} ({kind}) is for it")
        } else {
            format!("{text}, only token {number} ({kind}) opens it")
        };
    }
    text
}

/// The lines for a person. `is_openable` says whether a keyslot holds the volume key.
pub fn text(format: &str, is_openable: bool, document: &Value) -> String {
    let string = |key: &str| document[key].as_str().unwrap_or("unknown");
    let bits = document["key-bits"].as_u64().map(|bits| format!("{bits}-bit key"));
    let list = |key: &str| document[key].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_damaged = document["warning"].is_string()
        || list("keyslots").iter().any(|slot| slot["damage"].is_string());
    let header = if !is_openable {
        format!("{format} header that nothing opens any more")
    } else if is_damaged || !list("weaknesses").is_empty() {
        format!("{format} header")
    } else {
        format!("sound {format} header")
    };
    let mut lines = vec![format!(
        "{}: {header}, {}, {}, {}",
        string("filename"),
        string("cipher"),
        bits.as_deref().unwrap_or("unknown key"),
        string("hash"),
    )];
    for slot in list("keyslots") {
        let is_opened = list("secret-opens").contains(&slot["keyslot"]);
        lines.push(format!("keyslot {}: {}", slot["keyslot"], keyslot(slot, is_opened)));
    }
    lines.extend(document["warning"].as_str().map(|warning| format!("warning: {warning}")));
    for weakness in list("weaknesses") {
        lines.extend(weakness.as_str().map(|weakness| format!("warning: {weakness}")));
    }
    if document["payload-missing"] == json!(true) {
        let text = "note: the file ends before the payload: a header backup or a truncated image";
        lines.push(text.to_owned());
    }
    for left in list("leftovers") {
        let (keyslot, staging) = (&left["keyslot"], &left["staging"]);
        lines.push(match left["kind"].as_str() {
            Some("wipe") => format!(
                "leftover: erasing keyslot {keyslot} was interrupted before its area was overwritten; 'keyslot repair' overwrites it"
            ),
            Some("replace") => format!(
                "leftover: replacing keyslot {keyslot} was interrupted; its new secret opens keyslot {staging}; 'keyslot repair' finishes it"
            ),
            Some("area") => {
                let (offset, size) = (&left["offset"], &left["size"]);
                format!(
                    "leftover: {size} bytes from byte {offset} on may be key material of an erased keyslot; 'keyslot repair' overwrites them"
                )
            }
            Some("staging") => format!(
                "leftover: replacing keyslot {keyslot} was interrupted; its old secret still opens it, the new one opens keyslot {staging}; 'keyslot repair' takes the new one back"
            ),
            _ => format!(
                "leftover: keyslot {staging} holds a copy of the key material of keyslot {keyslot}; 'keyslot repair' removes it"
            ),
        });
    }
    for token in list("stale-tokens") {
        let (number, kind) = (&token["token"], token["type"].as_str().unwrap_or_default());
        lines.push(format!(
            "stale: token {number} ({kind}) is for no keyslot; 'keyslot token remove --token {number}' removes it"
        ));
    }
    let opened: Vec<_> = list("secret-opens").iter().map(ToString::to_string).collect();
    match opened.as_slice() {
        [] => {}
        [keyslot] => lines.push(format!("the secret opens keyslot {keyslot}")),
        keyslots => lines.push(format!("the secret opens keyslots {}", keyslots.join(", "))),
    }
    lines.iter().map(|line| output::foreign(line) + "\n").collect()
}
