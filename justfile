# `just` lists these.

default:
    @just --list

# Everything that has to hold before a change lands
ci:
    .ci/run

# The tests; those against a peer that is not installed say that they are skipped
test:
    cargo test

# Formatting, lints and documentation
check:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    cargo clippy --lib --no-default-features -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# The tables of the README, and AES-XTS by kernel, size and sector
bench:
    cargo bench --bench amend
    cargo bench --bench xts

# keyslot beside AWS-LC, OpenSSL, qemu-img and cp; benches/peers/src/main.rs says what it needs
peers *arguments:
    cd benches/peers && cargo run --release -- {{arguments}} && cargo run --release --bin convert

# One fuzz target, for ten minutes
fuzz target seconds="600":
    cargo fuzz run -s none {{target}} -- -max_total_time={{seconds}}

# Licences and sources of the dependencies
deny:
    cargo deny check bans licenses sources
