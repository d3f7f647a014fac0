//! The seed corpora of the fuzz targets pass the targets' own checks, on any machine and without
//! a fuzzer. What a fuzzer once found is among them.

use std::fs;
use std::path::Path;

use arbitrary::{Arbitrary, Unstructured};

#[path = "../fuzz/src/lib.rs"]
mod targets;

#[test]
fn luks1_header() {
    replay("luks1_header", targets::luks1_header::check);
}

#[test]
fn luks2_header() {
    replay("luks2_header", targets::luks2_header::check);
}

#[test]
fn options() {
    replay("options", |seed| targets::options::check(text(seed)));
}

#[test]
fn secret_objects() {
    replay("secret_objects", |seed| targets::secret_objects::check(text(seed)));
}

#[test]
fn amend_requests() {
    replay("amend_requests", |seed| targets::amend_requests::check(text(seed)));
}

#[test]
fn amend_ops() {
    replay("amend_ops", |seed| {
        let run = targets::amend_ops::Run::arbitrary_take_rest(Unstructured::new(seed));
        targets::amend_ops::check(&run.expect("a run"));
    });
}

#[test]
fn amend_ops_luks2() {
    replay("amend_ops_luks2", |seed| {
        let run = targets::amend_ops_luks2::Run::arbitrary_take_rest(Unstructured::new(seed));
        targets::amend_ops_luks2::check(&run.expect("a run"));
    });
}

#[test]
fn volume() {
    replay("volume", |seed| {
        let run = targets::volume::Run::arbitrary_take_rest(Unstructured::new(seed));
        targets::volume::check(&run.expect("a run"));
    });
}

#[test]
fn image_specs() {
    replay("image_specs", |seed| targets::image_specs::check(text(seed)));
}

#[test]
fn header_backup() {
    replay("header_backup", |seed| {
        let run = targets::header_backup::Run::arbitrary_take_rest(Unstructured::new(seed));
        targets::header_backup::check(&run.expect("a run"));
    });
}

#[test]
fn restore_ops() {
    replay("restore_ops", |seed| {
        let run = targets::restore_ops::Run::arbitrary_take_rest(Unstructured::new(seed));
        targets::restore_ops::check(&run.expect("a run"));
    });
}

#[test]
fn volume_copy() {
    replay("volume_copy", |seed| {
        let run = targets::volume_copy::Run::arbitrary_take_rest(Unstructured::new(seed));
        targets::volume_copy::check(&run.expect("a run"));
    });
}

#[test]
fn qcow2() {
    replay("qcow2", |seed| {
        let run = targets::qcow2::Run::arbitrary_take_rest(Unstructured::new(seed));
        targets::qcow2::check(&run.expect("a run"));
    });
}

fn replay(target: &str, check: impl Fn(&[u8])) {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus_seed").join(target);
    let mut count = 0;
    for seed in fs::read_dir(&seeds).expect("a corpus") {
        let seed = seed.expect("a seed").path();
        eprintln!("{}", seed.display());
        check(&fs::read(&seed).expect("a readable seed"));
        count += 1;
    }
    assert!(count > 0, "no seeds in {}", seeds.display());
}

fn text(seed: &[u8]) -> &str {
    std::str::from_utf8(seed).expect("a text")
}
