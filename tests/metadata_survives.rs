//! Promise: what is not understood in LUKS2 metadata survives a change, byte for byte.

mod support;

use std::sync::Arc;

use keyslot::header::{Edit, Header, Priority};
use keyslot::json::Value;
use keyslot::storage::ReadOnlyBytes;
use keyslot::{ErrorKind, Limits};
use support::luks2::roomy;
use support::memory::Memory;
use support::opener::{replace, secret};

/// Numbers of any length and spelling, members in no order, and every escape that is needed.
const ODD: &str = concat!(
    r#"{"z":123456789012345678901234567890,"a":[1.10,-0,1E+400,0.0e-7,null,true,{}],"#,
    r#""m":{"b":-18446744073709551616,"a":"\u0000\u001f\b\f\n\r\t\"\\/"#,
    "\u{7f}\u{fffe}\u{1f600}",
    r#""},"":[[],{"":false}]}"#
);

#[test]
fn a_change_keeps_unknown_members_byte_for_byte() {
    let image = roomy(1).with_member("unknown", ODD);
    let memory = Memory::new(image.bytes, None);
    let mut image = support::open_on(Arc::clone(&memory), Limits::NONE).unwrap();
    let token: Value = format!(r#"{{"type":"odd","keyslots":[],"odd":{ODD}}}"#).parse().unwrap();
    let token = token.as_object().unwrap().clone();
    let edits = [
        Edit::PutToken { number: Some(9), token, replace: false },
        Edit::SetPriority { keyslot: 5, priority: Priority::Prefer },
    ];
    image.edit(&edits).unwrap();
    let unlocked = image.unlock(&secret("hunter0")).unwrap();
    let request = keyslot::amend::Request::one(replace(0, &secret("new")));
    let plan = image.plan(request).unwrap();
    image.amend(&plan, Some(&unlocked)).unwrap();

    let header = Header::read(&ReadOnlyBytes(memory.bytes())).unwrap();
    let text = header.luks2().unwrap().metadata().text();
    assert!(text.contains(&format!(r#","unknown":{ODD}"#)), "{text}");
    assert!(text.contains(&format!(r#""9":{{"type":"odd","keyslots":[],"odd":{ODD}}}"#)), "{text}");
}

#[test]
fn values_that_are_equal() {
    let value = |text: &str| text.parse::<Value>().unwrap();
    assert!(value(r#"{"a":1,"b":[2,3]}"#) == value(r#" { "b" : [2,3], "a" : 1 } "#));
    assert!(value("[2,3]") != value("[3,2]"));
    assert!(value(r#"{"a":1}"#) != value(r#"{"a":1,"b":1}"#));
    assert!(value(r#""\u0061\/""#) == value(r#""a/""#));
    // The last one counts, where the first stood.
    assert_eq!(value(r#"{"a":1,"b":2,"a":3}"#).to_string(), r#"{"a":3,"b":2}"#);
}

#[test]
fn faults_name_their_place() {
    for (text, expected) in [
        ("", "no value at byte 0"),
        ("  ", "no value at byte 2"),
        ("[1,]", "a value is missing at byte 3"),
        ("[1", "the text ends early at byte 2"),
        ("[1 2]", "',' or ']' is missing at byte 3"),
        (r#"{"a" 1}"#, "':' is missing at byte 5"),
        ("{1:2}", "a key that is not a string at byte 1"),
        ("['a']", "an unexpected character at byte 1"),
        ("01", "an unexpected character at byte 1"),
        ("nul", "an unknown word at byte 0"),
        ("1 2", "text after the value at byte 2"),
        (r#"["a\'b"]"#, "an invalid escape sequence at byte 3"),
        (r#"["\ud800"]"#, "an invalid \\u escape at byte 2"),
        ("\"a\nb\"", "an unexpected character at byte 2"),
        ("\"ab", "an unexpected character at byte 3"),
    ] {
        let error = text.parse::<Value>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.message(), format!("the JSON text is malformed: {expected}"), "{text}");
    }
    let deep = "[".repeat(33);
    assert!(deep.parse::<Value>().unwrap_err().message().ends_with("nested too deep at byte 32"));
    let many = format!("[{}1]", "1,".repeat(1 << 16));
    assert!(many.parse::<Value>().unwrap_err().message().contains("too many values"));
}
