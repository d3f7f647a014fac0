//! Tests against the results of qemu-img 10.0.2.

use proptest::prelude::*;

use super::*;

fn pairs(options: &Options) -> Vec<(&str, &str)> {
    options.iter().collect()
}

fn message<T: fmt::Debug>(result: Result<T>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    error.message().to_owned()
}

#[test]
fn option_lists() {
    for (text, expected) in [
        ("state=active,keyslot=1", &[("state", "active"), ("keyslot", "1")][..]),
        ("state", &[("state", "on")]),
        ("nostate", &[("state", "off")]),
        ("no", &[("", "off")]),
        ("no=", &[("no", "")]),
        ("=", &[("", "")]),
        ("=x", &[("", "x")]),
        ("nohelp", &[("help", "off")]),
        ("help=on", &[("help", "on")]),
        ("state=a,,b", &[("state", "a,b")]),
        ("state=a,,", &[("state", "a,")]),
        ("state=x,,,,", &[("state", "x,,")]),
        ("state=x,,,y", &[("state", "x,"), ("y", "on")]),
        ("state=active=b", &[("state", "active=b")]),
        ("state,,=x", &[("state", "on"), ("", "on"), ("", "x")]),
        (" state=active", &[(" state", "active")]),
        ("state=active, keyslot=1", &[("state", "active"), (" keyslot", "1")]),
        ("key,,slot=1", &[("key", "on"), ("", "on"), ("slot", "1")]),
        ("x,,", &[("x", "on"), ("", "on")]),
        ("id=x,state=active", &[("state", "active")]),
        ("id", &[]),
        ("noid", &[]),
        ("state=é,,ü", &[("state", "é,ü")]),
    ] {
        assert_eq!(pairs(&Options::parse(text).unwrap()), expected, "{text:?}");
    }
    for text in ["", ",", ",,", ",state=active", "state=active,", "state=active,,,", "a=,"] {
        assert_eq!(message(Options::parse(text)), format!("Invalid option list: {text}"));
    }
}

#[test]
fn help() {
    for text in ["help", "?", "state=active,help", "foo,help", "help,,", "x,help,,y", "help,foo=1"]
    {
        assert!(Options::parse(text).unwrap().asks_help(), "{text}");
    }
    for text in ["help=1", "?=1", "state=help", "no?", "nohelp"] {
        assert!(!Options::parse(text).unwrap().asks_help(), "{text}");
    }
}

#[test]
fn image_options() {
    for (text, expected) in [
        ("", &[][..]),
        ("a", &[("file", "a")]),
        ("a,,b", &[("file", "a,b")]),
        (",", &[("file", "")]),
        ("help", &[("file", "help")]),
        ("=x", &[("", "x")]),
        ("driver=luks,", &[("driver", "luks")]),
        ("driver=luks,force-share", &[("driver", "luks"), ("force-share", "on")]),
        ("driver=luks,noforce-share", &[("driver", "luks"), ("force-share", "off")]),
        ("driver=luks,,file.filename=a", &[("driver", "luks,file.filename=a")]),
        ("id=x,file.filename=a,,.luks", &[("id", "x"), ("file.filename", "a,.luks")]),
    ] {
        assert_eq!(pairs(&Options::parse_image(text).unwrap()), expected, "{text:?}");
    }
    assert_eq!(message(Options::parse_image("id=1")), "Parameter 'id' expects an identifier");
}

