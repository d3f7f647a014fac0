//! Options of `amend` in any text, on an image with keyslots free and on one without: refused, or a
//! plan that the header can carry out.
//!
//! A `!` before them forces, a `#` takes the image whose keyslots are all in use.

use std::sync::LazyLock;
use std::time::Duration;

use keyslot::Overrides;
use keyslot::amend::{PlannedChange, Request};
use keyslot::header::Staging;
use keyslot::kdf::Cost;
use keyslot::qemu::Options;
use keyslot::qemu::SecretObjects;
use keyslot::{Image, Limits};

use super::memory::image;

pub fn check(text: &str) {
    static FULL: LazyLock<Image> = LazyLock::new(|| open([0, 1, 0, 1, 2, 2, 2, 2].map(Some)));
    static ROOMY: LazyLock<Image> =
        LazyLock::new(|| open([Some(0), Some(1), None, Some(0), None, None, None, Some(2)]));
    let (force, text) = text.strip_prefix('!').map_or((false, text), |text| (true, text));
    let (image, text) = text.strip_prefix('#').map_or((&ROOMY, text), |text| (&FULL, text));
    let Ok(options) = Options::parse(text) else { return };
    let cost = Cost::Time(Duration::from_millis(10));
    let request = Request::from_options(&options, secrets(), cost.into(), Overrides::all_if(force));
    if !options.keys().any(|key| key.starts_with("keys.")) && !options.is_empty() {
        // A list of one change is that change.
        let mut list = Options::new();
        options.iter().for_each(|(key, value)| list.push(format!("keys.0.{key}"), value));
        let list = Request::from_options(&list, secrets(), cost.into(), Overrides::all_if(force));
        assert_eq!(format!("{list:?}"), format!("{request:?}"));
    }
    let Ok(request) = request else { return };
    assert!(!request.changes.is_empty() && request.overrides == Overrides::all_if(force));
    assert!(request.changes.len() <= options.iter().count());
    let changes = request.changes.len();
    let Ok(plan) = image.plan(request) else { return };

    let active =
        |keyslot: usize| image.header().keyslot(keyslot).expect("one of the image's").active;
    let mut seen = [false; 8];
    let mut left = (0..8).filter(|&keyslot| active(keyslot)).count();
    for change in plan.changes() {
        let keyslot = match *change {
            PlannedChange::Add { keyslot, .. } => {
                assert!(!active(keyslot));
                left += 1;
                keyslot
            }
            PlannedChange::Erase { keyslot } => {
                assert!(active(keyslot) || force);
                left -= usize::from(active(keyslot));
                keyslot
            }
            // Only an active keyslot that is added to: there is no such option as replace.
            PlannedChange::Replace { keyslot, staging, .. } => {
                assert!(active(keyslot) && (staging != Staging::InPlace || force));
                assert!(force || changes > 1);
                keyslot
            }
            _ => unreachable!("no other is planned"),
        };
        assert!(!std::mem::replace(&mut seen[keyslot], true));
    }
    assert!(left > 0 || force, "the last secret goes, and nobody insisted");
    assert_eq!(plan.needs_volume_key(), {
        plan.changes().iter().any(|change| !matches!(change, PlannedChange::Erase { .. }))
    });
}

fn open(secrets: [Option<usize>; 8]) -> Image {
    super::memory::open_on(image(secrets), Limits::NONE).expect("a valid image")
}

fn secrets() -> &'static SecretObjects {
    static SECRETS: LazyLock<SecretObjects> = LazyLock::new(|| {
        let mut secrets = SecretObjects::new();
        for definition in [
            "secret,id=a,data=first",
            "secret,id=b,data=second\n",
            "secret,id=c,data=",
            "secret,id=d,data=/wA=,format=base64",
            "secret,id=e,data=in no keyslot",
        ] {
            secrets.add(definition).expect("a secret");
        }
        secrets
    });
    &SECRETS
}
