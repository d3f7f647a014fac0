//! Whole commands against qemu-img, on the same work in the same run; and whether an image opens in
//! the time that was asked for.
//!
//! `cargo bench --bench amend`. Without qemu-img only our own column is filled.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use keyslot::kdf::Cost;
use keyslot::{CreateOptions, Image, Passphrase};

fn main() {
    // `cargo test --benches` runs this too, and wants no figures.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let directory = directory.path();
    println!("| command | keyslot | qemu-img | ratio |\n|---|---|---|---|");
    row("create, `iter-time=10`", directory, |program, image| create(program, image, "10"));
    row("add, `iter-time=10`", directory, |program, image| add(program, image, "10"));
    row("add, default `iter-time`", directory, |program, image| add(program, image, "2000"));
    row("erase, keyslot opened with 1000 iterations", directory, erase);

    println!("\n| `--iter-time` | opens in | difference |\n|---|---|---|");
    for ms in [10, 50, 200, 1000, 2000] {
        calibration(directory, ms);
    }
}

/// Prints the medians of both programs, run in turn.
fn row(what: &str, directory: &Path, run: impl Fn(&str, &Path) -> Duration) {
    let ours = env!("CARGO_BIN_EXE_keyslot");
    let image = directory.join("image.luks");
    let has_peer = Command::new("qemu-img").arg("--version").stdout(Stdio::null()).status().is_ok();
    let (mut keyslot, mut qemu) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        keyslot.push(run(ours, &image));
        if has_peer {
            qemu.push(run("qemu-img", &image));
        }
    }
    let keyslot = median(keyslot);
    if has_peer {
        let qemu = median(qemu);
        let ratio = qemu.as_secs_f64() / keyslot.as_secs_f64();
        println!("| {what} | {} | {} | {ratio:.1} |", show(keyslot), show(qemu));
    } else {
        println!("| {what} | {} | - | - |", show(keyslot));
    }
}

fn create(program: &str, image: &Path, iter_time: &str) -> Duration {
    let _ = std::fs::remove_file(image);
    let options = format!("key-secret=old,iter-time={iter_time}");
    time(
        Command::new(program)
            .args(["create", "-q", "-f", "luks", "-o", &options])
            .args(OBJECTS)
            .arg(image)
            .arg("1M"),
    )
}

fn add(program: &str, image: &Path, iter_time: &str) -> Duration {
    fresh(image, 1);
    amend(program, image, &format!("state=active,new-secret=new,iter-time={iter_time}"))
}

fn erase(program: &str, image: &Path) -> Duration {
    fresh(image, 2);
    amend(program, image, "state=inactive,old-secret=new")
}

fn amend(program: &str, image: &Path, options: &str) -> Duration {
    let spec = format!("driver=luks,file.filename={},key-secret=old", image.display());
    time(
        Command::new(program)
            .args(["amend", "-q", "--image-opts", "-o", options])
            .args(OBJECTS)
            .arg(spec),
    )
}

/// An image that opens at once, so that the time is the change's.
fn fresh(image: &Path, secrets: usize) {
    let old = Passphrase::new(b"hunter0").expect("memory");
    let options = CreateOptions::new().expect("the defaults are valid");
    let options = options.cost(Cost::Iterations(1000)).overwrite(true);
    options.create(image, 1 << 20, &old).expect("an image");
    if secrets == 2 {
        amend(env!("CARGO_BIN_EXE_keyslot"), image, "state=active,new-secret=new,iter-time=0");
    }
}

fn calibration(directory: &Path, ms: u64) {
    let path = directory.join("calibrated.luks");
    let secret = Passphrase::new(b"hunter0").expect("memory");
    let mut opens = Vec::new();
    for _ in 0..RUNS {
        let options = CreateOptions::new().expect("the defaults are valid");
        let options = options.cost(Cost::Time(Duration::from_millis(ms))).overwrite(true);
        options.create(&path, 1 << 20, &secret).expect("an image");
        let start = Instant::now();
        Image::open(&path).and_then(|image| image.unlock(&secret)).expect("it opens");
        opens.push(start.elapsed());
    }
    let opens = median(opens);
    let difference =
        (opens.as_secs_f64() * 1000.0 / Duration::from_millis(ms).as_secs_f64() / 1000.0 - 1.0)
            * 100.0;
    println!("| {ms} ms | {} | {difference:+.1} % |", show(opens));
}

fn time(command: &mut Command) -> Duration {
    let start = Instant::now();
    let status = command.stdout(Stdio::null()).status().expect("the program runs");
    let elapsed = start.elapsed();
    assert!(status.success(), "{command:?}");
    elapsed
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn show(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

const OBJECTS: [&str; 4] =
    ["--object", "secret,id=old,data=hunter0", "--object", "secret,id=new,data=hunter1"];
const RUNS: usize = 5;
