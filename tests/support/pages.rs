//! The man pages that the command writes, and what they say of its JSON.
#![allow(dead_code, reason = "no test uses all of it")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::run_ok;

/// The pages by name (`keyslot-add`), as roff.
pub fn pages() -> BTreeMap<String, String> {
    let directory = tempfile::tempdir().unwrap();
    run_ok(Command::new(env!("CARGO_BIN_EXE_keyslot")).arg("man").arg(directory.path()));
    let files = fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().path());
    files
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

/// The lines of a section, without what roff has of its own.
pub fn section(page: &str, name: &str) -> Vec<String> {
    let starts = [format!(".SH {name}"), format!(".SH \"{name}\"")];
    let lines = page.lines().skip_while(|line| !starts.iter().any(|it| it == line)).skip(1);
    let lines = lines.take_while(|line| !line.starts_with(".SH "));
    lines.filter(|line| !line.starts_with('.')).map(plain).collect()
}

fn plain(line: &str) -> String {
    let mut text = line.to_owned();
    for (roff, plain) in [
        ("\\fB", ""),
        ("\\fI", ""),
        ("\\fR", ""),
        ("\\-", "-"),
        ("\\*(Aq", "'"),
        ("\\(aq", "'"),
        ("\\&", ""),
        ("\\\\", "\\"),
    ] {
        text = text.replace(roff, plain);
    }
    text
}

/// Members of a command's JSON: paths, types, and whether they may be missing.
pub struct Schema(BTreeMap<String, (String, bool)>);

impl Schema {
    /// What a page has under JSON; none if it has no such section.
    pub fn of(page: &str) -> Option<Self> {
        let lines = section(page, "JSON");
        let member = |line: &String| {
            let (path, kind) = line.strip_suffix(')')?.split_once(" (")?;
            let is_path = !path.contains(' ') && !kind.contains('(');
            let (kind, optional) = match kind.strip_suffix(", optional") {
                Some(kind) => (kind, true),
                None => (kind, false),
            };
            is_path.then(|| (path.to_owned(), (kind.to_owned(), optional)))
        };
        let members: BTreeMap<_, _> = lines.iter().filter_map(member).collect();
        (!members.is_empty()).then_some(Self(members))
    }

    /// Panics if the document has a member that is not documented, or of another type, or lacks one
    /// that is not optional. An error takes the place of everything else.
    #[track_caller]
    pub fn check(&self, document: &Value, what: &str) {
        self.walk("", document, what);
        if document.get("error").is_none() {
            self.require("", document, what);
        }
    }

    #[track_caller]
    fn walk(&self, path: &str, value: &Value, what: &str) {
        // The items of a list are objects, unless they are documented as something else.
        let is_item = path.ends_with("[]") && value.is_object() && !self.0.contains_key(path);
        if !path.is_empty() && !is_item {
            let Some((kind, _)) = self.0.get(path) else {
                panic!("{what}: {path} is not in the man page: {value}");
            };
            if kind == "any" {
                return;
            }
            let is = kind.split(" or ").any(|kind| match kind {
                "string" => value.is_string(),
                "integer" => value.is_u64(),
                "number" => value.is_number(),
                "boolean" => value.is_boolean(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                "null" => value.is_null(),
                _ => panic!("{what}: {path} has the type {kind}"),
            });
            assert!(is, "{what}: {path} is no {kind}: {value}");
        }
        for (name, below) in value.as_object().into_iter().flatten() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            self.walk(&path, below, what);
        }
        let items = value.as_array().into_iter().flatten();
        items.for_each(|item| self.walk(&format!("{path}[]"), item, what));
    }

    #[track_caller]
    fn require(&self, path: &str, value: &Value, what: &str) {
        if let Some(members) = value.as_object() {
            let prefix = if path.is_empty() { String::new() } else { format!("{path}.") };
            for (name, (_, optional)) in &self.0 {
                let below = name.strip_prefix(&prefix).filter(|it| !it.contains(['.', '[']));
                if let (Some(below), false) = (below, optional) {
                    assert!(members.contains_key(below), "{what}: {name} is missing: {value}");
                }
            }
            for (name, below) in members {
                self.require(&format!("{prefix}{name}"), below, what);
            }
        }
        let items = value.as_array().into_iter().flatten();
        items.for_each(|item| self.require(&format!("{path}[]"), item, what));
    }
}