#[test]
fn key_value_lists() {
    for (text, expected) in [
        ("", &[][..]),
        ("secret,", &[("t", "secret")]),
        ("secret,id=s,data=a,,b", &[("t", "secret"), ("id", "s"), ("data", "a,b")]),
        ("id=s,t=x", &[("id", "s"), ("t", "x")]),
        ("a.0=x,__org.foo_bar=y", &[("a.0", "x"), ("__org.foo_bar", "y")]),
    ] {
        assert_eq!(pairs(&Options::parse_keyval(text, "t").unwrap()), expected, "{text:?}");
    }
    let long = "a".repeat(128);
    let (key, below) = (format!("{long}=x"), format!("s,a.{long}=x"));
    let too_long = format!("Parameter '{long}' is too long");
    let fragment_too_long = format!("Parameter fragment '{long}' is too long");
    for (text, expected) in [
        ("foo,bar", "Expected '=' after parameter 'bar'"),
        ("s,a.b", "Expected '=' after parameter 'a.b'"),
        ("s,help.a", "Expected '=' after parameter 'help.a'"),
        (",s", "Invalid parameter ''"),
        ("s,,x", "Invalid parameter ''"),
        ("=x", "Invalid parameter ''"),
        ("s,1=x", "Invalid parameter '1'"),
        ("s,a..b=x", "Invalid parameter 'a..b'"),
        ("s,.a=x", "Invalid parameter '.a'"),
        ("s,a.=x", "Invalid parameter 'a.'"),
        ("s,a.1b=x", "Invalid parameter 'a.1b'"),
        ("s,a b", "Invalid parameter 'a b'"),
        ("s,aé=x", "Invalid parameter 'aé'"),
        ("s,__x_=1", "Invalid parameter '__x_'"),
        ("s,_x=1", "Invalid parameter '_x'"),
        ("s,?=1", "Invalid parameter '?'"),
        ("s,data=x,data.a=x", "Parameters 'data.*' used inconsistently"),
        (&key, &too_long),
        (&below, &fragment_too_long),
    ] {
        assert_eq!(message(Options::parse_keyval(text, "t")), expected, "{text:?}");
    }
}

#[test]
fn json_specifications() {
    let spec = r#" {"driver": "luks", "file": {"driver": "file", "filename": "a.luks"}, 'a': 'x"',
        "on": true, "off": false, "none": null, "n": -1.5e3, "l": [1, {"b": "\ud83d\ude00\n"}],
        "e": {}, "d.e": "\/\\"}"#;
    assert_eq!(
        pairs(&Options::parse_json(spec).unwrap()),
        [
            ("driver", "luks"),
            ("file.driver", "file"),
            ("file.filename", "a.luks"),
            ("a", "x\""),
            ("on", "on"),
            ("off", "off"),
            ("none", ""),
            ("n", "-1.5e3"),
            ("l.0", "1"),
            ("l.1.b", "😀\n"),
            ("e", ""),
            ("d.e", "/\\"),
        ]
    );
    for text in ["[]", "1", "\"a\"", "null", "true"] {
        assert_eq!(message(Options::parse_json(text)), "Invalid JSON object given");
    }
    let deep = "[".repeat(5000);
    let members = r#"{"a":"#.repeat(5000);
    for (text, expected) in [
        ("", "Expecting a JSON value"),
        ("{}x", "Expecting at most one JSON value"),
        ("{} {}", "Expecting at most one JSON value"),
        (&deep, "JSON nesting depth limit exceeded"),
        (&members, "JSON nesting depth limit exceeded"),
    ] {
        let expected = format!("Could not parse the JSON options: {expected}");
        assert_eq!(message(Options::parse_json(text)), expected);
    }
    let long = format!(r#"{{"{}": {{"a": 1}}}}"#, "a".repeat(1022));
    assert!(message(Options::parse_json(&long)).contains("longer than 1023 bytes"));
}

