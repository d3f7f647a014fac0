//! The promise holds from every state that an interruption left: a crash, a write or a sync that
//! failed. Every state that an amendment can leave is amended again, and every state that this can
//! leave is looked at.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;

use keyslot::header::Header;
use keyslot::storage::ReadOnlyBytes;
use support::crash;
use support::luks2::roomy;
use support::memory::Op;
use support::parallel::in_parallel;
use support::restoring::{add, changed, luks1, replace};
use support::twice::{Action, Counts, Twice};

const HUNTERS: [&str; 7] = ["hunter0", "hunter3", "hunter5", "hunter7", "new", "newer", "back"];

fn luks2() -> Twice {
    Twice::new(roomy(2).bytes, &HUNTERS)
}

/// A header of the same volume with other keyslots.
fn luks2_backup() -> Vec<u8> {
    changed(&roomy(2).bytes, "hunter0", vec![replace(5, "back")])
}

fn check(twice: &Twice, firsts: &[Action], seconds: &[Action]) {
    let cases: Vec<_> =
        firsts.iter().flat_map(|it| seconds.iter().map(move |of| (it, of))).collect();
    in_parallel(cases, |(first, second)| {
        let mut opener = twice.opener();
        let mut counts = Counts::default();
        for left in twice.first_states(first) {
            twice.judge(&mut opener, &left, second, |log| log, &mut counts);
        }
        println!("{}, then {}: {counts:?}", name(first), name(second));
        let is_idle = matches!(second, Action::Repair) && counts.second == 0;
        assert!(is_idle || counts.second > counts.first, "{counts:?}");
        assert_eq!(counts.violations, 0);
    });
}

fn name(action: &Action) -> String {
    match action {
        Action::Restore(_) => "Restore".to_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn luks2_amendments_after_interrupted_amendments() {
    let firsts = [Action::Replace(5, "new"), Action::Add(9, "new"), Action::Erase(3)];
    let seconds = [
        Action::Replace(5, "newer"),
        Action::Add(12, "newer"),
        Action::Erase(0),
        Action::Repair,
        Action::Restore(luks2_backup()),
    ];
    check(&luks2(), &firsts, &seconds);
}

#[test]
fn luks2_amendments_after_interrupted_repairs_and_restorations() {
    let seconds = [Action::Replace(5, "newer"), Action::Restore(luks2_backup())];
    check(&luks2(), &[Action::Restore(luks2_backup())], &seconds);
    for copy in [0, 16384] {
        let mut damaged = roomy(2).bytes;
        damaged[copy + 6000] = 1;
        let twice = Twice::new(damaged, &HUNTERS);
        check(&twice, &[Action::Repair], &[Action::Replace(5, "newer"), Action::Repair]);
    }
}

#[test]
fn luks1_amendments_after_interrupted_amendments() {
    let names = ["a", "b", "new", "newer", "back"];
    let image = luks1(&[(0, "a"), (6, "b")]);
    let backup = changed(&image, "a", vec![replace(6, "back")]);
    let twice = Twice::new(image, &names);
    for keyslot in [0, 6] {
        let firsts = [
            Action::Replace(keyslot, "new"),
            Action::Add(3, "new"),
            Action::Erase(6),
            Action::Restore(backup.clone()),
        ];
        let seconds = [
            Action::Replace(0, "newer"),
            Action::Add(2, "newer"),
            Action::Repair,
            Action::Restore(backup.clone()),
        ];
        check(&twice, &firsts, &seconds);
    }
    let then = changed(&twice.before, "a", vec![add(7, "new")]);
    check(&Twice::new(then, &names), &[Action::Replace(7, "newer")], &[Action::Erase(6)]);
}

/// A repair of what an amendment left, interrupted in turn.
#[test]
fn luks1_amendments_after_interrupted_repairs() {
    let names = ["a", "b", "new", "newer"];
    let twice = Twice::new(luks1(&[(0, "a"), (6, "b")]), &names);
    let mut kinds = BTreeMap::new();
    for action in [Action::Replace(0, "new"), Action::Replace(6, "new"), Action::Erase(6)] {
        for left in twice.first_states(&action).into_iter().filter(|it| it.disk == it.cache) {
            let header = Header::read(&ReadOnlyBytes(left.disk.clone())).unwrap();
            if let [leftover] = header.leftovers()[..] {
                kinds.entry(format!("{leftover:?}")).or_insert(left.disk);
            }
        }
    }
    // Of each keyslot: waiting, staged, copied, and not overwritten. Of the erased one the last.
    assert!(kinds.len() >= 8, "{:?}", kinds.keys());
    for left in kinds.into_values() {
        let seconds = [Action::Erase(6), Action::Add(3, "newer"), Action::Repair];
        check(&Twice::new(left, &names), &[Action::Repair], &seconds);
    }
}

type IsLeftOut<'a> = &'a dyn Fn(&Op) -> bool;

/// The checks above find an order of writes that is wrong.
#[test]
fn the_healing_of_a_copy_is_not_left_out() {
    let twice = luks2();
    let mut opener = twice.opener();
    let left = twice.first_states(&Action::Replace(5, "new"));
    let first_area = |log: &[Op]| {
        let is_area = |op: &Op| matches!(op, Op::Write { offset, .. } if *offset >= 32768);
        log.iter().position(is_area).expect("key material")
    };
    let without = |log: Vec<Op>, is_left_out: &dyn Fn(&Op) -> bool| -> Vec<Op> {
        let healed = first_area(&log);
        let keep = |(at, op): &(usize, Op)| *at >= healed || !is_left_out(op);
        log.into_iter().enumerate().filter(keep).map(|(_, op)| op).collect()
    };
    let is_at = |op: &Op, copy: usize| matches!(op, Op::Write { offset, .. } if *offset == copy);
    let mutations: [(&str, IsLeftOut<'_>); 3] = [
        ("the primary copy is not healed", &|op| is_at(op, 0)),
        ("the secondary copy is not healed", &|op| is_at(op, 16384)),
        ("what heals them is not synced", &|op| matches!(op, Op::Sync)),
    ];
    for (what, is_left_out) in mutations {
        let mut counts = Counts::default();
        for left in &left {
            let second = Action::Replace(5, "newer");
            twice.judge(&mut opener, left, &second, |log| without(log, is_left_out), &mut counts);
        }
        println!("{what}: {counts:?}");
        assert!(counts.violations > 0, "{what}, and that is not found");
    }
}

/// The states are those that the test of one interruption visits, but for areas of key material.
#[test]
fn first_states_are_told_apart_by_their_headers() {
    let twice = luks2();
    let action = Action::Replace(5, "new");
    let left = twice.first_states(&action);
    let log = twice.run(&twice.before, &action, None).unwrap().memory.log();
    let mut headers = std::collections::HashSet::new();
    crash::states(&twice.before, &log, |state| {
        headers.insert(state[..32768].to_vec());
    });
    assert!(left.len() >= headers.len(), "{} {}", left.len(), headers.len());
}
