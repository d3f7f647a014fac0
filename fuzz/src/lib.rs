//! The checks behind the fuzz targets, each a function of its input that panics on a finding.
//!
//! They are no part of the targets themselves so that `tests/fuzz_corpus.rs` of the main package
//! can run them over the seed corpora, on any machine and without a fuzzer.

pub mod amend_ops;
pub mod amend_ops_luks2;
pub mod amend_requests;
mod disk;
pub mod header_backup;
pub mod image_specs;
pub mod luks1_header;
pub mod luks2_header;
pub mod memory;
pub mod memory_luks2;
pub mod model;
pub mod model_luks2;
pub mod options;
pub mod qcow2;
pub mod restore_ops;
pub mod secret_objects;
pub mod volume;
pub mod volume_copy;
#[path = "../../tests/support/watched.rs"]
pub mod watched;
