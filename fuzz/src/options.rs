//! Option strings of any text: refused, or a list no larger than the text can make it.

use keyslot::qemu::{Options, image_size, number, size};

pub fn check(text: &str) {
    for options in [Options::parse(text), Options::parse_image(text)].into_iter().flatten() {
        is_bounded(&options, text);
        if !options.is_empty() {
            assert_eq!(
                pairs(&Options::parse_image(&print(&options)).expect("as printed")),
                pairs(&options)
            );
        }
    }
    if let Ok(options) = Options::parse(text)
        && !options.is_empty()
    {
        assert_eq!(pairs(&Options::parse(&print(&options)).expect("as printed")), pairs(&options));
    }
    if let Ok(options) = Options::parse_keyval(text, "qom-type") {
        is_bounded(&options, text);
        let again = Options::parse_keyval(&print(&options), "").expect("as printed");
        assert_eq!(pairs(&again), pairs(&options));
    }
    if let Ok(options) = Options::parse_json(text) {
        assert!(options.iter().count() <= text.len());
        assert!(options.iter().all(|(key, value)| key.len() < 1200 && value.len() <= text.len()));
        let again = Options::parse_json(&print_json(&options)).expect("as printed");
        assert_eq!(pairs(&again), pairs(&options));
    }
    numbers(text);
    prints(text);
}

/// Each line with a `=` as an option: printed and parsed it is the same.
fn prints(text: &str) {
    let given: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).collect();
    if !given.is_empty() && given.iter().all(|(key, _)| !key.contains(',') && *key != "id") {
        let mut options = Options::new();
        for &(key, value) in &given {
            options.push(key, value);
        }
        let again = Options::parse(&print(&options)).expect("as printed");
        assert_eq!(pairs(&again), given);
    }
}

fn numbers(text: &str) {
    if let Ok(value) = number("key", text) {
        assert_eq!(number("key", &value.to_string()).expect("decimal"), value);
        assert_eq!(number("key", &format!(" +{:#x}", value.max(0))).expect("hex"), value.max(0));
    }
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        if let Ok(value) = number("key", text) {
            assert_eq!(number("key", &format!("-{text}")).expect("a sign"), -value);
        }
        assert!(size("key", &format!("-{text}")).is_err());
    }
    let bytes = size("key", text);
    if let Ok(bytes) = bytes {
        assert_eq!(size("key", &bytes.to_string()).expect("decimal"), bytes);
        assert_eq!(size("key", &format!("{bytes:#x}")).expect("hex"), bytes);
    }
    let bytes = bytes.ok().filter(|&bytes| i64::try_from(bytes).is_ok());
    assert_eq!(image_size(text).ok(), bytes);
}

/// Every option but those implied took at least its key and a separator of the text.
fn is_bounded(options: &Options, text: &str) {
    let made: usize = options.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert!(options.iter().count() <= text.len() + 1);
    assert!(made <= 4 * text.len() + 16);
    let shown = format!("{options:?}");
    assert!(shown.len() <= 16 * text.len() + 64);
}

fn pairs(options: &Options) -> Vec<(&str, &str)> {
    options.iter().collect()
}

fn print(options: &Options) -> String {
    let option = |(key, value): (&str, &str)| format!("{key}={}", value.replace(',', ",,"));
    options.iter().map(option).collect::<Vec<_>>().join(",")
}

/// One flat object, every character of it escaped.
fn print_json(options: &Options) -> String {
    let string = |text: &str| {
        let units: Vec<_> = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        units.concat()
    };
    let member = |(key, value)| format!("\"{}\":\"{}\"", string(key), string(value));
    format!("{{{}}}", options.iter().map(member).collect::<Vec<_>>().join(","))
}
