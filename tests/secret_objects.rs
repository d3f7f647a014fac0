//! Secret objects are taken and refused as qemu-img does it, in the same words.

use std::env;
use std::process::Command;

use keyslot::qemu::SecretObjects;

/// AES-256-CBC under the bytes 0 to 31.
const KEY: &str = "secret,id=k,format=base64,data=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

const DEFINITIONS: [&str; 53] = [
    "secret,id=s,data=x",
    "secret,id=s,data=",
    "secret,id=s,data=x,",
    "secret,id=s,data=a,,b",
    "secret,id=s,data=x,data=y",
    "secret,id=s,data=YQ,format=base64",
    "secret,id=s,data=YQ==\n,format=base64",
    "secret,id=s,data=Y Q==,format=base64",
    "secret,id=s,data=!,format=base64",
    "secret,id=s,data=x,format=hex",
    "secret,id=s,file=nosuch",
    "secret,id=s,file=/",
    "secret,id=s,data=x,file=nosuch",
    "secret,id=s",
    "secret,id=s,data",
    "secret,id=s,foo=1",
    "secret,id=s,foo",
    "secret,id=1,foo=1",
    "secret,id=1",
    "secret,id=k,data=x",
    "secret,data=x",
    "secret",
    "",
    ",secret",
    "sekret,id=s",
    "id=s,qom-type=secret,data=x",
    "secret,id=s,data.a=x",
    "secret,id=s,a.0=x",
    "secret,id=s,a b=x",
    "secret,id=s,data=x,keyid=nosuch",
    "secret,id=s,data=x,keyid=s",
    "secret,id=s,data=x,keyid=k",
    "secret,id=s,data=x,keyid=k,iv=AAAA",
    "secret,id=s,data=x,keyid=k,iv=!",
    "secret,id=s,data=x,keyid=k,iv=EBESExQVFhcYGRobHB0eHw==",
    "secret,id=s,data=whF1OoriMb97/+dxNMQjSg==,format=base64,keyid=k,iv=EBESExQVFhcYGRobHB0eHw==",
    "secret,id=s,data=oFhMKC+A2PO9Ae4I6ANUaw==,format=base64,keyid=k,iv=EBESExQVFhcYGRobHB0eHw==",
    "{}",
    "{} {}",
    r#"{"qom-type":"secret"}"#,
    r#"{"qom-type":"secret","id":"s"}"#,
    r#"{"qom-type":"secret","id":"s","data":"x"}"#,
    r"{'qom-type':'secret','id':'s','data':'x'}",
    r#"{"qom-type":"secret","id":"s","data":1}"#,
    r#"{"qom-type":"secret","id":"s","data":{}}"#,
    r#"{"qom-type":"secret","id":"s","props":{"data":"x"}}"#,
    r#"{"qom-type":"secret","id":"s","data":"x","id":"t"}"#,
    r#"{"qom-type":"secret","id":"s","data":"x""#,
    r#"{"id""s"}"#,
    r#"{"id":"s" "data":"x"}"#,
    r#"{"id":"\q"}"#,
    r#"{"id":}"#,
    "[1]",
];

#[test]
fn qemu_img_words_it_the_same() {
    if Command::new("qemu-img").arg("--version").output().is_err() {
        let required = env::var("KEYSLOT_REQUIRE_PEERS").is_ok_and(|value| value == "1");
        assert!(!required, "qemu-img not found");
        eprintln!("SKIPPED: qemu-img not found");
        return;
    }
    for definition in DEFINITIONS {
        let mut objects = SecretObjects::new();
        objects.add(KEY).unwrap();
        let ours = objects.add(definition).err().map(|error| match error.hint() {
            Some(hint) => format!("{}\n{hint}", error.message()),
            None => error.message().to_owned(),
        });
        assert_eq!(ours, qemu_error(definition), "{definition:?}");
    }
}

/// What qemu-img has to say about the object, if anything.
fn qemu_error(definition: &str) -> Option<String> {
    let output = Command::new("qemu-img")
        .args(["info", "--object", KEY, "--object", definition, "/nonexistent/image"])
        .env("LC_ALL", "C.UTF-8")
        .output()
        .expect("qemu-img runs");
    let error = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    let error = error.strip_prefix("qemu-img: ").expect("an error").to_owned();
    (!error.contains("/nonexistent/image")).then_some(error)
}