#[test]
fn bad_json() {
    for (text, expected) in [
        ("{bad}", "invalid keyword 'bad'"),
        ("a-b", "invalid keyword 'a'"),
        ("nul", "invalid keyword 'nul'"),
        ("{a1}", "invalid keyword 'a'"),
        ("{a-b}", "stray '-b'"),
        ("{a_b}", "stray '_'"),
        ("{A}", "stray 'A'"),
        ("#", "stray '#'"),
        ("\x0c{}", "stray '\x0c'"),
        (r#"{"a":01}"#, "stray '01'"),
        (r#"{"a":-}"#, "stray '-}'"),
        (r#"{"a":1.}"#, "stray '1.}'"),
        (r#"{"a":1e}"#, "stray '1e}'"),
        (r#"{"a":1.5.5}"#, "stray '.'"),
        (r#"{"a":+1}"#, "stray '+'"),
        (r#"{"a":"x}"#, "stray '\"x}'"),
        ("{\"a\":\"x\n\"}", "stray '\"x\n'"),
        (r#"{"a":"\"#, "stray '\"\\'"),
        ("\"", "stray '\"'"),
        ("}", "expecting value"),
        ("{,}", "expecting value"),
        (r#"{"a":]}"#, "expecting value"),
        (r#"{"a":1,}"#, "expecting value"),
        (r#"{"a":[1,]}"#, "expecting value"),
        (r#"{"a":[}"#, "expecting value"),
        (r#"{"a":1 "b":2}"#, "expected separator in dict"),
        (r#"{"a":1x}"#, "expected separator in dict"),
        (r#"{"a":[1 2]}"#, "expected separator in list"),
        (r#"{"a"}"#, "missing : in object pair"),
        ("{1:2}", "key is not a string in object"),
        (r#"{"a":1,2}"#, "key is not a string in object"),
        (r#"{"a":1,"a":2 bad"#, "duplicate key"),
        (r#"{"a":"#, "premature EOI"),
        ("[1", "premature EOI"),
        (r#"{"a":"\q"}"#, "invalid escape sequence in string"),
        (r#"{"a":"\uxyzw"}"#, "\\uxyzw is not a valid Unicode character"),
        (r#"{"a":"\ud800"}"#, "\\ud800 is not a valid Unicode character"),
        (r#"{"a":"\uD83D\u0041"}"#, "\\uD83D is not a valid Unicode character"),
        (r#"{"a":"\ufffe"}"#, "\\ufffe is not a valid Unicode character"),
        ("{\"a\":\"\u{fdd0}\"}", "invalid UTF-8 sequence in string"),
    ] {
        let expected = format!("Could not parse the JSON options: JSON parse error, {expected}");
        assert_eq!(message(Options::parse_json(text)), expected, "{text:?}");
    }
}

#[test]
fn collects_and_selects() {
    let mut options = Options::parse("encrypt.a=1,b=2").unwrap();
    options.append(Options::parse("encrypt.a=3,help").unwrap());
    options.push("keys.0.state", "active");
    assert!(options.asks_help());
    assert_eq!(options.last("encrypt.a"), Some("3"));
    assert_eq!(options.last("a"), None);
    assert_eq!(pairs(&options.strip_prefix("encrypt.")), [("a", "1"), ("a", "3")]);
    assert_eq!(pairs(&options.strip_prefix("keys.0.")), [("state", "active")]);
    assert_eq!(options.keys().count(), 4);
    assert!(Options::new().is_empty());
    let secret = Options::parse("id=s,data=hunter2,a=b").unwrap();
    assert_eq!(format!("{secret:?}"), r#"{"data": "..", "a": "b"}"#);
}

proptest! {
    #[test]
    fn nothing_panics(text in "[a-c.,=\"'{}\\[\\]:\\\\u0-9x \n\u{e9}-]{0,40}") {
        let _ = Options::parse(&text);
        let _ = Options::parse_image(&text);
        let _ = Options::parse_keyval(&text, "t");
        let _ = Options::parse_json(&text);
        let _ = number("n", &text);
        let _ = size("n", &text);
        let _ = image_size(&text);
    }

    #[test]
    fn commas_survive(value in ".*") {
        let text = format!("a={}", value.replace(',', ",,"));
        let options = Options::parse(&text).unwrap();
        prop_assert_eq!(options.last("a"), Some(value.as_str()));
    }
}
