//! How an image is named (`--image-opts`, `json:`, a file): refused in a way that a caller can
//! decide on, or named by a path that is in the text; said again in the other form it is the same.

use std::path::Path;

use keyslot::ErrorKind;
use keyslot::qemu::ImageSpec;

pub fn check(text: &str) {
    let formats = [None, Some("luks"), Some("luks2"), Some("raw"), Some("qcow2"), Some("other")];
    for (image_opts, format) in [true, false].into_iter().flat_map(|it| formats.map(|f| (it, f))) {
        let spec = match ImageSpec::parse(text.as_ref(), image_opts, format) {
            Ok(spec) => spec,
            Err(error) => {
                let kinds = [ErrorKind::InvalidInput, ErrorKind::Unsupported];
                assert!(kinds.contains(&error.kind()), "{error:?}");
                assert!(error.message().len() <= 16 * text.len() + 256);
                continue;
            }
        };
        assert_eq!(spec.shown, text);
        assert!(!spec.file.path.as_os_str().is_empty());
        let driver = spec.driver.as_deref();
        let drivers = [None, Some("luks"), Some("luks2"), Some("qcow2"), Some("raw")];
        assert!(drivers.contains(&driver));
        let is_file = !image_opts && !text.starts_with("json:");
        if is_file {
            assert_eq!((spec.file.path.as_path(), driver), (Path::new(text), format));
            assert!(spec.key_secret.is_none());
            assert!(!spec.read_only && !spec.force_share && !spec.file.unlocked);
        }
        assert!(driver != Some("raw") || spec.key_secret.is_none());
        said_again_it_is_the_same(&spec);
    }
}

fn said_again_it_is_the_same(spec: &ImageSpec) {
    let mut options = vec![("file.filename", spec.file.path.to_str().expect("it was a text"))];
    options.extend(spec.driver.as_deref().map(|driver| ("driver", driver)));
    options.extend(spec.key_secret.as_deref().map(|id| ("key-secret", id)));
    options.extend(spec.read_only.then_some(("read-only", "on")));
    options.extend(spec.force_share.then_some(("force-share", "on")));
    options.extend(spec.file.unlocked.then_some(("file.locking", "off")));
    if spec.driver.is_none() {
        // Without a driver QEMU looks for one, and that is what a text with nothing else is.
        options.push(("node-name", "node"));
    }

    let pair = |(key, value): &(&str, &str)| format!("{key}={}", value.replace(',', ",,"));
    let text = options.iter().map(pair).collect::<Vec<_>>().join(",");
    is_same(&ImageSpec::parse(text.as_ref(), true, None).expect("the same again"), spec);

    let string = |text: &str| serde_json::Value::from(text).to_string();
    let member = |(key, value): &(&str, &str)| format!("{}:{}", string(key), string(value));
    let members = options.iter().map(member).collect::<Vec<_>>().join(",");
    let json = format!("json:{{{members}}}");
    is_same(&ImageSpec::parse(json.as_ref(), false, None).expect("the same in JSON"), spec);
}

fn is_same(one: &ImageSpec, other: &ImageSpec) {
    assert_eq!(one.file.path, other.file.path);
    let rest = |it: &ImageSpec| {
        let ImageSpec { driver, key_secret, read_only, force_share, file, .. } = it.clone();
        (driver, key_secret, read_only, force_share, file.unlocked)
    };
    assert_eq!(rest(one), rest(other));
}
