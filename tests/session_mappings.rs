//! Mappings in a session: whatever is done to them, in any order, what comes of it is what the kernel makes of the same
//! files natively.
//!
//! samples/session/mappings.c does random sequences of mmap, mprotect, mremap, munmap, madvise, msync, mlock, mincore, mseal,
//! fork, stores, instructions and the kernel's own reads and writes, on files of every storage; natively in a chroot of
//! the tree and in a session of its image. Every answer, fault, byte and line of /proc/self/maps must be the same; the one
//! rule by which lines are made comparable is that of `common/session_maps.rs`. What a session does not answer as the
//! kernel is in `common/session_limits.rs`; the sequences avoid it.
//!
//! The long run, 100 times as many as by default, and one sequence again, its lines shown:
//!
//! ```sh
//! XIP_SEQUENCES=100000 XIP_SEED=7 cargo test --test session_mappings
//! XIP_SEQUENCES=1 XIP_FIRST=1234 XIP_SEED=7 XIP_SHOW_LINES=1 cargo test --test session_mappings -- --nocapture
//! ```

#[path = "common/chroot.rs"]
mod chroot;
#[allow(dead_code, unreachable_pub)]
#[path = "common/image_bytes.rs"]
mod image_bytes;
#[path = "common/launch.rs"]
mod launch;
#[path = "common/mounted.rs"]
mod mounted;
#[path = "common/session_maps.rs"]
mod session_maps;
#[path = "common/session_system.rs"]
mod session_system;
#[path = "common/stored.rs"]
mod stored;

use std::collections::BTreeMap;
use std::thread;

use launch::{compile, have_cc, text};
use session_maps::Places;
use session_system::System;

const SEQUENCES: u64 = 1000;
const STEPS: u64 = 40;
/// In one run of the program, which is limited in time.
const AT_ONCE: u64 = 250;

/// A number that the environment may set.
fn number(variable: &str, default: u64) -> u64 {
    let set = std::env::var(variable).ok();
    set.map_or(default, |set| {
        set.parse()
            .unwrap_or_else(|_| panic!("{variable}={set} is no number"))
    })
}

/// The lines of each sequence, the first of which names it.
fn sequences(output: &str) -> Vec<Vec<&str>> {
    let mut all: Vec<Vec<&str>> = Vec::new();
    for line in output.lines() {
        match all.last_mut() {
            Some(last) if !line.starts_with("sequence ") => last.push(line),
            _ => all.push(vec![line]),
        }
    }
    all
}

/// What a program did in how many ways, by call and answer.
#[derive(Default)]
struct Seen {
    answers: BTreeMap<String, u64>,
    direct_pages: u64,
    lines: u64,
}

impl Seen {
    fn add(&mut self, line: &str, direct_pages: u64) {
        self.lines += 1;
        self.direct_pages += direct_pages;
        let said = line.split(" |").next().unwrap_or_default();
        if let Some((_, call)) = said.split_once(": ") {
            let name = call.split(['(', ' ']).next().unwrap_or_default();
            let answer = said.rsplit_once(") = ").map_or("", |(_, answer)| answer);
            let is_error = answer.starts_with('E');
            let answer = if is_error { answer } else { "answers" };
            *self.answers.entry(format!("{name} {answer}")).or_default() += 1;
        }
        for (letter, what) in [('B', "SIGBUS"), ('S', "SIGSEGV"), ('=', "bytes")] {
            let pages = line.split(" |").skip(1).step_by(2);
            if pages.flat_map(str::chars).any(|char| char == letter) {
                *self.answers.entry(format!("a page: {what}")).or_default() += 1;
            }
        }
    }
}

#[test]
fn random_sequences() {
    if !have_cc() || !mounted::can_mount() {
        return;
    }
    let program = compile("session/mappings", &["-static"]).unwrap();
    let system = System::new(&[("mappings", program)]);
    let places = Places::of(&system.image(), &system.root());
    let seed = number("XIP_SEED", 1).to_string();
    let (from, count) = (number("XIP_FIRST", 0), number("XIP_SEQUENCES", SEQUENCES));
    let mut failures = Vec::new();
    let mut seen = Seen::default();
    let outputs = |first: u64| {
        let here = AT_ONCE.min(from + count - first);
        let args = [first, here, STEPS].map(|number| number.to_string());
        let args = [&seed, &args[0], &args[1], &args[2]].map(String::as_str);
        (here, system.both("mappings", &args))
    };
    let firsts: Vec<u64> = (from..from + count).step_by(AT_ONCE as usize).collect();
    let all = firsts.chunks(2).flat_map(|some| {
        thread::scope(|scope| {
            let threads: Vec<_> = some
                .iter()
                .map(|first| scope.spawn(|| outputs(*first)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect::<Vec<_>>()
        })
    });
    for (here, (native, session)) in all {
        assert_eq!(native.status.code(), Some(0), "natively: {native:?}");
        assert_eq!(session.status.code(), Some(0), "in a session: {session:?}");
        let (native, session) = (text(&native.stdout), text(&session.stdout));
        let (native, session) = (sequences(&native), sequences(&session));
        assert_eq!(
            (native.len(), session.len()),
            (here as usize, here as usize)
        );
        for (native, session) in native.iter().zip(&session) {
            let broken = native.iter().find(|line| line.contains("BROKEN"));
            assert_eq!(broken, None, "the program fails natively");
            let mut done = Vec::new();
            for number in 0..native.len().max(session.len()) {
                let of = |lines: &[&'_ str]| {
                    lines.get(number).map_or("nothing", |line| *line).to_owned()
                };
                let (native, session) = (of(native), of(session));
                if std::env::var_os("XIP_SHOW_LINES").is_some() {
                    println!("{native}");
                }
                match places.compare(&native, &session) {
                    Ok(direct) => {
                        seen.add(&native, direct);
                        done.push(native);
                    }
                    Err(wrong) => {
                        failures.push(format!("{}\n{wrong}", done.join("\n")));
                        break;
                    }
                }
            }
        }
    }
    for (answer, count) in &seen.answers {
        println!("{count:8} {answer}");
    }
    println!(
        "{count} sequences, {} lines, {} pages mapped from the image, {} sequences differ",
        seen.lines,
        seen.direct_pages,
        failures.len()
    );
    failures.truncate(3);
    assert!(failures.is_empty(), "\n{}", failures.join("\n\n"));
}
