//! Changes of keyslots as text and JSON: planned, done, and interrupted.

use keyslot::Done;
use keyslot::amend::{Plan, PlannedChange};
use keyslot::crypto::{KdfAlg, KdfKind};
use keyslot::header::{Leftover, Staging};
use keyslot::kdf::{Cost, Pbkdf};
use serde_json::{Value, json};

/// One line for each change.
pub fn describe(plan: &Plan, changes: &[Value], dry_run: bool) -> String {
    let mut lines = String::new();
    for (change, planned) in changes.iter().zip(plan.changes()) {
        let keyslot = &change["keyslot"];
        let would = if dry_run { "would be " } else { "" };
        let action = match planned {
            PlannedChange::Add { .. } => "added",
            PlannedChange::Erase { .. } => "erased",
            PlannedChange::Replace { .. } => "replaced",
            _ => "changed",
        };
        let mut detail = kdf(change);
        if let (Some(text), Some(staging)) = (&mut detail, change.get("staging")) {
            *text = format!("{text}, by way of keyslot {staging}");
        }
        let detail = detail.map_or(String::new(), |text| format!(" ({text})"));
        lines.extend([format!("keyslot {keyslot} {would}{action}{detail}\n")]);
    }
    lines
}

/// How hard it is to open, if there is anything to say of that.
pub fn kdf(keyslot: &Value) -> Option<String> {
    let alg = keyslot["kdf"].as_str().filter(|&alg| alg != KdfKind::Pbkdf2.name());
    if let (Some(alg), Some(time)) = (alg, keyslot.get("time")) {
        if keyslot.get("memory-kib").is_none() {
            return Some(format!("{alg}: {time} passes"));
        }
        let (memory, cpus) = (&keyslot["memory-kib"], &keyslot["cpus"]);
        return Some(format!("{alg}: {time} passes over {memory} KiB, parallelism {cpus}"));
    }
    if let Some(iterations) = keyslot.get("iterations") {
        return Some(format!("{iterations} iterations"));
    }
    let ms = keyslot.get("iter-time-ms")?;
    Some(match alg {
        Some(alg) => format!("{alg} for {ms} ms"),
        None => format!("iteration count for {ms} ms"),
    })
}

/// Puts a KDF and its cost among the members of `keyslot`.
pub fn set_kdf(keyslot: &mut Value, kdf: KdfAlg) {
    keyslot["kdf"] = json!(kdf.kind().name());
    match kdf {
        KdfAlg::Pbkdf2 { iterations, .. } => keyslot["iterations"] = json!(iterations),
        KdfAlg::Argon2 { time, memory, parallelism, .. } => {
            keyslot["time"] = json!(time);
            keyslot["memory-kib"] = json!(memory);
            keyslot["cpus"] = json!(parallelism);
        }
        _ => {}
    }
}

/// A change that would be made, for JSON.
pub fn planned(change: &PlannedChange) -> Value {
    match change {
        PlannedChange::Add { keyslot, pbkdf, .. } => with_cost("add", *keyslot, pbkdf),
        PlannedChange::Replace { keyslot, pbkdf, staging, .. } => {
            let mut value = with_cost("replace", *keyslot, pbkdf);
            if let Staging::Keyslot(staging) = staging {
                value["staging"] = json!(staging);
            }
            value
        }
        PlannedChange::Erase { keyslot } => json!({ "action": "erase", "keyslot": keyslot }),
        _ => Value::Null,
    }
}

fn with_cost(action: &str, keyslot: usize, pbkdf: &Pbkdf) -> Value {
    let kind = pbkdf.kind.unwrap_or(KdfKind::Pbkdf2);
    let mut value = json!({ "action": action, "keyslot": keyslot, "kdf": kind.name() });
    match pbkdf.cost {
        Cost::Iterations(n) if kind == KdfKind::Pbkdf2 => value["iterations"] = json!(n),
        Cost::Iterations(n) => value["time"] = json!(n),
        Cost::Time(time) => {
            value["iter-time-ms"] = json!(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        }
        _ => {}
    }
    value
}

/// A change that was made, for JSON.
pub fn done(change: &Done) -> Value {
    let with_kdf = |action: &str, keyslot: usize, kdf: KdfAlg| {
        let mut value = json!({ "action": action, "keyslot": keyslot });
        set_kdf(&mut value, kdf);
        value
    };
    match *change {
        Done::Added { keyslot, kdf } => with_kdf("add", keyslot, kdf),
        Done::Erased { keyslot } => json!({ "action": "erase", "keyslot": keyslot }),
        Done::Replaced { keyslot, kdf } => with_kdf("replace", keyslot, kdf),
        _ => Value::Null,
    }
}

/// A leftover of an interrupted change, for JSON.
pub fn leftover(leftover: Leftover) -> Value {
    match leftover {
        Leftover::Wipe { keyslot } => json!({ "kind": "wipe", "keyslot": keyslot }),
        Leftover::Replace { keyslot, staging } => {
            json!({ "kind": "replace", "keyslot": keyslot, "staging": staging })
        }
        Leftover::Twins { keyslot, staging } => {
            json!({ "kind": "twins", "keyslot": keyslot, "staging": staging })
        }
        Leftover::Staging { keyslot, staging } => {
            json!({ "kind": "staging", "keyslot": keyslot, "staging": staging })
        }
        Leftover::Area(area) => {
            json!({ "kind": "area", "offset": area.offset, "size": area.len })
        }
        _ => Value::Null,
    }
}
