//! What comparisons of whole commands share: programs that take turns, and what their runs cost.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// What a run took. `user` and `system` are the times of all its threads.
#[derive(Clone, Copy)]
pub struct Costs {
    pub wall: Duration,
    pub user: Duration,
    pub system: Duration,
}

/// The medians of `runs` runs of each program, one after the other. The first turn, of number 0,
/// comes on top and is not counted.
pub fn in_turn<P>(
    programs: &[P],
    runs: usize,
    mut run: impl FnMut(usize, &P) -> io::Result<Costs>,
) -> io::Result<Vec<Costs>> {
    let mut all = vec![Vec::new(); programs.len()];
    for turn in 0..=runs {
        for (program, runs) in programs.iter().zip(&mut all) {
            let costs = run(turn, program)?;
            if turn > 0 {
                runs.push(costs);
            }
        }
    }
    Ok(all.iter().map(|runs| median(runs)).collect())
}

fn median(runs: &[Costs]) -> Costs {
    let by = |time: fn(&Costs) -> Duration| {
        let mut times: Vec<_> = runs.iter().map(time).collect();
        times.sort_unstable();
        times[times.len() / 2]
    };
    Costs {
        wall: by(|costs| costs.wall),
        user: by(|costs| costs.user),
        system: by(|costs| costs.system),
    }
}

/// Runs it to its end, which has to be a good one.
pub fn run(command: &mut Command) -> io::Result<Costs> {
    let (status, costs) = measure(command)?;
    assert!(status.success(), "{command:?}");
    Ok(costs)
}

/// Runs it to its end, which has to be a bad one, and what it says of it is not shown.
pub fn run_to_failure(command: &mut Command) -> io::Result<Costs> {
    let (status, costs) = measure(command.stderr(Stdio::null()))?;
    assert!(!status.success(), "{command:?}");
    Ok(costs)
}

fn measure(command: &mut Command) -> io::Result<(ExitStatus, Costs)> {
    let children = || getrusage(UsageWho::RUSAGE_CHILDREN).map_err(io::Error::from);
    let before = children()?;
    let start = Instant::now();
    let status = command.stdout(Stdio::null()).status()?;
    let wall = start.elapsed();
    let after = children()?;
    let costs = Costs {
        wall,
        user: difference(after.user_time(), before.user_time()),
        system: difference(after.system_time(), before.system_time()),
    };
    Ok((status, costs))
}

fn difference(after: TimeVal, before: TimeVal) -> Duration {
    let micros = |time: TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    Duration::from_micros(u64::try_from(micros(after) - micros(before)).unwrap_or(0))
}

/// If it is there.
pub fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}

/// `$KEYSLOT`, or the command of this checkout.
pub fn keyslot() -> PathBuf {
    if let Some(path) = std::env::var_os("KEYSLOT") {
        return path.into();
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = here.join("target");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--bin", "keyslot", "--target-dir"])
        .arg(&target)
        .arg("--manifest-path")
        .arg(here.join("../../Cargo.toml"))
        .status();
    assert!(status.is_ok_and(|status| status.success()), "keyslot is not built");
    target.join("release/keyslot")
}
