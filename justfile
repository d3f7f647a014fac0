# `just` lists these recipes.

default:
    @just --list

# Run everything that must pass before a change lands
ci:
    .ci/run

# Run the tests; those that need a missing peer say that they skip
test:
    cargo test

# Check formatting, lints and documentation
check:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    cargo clippy --lib --no-default-features -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# Measure the README's tables, and AES-XTS by kernel, size and sector
bench:
    cargo bench --bench amend
    cargo bench --bench xts

# Compare with AWS-LC, OpenSSL, qemu-img and cp; benches/peers/src/main.rs lists the requirements
peers *arguments:
    cd benches/peers && cargo run --release -- {{arguments}} && cargo run --release --bin convert

# Run one fuzz target, for ten minutes by default
fuzz target seconds="600":
    cargo fuzz run -s none {{target}} -- -max_total_time={{seconds}}

# Check licences and sources of the dependencies
deny:
    cargo deny check bans licenses sources
