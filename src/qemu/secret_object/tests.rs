use std::fs;

use super::*;

fn add(definitions: &[&str]) -> Result<SecretObjects> {
    let mut objects = SecretObjects::new();
    for definition in definitions {
        objects.add(definition)?;
    }
    Ok(objects)
}

fn bytes(definitions: &[&str]) -> Vec<u8> {
    add(definitions).unwrap().passphrase("s").unwrap().as_bytes().to_vec()
}

fn error(definitions: &[&str]) -> Error {
    add(definitions).unwrap_err()
}

const IDENTIFIERS: &str =
    "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.";

#[test]
fn takes_what_qemu_takes() {
    for (definition, secret) in [
        ("secret,id=s,data=x", &b"x"[..]),
        ("secret,id=s,data=", b""),
        ("secret,id=s,data=x,", b"x"),
        ("secret,id=s,data=x,,", b"x,"),
        ("secret,id=s,data=a,,b", b"a,b"),
        ("secret,id=s,data=a=b", b"a=b"),
        ("secret,id=s,data=help", b"help"),
        ("secret,id=s,data=x,data=y", b"y"),
        ("secret,id=t,id=s,data=x", b"x"),
        ("id=s,qom-type=secret,data=x", b"x"),
        ("secret,id=s,data=x,qom-type=secret", b"x"),
        ("secret,id=s,data=x,format=raw", b"x"),
        ("secret,id=s,data=YQ==,iv=AAAA,format=base64", b"a"),
        ("secret,id=s,data=YQ==\n,format=base64", b"a"),
        ("secret,id=s,data=YQ==YQ==,format=base64", b"aa"),
        (r#"{"qom-type":"secret","id":"s","data":"x"}"#, b"x"),
        (r#"{"qom-type":"secret","id":"s","data":"x"} "#, b"x"),
        (r"{'qom-type':'secret','id':'s','data':'x'}", b"x"),
        (r#"{"qom-type":"secret","id":"s","data":"x\u0041"}"#, b"xA"),
        (r#"{"qom-type":"secret","id":"s","data":"a","iv":"b"}"#, b"a"),
    ] {
        assert_eq!(bytes(&[definition]), secret, "{definition}");
    }
}

#[test]
fn refuses_what_qemu_refuses() {
    for (definition, message) in [
        ("", "Parameter 'qom-type' is missing"),
        ("data=x", "Parameter 'qom-type' is missing"),
        ("secret", "Parameter 'id' is missing"),
        ("secret,data=x", "Parameter 'id' is missing"),
        ("secret,format=hex,foo=1", "Parameter 'id' is missing"),
        ("secret,id=s", "Either 'file' or 'data' must be provided"),
        ("secret,id=s,data=x,file=nosuch", "'file' and 'data' are mutually exclusive"),
        ("secret,id=s,data=x,keyid=k,file=x", "'file' and 'data' are mutually exclusive"),
        ("foo,id=s", "Parameter 'qom-type' does not accept value 'foo'"),
        ("foo,bar", "Expected '=' after parameter 'bar'"),
        ("secret,id=1,foo=1", "Parameter 'foo' is unexpected"),
        ("secret,id=s,loaded=on,data=x", "Parameter 'loaded' is unexpected"),
        ("secret,id=s,format=hex,foo=1", "Parameter 'format' does not accept value 'hex'"),
        ("secret,id=s,data=x,format=", "Parameter 'format' does not accept value ''"),
        ("secret,id=s,data=!!!,format=base64", "Base64 data contains invalid characters"),
        ("secret,id=s,data", "Expected '=' after parameter 'data'"),
        ("secret,=x,id=s", "Invalid parameter ''"),
        ("secret,id=s,data.a=x", "Parameters 'data.*' are unexpected"),
        ("secret,id=s,a.0=x,data=x", "Parameter 'a' is unexpected"),
        ("secret,id=s,__org.foo_bar=x", "Parameter '__org.foo_bar' is unexpected"),
        ("secret,id=s,data=x,keyid=k", "No secret with id 'k'"),
        ("secret,id=s,data=x,keyid=s", "Secret with id 's' has no data"),
        ("{}", "Parameter 'qom-type' is missing"),
        (r#"{"qom-type":"secret"}"#, "Parameter 'id' is missing"),
        (r#"{"qom-type":1,"id":"s"}"#, "Invalid parameter type for 'qom-type', expected: string"),
        (
            r#"{"qom-type":"secret","id":"s","data":null}"#,
            "Invalid parameter type for 'data', expected: string",
        ),
        (
            r#"{"qom-type":"secret","id":"s","props":{"data":"x"}}"#,
            "Parameter 'props' is unexpected",
        ),
        (r#"{"qom-type":"secret","id":"s","data.a":"x"}"#, "Parameter 'data.a' is unexpected"),
        (r#"{"id":"s","id":"t"}"#, "JSON parse error, duplicate key"),
        ("{} {}", "Expecting at most one JSON value"),
        ("[1]", "Parameter 'qom-type' does not accept value '[1]'"),
    ] {
        let error = error(&[definition]);
        assert_eq!(error.message(), message, "{definition}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.hint(), None);
    }
    // The rest may be the other half of a secret with a comma in it.
    let hidden = error(&["secret,id=s,data=hun,ter2=x"]);
    assert_eq!(hidden.message(), "Invalid parameter after 'data'");
    assert!(!format!("{hidden:?}").contains("ter2"));
    for definition in ["secret,id=", "secret,id=1a", "secret,id=a b,data=x", "secret,id=s,,data=a"]
    {
        let error = error(&[definition]);
        assert_eq!(error.message(), "Parameter 'id' expects an identifier", "{definition}");
        assert_eq!(error.hint(), Some(IDENTIFIERS));
    }
    let duplicate = error(&["secret,id=s,data=x", "secret,id=s"]);
    assert_eq!(
        duplicate.message(),
        "attempt to add duplicate property 's' to object (type 'container')"
    );
    assert_eq!(error(&["secret_keyring,id=s,serial=1"]).kind(), ErrorKind::Unsupported);
}

#[test]
fn never_repeats_the_secret() {
    for definition in [
        "secret,id=s,data=hunter,hunter2",
        "secret,id=s,data=hunter,hunter2 x=1",
        "secret,data=hunter,=hunter2",
        "data=hunter,hunter2",
        "qom-type=secret,,data=hunter2",
        "secret,id=s,format=raw,,data=hunter2",
        "secret,id=s,file=nosuch,,data=hunter2",
        "secret,id=s,keyid=k,,data=hunter2,data=x",
        r#"{"qom-type":"secret","id":"s","data":"hunter2}"#,
        r#"{"qom-type":"secret","id":"s","data":hunter}"#,
        r#"{"qom-type":"secret","id":"s","data":"\uhunter"}"#,
        r#"{"qom-type":"secret","id":"s","data":hunter"#,
    ] {
        let error = error(&[definition]);
        assert!(!format!("{error:?}").contains("hunt"), "{error:?}");
    }
    let error = error(&["secret,id=s,a b,data=x"]);
    assert_eq!(error.message(), "Invalid parameter 'a b'");
}

#[test]
fn files_are_read_verbatim_and_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let file = path.display();
    fs::write(&path, b"aHVudGVyMg==\n").unwrap();
    let raw = add(&[&format!("secret,id=s,file={file}")]).unwrap();
    assert_eq!(bytes(&[&format!("secret,id=s,format=base64,file={file}")]), b"hunter2");
    fs::write(&path, vec![0; LARGEST_SECRET + 1]).unwrap();
    assert_eq!(raw.passphrase_utf8("s").unwrap().as_bytes(), b"aHVudGVyMg==\n");
    assert_eq!(
        error(&[&format!("secret,id=s,file={file}")]).message(),
        format!("Unable to read {file}: The file is larger than 8 MiB")
    );
}

#[test]
fn unreadable_files() {
    for (definition, kind, message) in [
        (
            "secret,id=s,file=",
            ErrorKind::NotFound,
            "Unable to read : Failed to open file “”: No such file or directory",
        ),
        (
            "secret,id=s,file=nosuch",
            ErrorKind::NotFound,
            "Unable to read nosuch: Failed to open file “nosuch”: No such file or directory",
        ),
        (
            "secret,id=s,file=/etc",
            ErrorKind::Io,
            "Unable to read /etc: Error reading file “/etc”: Is a directory",
        ),
    ] {
        let error = error(&[definition]);
        assert_eq!(error.message(), message);
        assert_eq!(error.kind(), kind);
    }
}

#[test]
fn only_utf8_is_a_passphrase_of_qemu() {
    let objects =
        add(&["secret,id=sec0,data=/w==,format=base64", "secret,id=nul,data=YQA=,format=base64"]);
    let objects = objects.unwrap();
    assert_eq!(objects.passphrase("sec0").unwrap().as_bytes(), b"\xff");
    for id in ["sec0", "nul"] {
        let error = objects.passphrase_utf8(id).unwrap_err();
        assert_eq!(error.message(), format!("Data from secret {id} is not valid UTF-8"));
    }
    assert_eq!(objects.passphrase_utf8("x").unwrap_err().message(), "No secret with id 'x'");
}

/// The bytes 0 to 31, and the iv the bytes 16 to 31.
const KEY: &str = "secret,id=k,format=base64,data=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const IV: &str = "iv=EBESExQVFhcYGRobHB0eHw==";

/// Made with `openssl enc -aes-256-cbc -K .. -iv .. [-nopad]`; qemu-img opens an image of
/// passphrase `hunter2` with the first two, and words the errors of the last two.
#[test]
fn decrypts_under_another_secret() {
    for (data, secret) in [
        ("whF1OoriMb97/+dxNMQjSg==", &b"hunter2"[..]),
        ("BQQgKGW5mkUtTh6qlxYqFA==", b"hunter2"),
        ("g6zmoDC5lJQDhKU9ewitwA==", b"xxxxxxxxxxxxxxx\0"),
        ("CsSJXg+mcr/WhX2GMEpAFw==", b""),
        ("odI6O+phRO3Iv2uPXwZPSE3VP9tfl/WbvbsMR21N3fJox/w7TlPCnF0EbklOkiie", &[b'x'; 32]),
        ("Wm4EVwj7cZbwLlU9AsOmkg==", b""),
    ] {
        let object = format!("secret,id=s,keyid=k,{IV},format=base64,data={data}");
        assert_eq!(bytes(&[KEY, &object]), secret, "{data}");
    }
    for (data, padding) in [
        ("oFhMKC+A2PO9Ae4I6ANUaw==", 17),
        ("/Rirl2ZhSX7cDZCIxIGiHsQtXWRrfo5wVWsw6bWnzW4=", 25),
        ("", 0),
    ] {
        let object = format!("secret,id=s,keyid=k,{IV},format=base64,data={data}");
        assert_eq!(
            error(&[KEY, &object]).message(),
            format!("Incorrect number of padding bytes ({padding}) found on decrypted data")
        );
    }
}

#[test]
fn decryption_refused() {
    let iv = format!("{IV},data=x");
    let base64 = format!("{IV},data=!,format=base64");
    for (parameters, message) in [
        ("data=x", "IV is required to decrypt secret"),
        ("iv=AAAA,data=x", "IV should be 16 bytes in length not 3"),
        ("iv=,data=x", "IV should be 16 bytes in length not 0"),
        ("iv=!,data=x", "Base64 data contains invalid characters"),
        (&iv, "Length 1 must be a multiple of block size 16"),
        (&base64, "Base64 data contains invalid characters"),
    ] {
        let object = format!("secret,id=s,keyid=k,{parameters}");
        assert_eq!(error(&[KEY, &object]).message(), message, "{parameters}");
    }
    let short = error(&["secret,id=k,data=short", "secret,id=s,keyid=k,data=x"]);
    assert_eq!(short.message(), "Key should be 32 bytes in length");
}

#[test]
fn help_is_asked_for() {
    assert!(SecretObjects::help("secret,help").unwrap().starts_with("secret options:\n  data="));
    assert!(SecretObjects::help("secret,id=s,?").unwrap().ends_with("  keyid=<string>\n"));
    assert!(SecretObjects::help("help").unwrap().ends_with("\n  secret\n"));
    assert_eq!(SecretObjects::help("secret,id=s,data=help"), None);
    assert!(SecretObjects::new().add("secret,id=s,data=x,help").is_err());
}
