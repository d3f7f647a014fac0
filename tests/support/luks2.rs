//! A LUKS2 image in memory whose header can be changed, and made valid again.

use std::path::Path;

use keyslot::crypto::HashAlg;
use serde_json::Value;

/// A change of a header, in both copies of it, whose checksums are right again afterwards.
#[derive(Clone, Debug)]
pub enum Change {
    /// JSON pointers, and what shall be there
    Set(Vec<(&'static str, Value)>),
    /// JSON pointers of what shall not be there
    Remove(&'static [&'static str]),
    /// A part of the JSON text, and what shall be in its place
    Text(&'static str, &'static str),
    /// Bytes of the JSON area from this one on
    Area(usize, Vec<u8>),
    /// Bytes of the binary header from this one on
    Binary(usize, Vec<u8>),
    /// One of the above in the primary (0) or the secondary (1) copy only
    Only(usize, Box<Change>),
    /// Bytes of the image, and nothing is made right
    Bytes(usize, Vec<u8>),
    /// Only so many bytes of the image
    Cut(usize),
    /// One after the other
    Both(Box<Change>, Box<Change>),
}

#[derive(Clone, Debug)]
pub struct Luks2 {
    pub bytes: Vec<u8>,
    pub hdr_size: usize,
}

impl Luks2 {
    /// An image of `testdata`.
    pub fn testdata(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
        Self::new(std::fs::read(path).unwrap())
    }

    pub fn new(bytes: Vec<u8>) -> Self {
        let hdr_size = u64::from_be_bytes(bytes[8..16].try_into().unwrap());
        Self { bytes, hdr_size: usize::try_from(hdr_size).unwrap() }
    }

    /// The image after a change.
    pub fn with(&self, change: &Change) -> Self {
        let mut image = self.clone();
        image.apply(change, &[0, 1]);
        image
    }

    /// The image with one more member of the metadata, whose value is this text.
    pub fn with_member(&self, name: &str, value: &str) -> Self {
        let mut image = self.clone();
        for copy in [0, 1] {
            let text = self.text(copy);
            let members = text.strip_suffix('}').unwrap();
            image.set_text(copy, &format!("{members},\"{name}\":{value}}}"));
            image.fix_checksum(copy);
        }
        image
    }

    /// The metadata in a copy.
    pub fn metadata(&self, copy: usize) -> Value {
        serde_json::from_str(&self.text(copy)).unwrap()
    }

    fn apply(&mut self, change: &Change, copies: &[usize]) {
        for &copy in copies {
            match change {
                Change::Set(values) => {
                    let mut metadata = self.metadata(copy);
                    for (pointer, value) in values {
                        set(&mut metadata, pointer, value);
                    }
                    self.set_text(copy, &metadata.to_string());
                }
                Change::Remove(pointers) => {
                    let mut metadata = self.metadata(copy);
                    for pointer in *pointers {
                        let (object, name) = pointer.rsplit_once('/').unwrap();
                        let object = metadata.pointer_mut(object).unwrap();
                        object.as_object_mut().unwrap().shift_remove(name).unwrap();
                    }
                    self.set_text(copy, &metadata.to_string());
                }
                Change::Text(from, to) => {
                    let text = self.text(copy);
                    assert!(text.contains(from), "{from}");
                    self.set_text(copy, &text.replacen(from, to, 1));
                }
                Change::Area(offset, bytes) => {
                    self.area(copy)[*offset..][..bytes.len()].copy_from_slice(bytes);
                }
                Change::Binary(offset, bytes) => {
                    let at = copy * self.hdr_size + offset;
                    self.bytes[at..][..bytes.len()].copy_from_slice(bytes);
                }
                Change::Only(only, change) => {
                    if *only == copy {
                        self.apply(change, &[copy]);
                    }
                }
                Change::Bytes(offset, bytes) => {
                    self.bytes[*offset..][..bytes.len()].copy_from_slice(bytes);
                    continue;
                }
                Change::Cut(len) => {
                    self.bytes.truncate(*len);
                    continue;
                }
                Change::Both(one, other) => {
                    self.apply(one, &[copy]);
                    self.apply(other, &[copy]);
                    continue;
                }
            }
            self.fix_checksum(copy);
        }
    }

    fn area(&mut self, copy: usize) -> &mut [u8] {
        let start = copy * self.hdr_size;
        &mut self.bytes[start + 4096..start + self.hdr_size]
    }

    /// The JSON text of a copy.
    pub fn text(&self, copy: usize) -> String {
        let start = copy * self.hdr_size;
        let area = &self.bytes[start + 4096..start + self.hdr_size];
        let end = area.iter().position(|&byte| byte == 0).unwrap();
        String::from_utf8(area[..end].to_vec()).unwrap()
    }

    fn set_text(&mut self, copy: usize, text: &str) {
        let area = self.area(copy);
        area.fill(0);
        area[..text.len()].copy_from_slice(text.as_bytes());
    }

    /// With the algorithm that the copy names; an unknown one leaves it as it is.
    fn fix_checksum(&mut self, copy: usize) {
        let start = copy * self.hdr_size;
        let Some(header) = self.bytes.get_mut(start..start + self.hdr_size) else { return };
        let name: Vec<u8> = header[72..104].iter().copied().take_while(|&it| it != 0).collect();
        let name = String::from_utf8_lossy(&name).to_ascii_lowercase();
        let Ok(alg) = HashAlg::parse(&name) else { return };
        header[448..512].fill(0);
        let digest = alg.digest(&[header]);
        header[448..448 + digest.len()].copy_from_slice(&digest);
    }
}

/// `luks2_keyslots.img` with room for more areas of 64 KiB: hunter0 opens keyslot 0, hunter3 keyslot 3
/// (to be ignored), hunter5 keyslot 5 (preferred), hunter7 keyslot 7 (unbound). A token is for 0 and 3.
pub fn roomy(more: usize) -> Luks2 {
    let mut image = Luks2::testdata("luks2_keyslots.img");
    let (areas, len) = (320 << 10, more << 16);
    let data = 2 * image.hdr_size + areas;
    image.bytes.splice(data..data, vec![0; len]);
    image.with(&Change::Set(vec![
        ("/config/keyslots_size", Value::from((areas + len).to_string())),
        ("/segments/0/offset", Value::from((data + len).to_string())),
        ("/tokens/0", serde_json::json!({ "type": "test", "keyslots": ["0", "3"] })),
    ]))
}

fn set(metadata: &mut Value, pointer: &str, value: &Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = metadata.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}"));
    match parent {
        Value::Array(items) => items[name.parse::<usize>().unwrap()] = value.clone(),
        parent => parent[name] = value.clone(),
    }
}
