//! Definitions of secret objects, one a line: refused without a word of the secret, or usable.
//!
//! A `$` in the text stands for a secret. No file is opened: definitions that name one are left
//! out.

use keyslot::Error;
use keyslot::qemu::Options;
use keyslot::qemu::SecretObjects;
use keyslot::secret::Source;

const SECRET: &str = "QX7ZK9VJW4";

pub fn check(text: &str) {
    if text.contains(SECRET) {
        return;
    }
    let mut objects = SecretObjects::new();
    let mut data_only = true;
    for line in text.lines() {
        let definition = line.replace('$', SECRET);
        let _ = SecretObjects::help(&definition);
        let as_data = given_as_data(line, &definition) || parsed_as_data(&definition);
        data_only &= as_data;
        if !names_a_file(&definition)
            && let Err(error) = objects.add(&definition)
            && as_data
        {
            assert_hides(&error, &definition);
        }
        assert!(!data_only || !format!("{objects:?}").contains(SECRET));
        lookups(&objects, &definition);
    }
}

fn lookups(objects: &SecretObjects, text: &str) {
    for id in [text, "s", "k"] {
        let (bytes, text) = (objects.passphrase(id), objects.passphrase_utf8(id));
        match (bytes, text) {
            (Ok(bytes), Ok(text)) => {
                assert!(bytes == text && std::str::from_utf8(text.as_bytes()).is_ok());
            }
            (Ok(bytes), Err(_)) => assert!(!bytes.is_qemu_compatible()),
            (Err(_), text) => assert!(text.is_err()),
        }
    }
    if let Ok(Source::Object(id)) = Source::parse(text) {
        let found = Source::Object(id.clone()).read(objects, &mut || unreachable!("not a prompt"));
        assert_eq!(found.ok(), objects.passphrase(&id).ok());
    }
    if let Err(error) = Source::parse(text) {
        assert_hides(&error, text);
    }
}

/// Whether the definition could be one of a file, in any of its spellings.
fn names_a_file(definition: &str) -> bool {
    match parsed(definition) {
        Ok(options) => options.last("file").is_some(),
        Err(_) => definition.contains("file") || definition.contains("\\u"),
    }
}

/// Whether a person would say that the secret was given as the value of `data`, and only there:
/// it is then no word of any error, however wrong the rest is. In what cannot be parsed at all,
/// that is anything from `data=` on.
fn given_as_data(line: &str, definition: &str) -> bool {
    let secrets = || line.match_indices('$').map(|(at, _)| &line[..at]);
    if line.starts_with('{') {
        let error = parsed(definition).err();
        return error.is_some_and(|error| error.message().starts_with("Could not parse"));
    }
    let is_key = |before: &str| before.is_empty() || before.ends_with(',');
    let behind = |before: &str| before.starts_with("data=") || before.contains(",data=");
    secrets().all(|before| before.strip_suffix("data=").is_some_and(is_key))
        || parsed(definition).is_err() && secrets().all(behind)
}

/// Whether the library says so itself.
fn parsed_as_data(definition: &str) -> bool {
    parsed(definition).is_ok_and(|options| {
        let holds = |(key, value): &(&str, &str)| key.contains(SECRET) || value.contains(SECRET);
        options.iter().filter(holds).all(|(key, _)| key == "data")
    })
}

fn parsed(definition: &str) -> keyslot::Result<Options> {
    if definition.starts_with('{') {
        Options::parse_json(definition)
    } else {
        Options::parse_keyval(definition, "qom-type")
    }
}

fn assert_hides(error: &Error, definition: &str) {
    let shown = format!("{error} {error:?} {:?}", error.hint());
    assert!(!shown.contains(SECRET), "{definition:?}: {shown}");
}
