//! System calls in a session: what a program sees of those that a session answers itself, or could be seen in, is what
//! the kernel answers.
//!
//! The probes are samples/session/*.c. Each prints a line for every scenario; it runs natively in a chroot of a tree, and
//! in a session of an image of that tree, and the lines must be the same but for
//! what `common/session_limits.rs` names. What is left out of the
//! comparison is left out in one more place, `of_session()` in samples/session/session_fds.h: the session's own descriptors.
//!
//! To see the native lines: `XIP_SHOW_LINES=1 cargo test --test session_calls -- --nocapture`.

#[path = "common/chroot.rs"]
mod chroot;
#[allow(dead_code, unreachable_pub)]
#[path = "common/image_bytes.rs"]
mod image_bytes;
#[path = "common/launch.rs"]
mod launch;
#[path = "common/mounted.rs"]
mod mounted;
#[path = "common/session_limits.rs"]
mod session_limits;
#[path = "common/session_lines.rs"]
mod session_lines;
#[path = "common/session_system.rs"]
mod session_system;
#[path = "common/stored.rs"]
mod stored;

use std::collections::BTreeSet;
use std::fs;

use launch::{have_cc, text};
use session_lines::{differences, limits_of};
use session_system::{LAYOUTS, System, compiled};
use xip_run::cramfs::Image;
use xip_run::index::FileIndex;
use xip_run::units::PageSize;

/// Runs a probe in every layout and compares. It has `at_least` so many scenarios: a probe that says nothing shows
/// nothing.
fn compare(probe: &str, at_least: usize) {
    if !have_cc() || !mounted::can_mount() {
        return;
    }
    let programs = compiled(probe);
    let system = System::new(&programs);
    // Limits of such a machine are limits here too.
    let large = frames_are_large().then(|| format!("{probe}, large frames"));
    let here = large.as_deref().unwrap_or(probe);
    let mut failures = Vec::new();
    let mut limited = BTreeSet::new();
    for (layout, _) in &programs {
        let (native, session) = system.both(layout, &[]);
        let seen = text(&native.stdout);
        if std::env::var_os("XIP_SHOW_LINES").is_some() {
            println!("{seen}");
        }
        let mut wrong = Vec::new();
        let mut scenarios: Vec<_> = seen.lines().map(|line| line.split(": ").next()).collect();
        let count = scenarios.len();
        scenarios.sort_unstable();
        scenarios.dedup();
        if !native.status.success()
            || !seen
                .lines()
                .last()
                .is_some_and(|last| last.starts_with("end: "))
        {
            wrong.push(format!("the probe fails natively: {native:?}"));
        }
        if count < at_least || scenarios.len() != count {
            wrong.push(format!(
                "{count} lines of {} scenarios; expected are {at_least}, one line each",
                scenarios.len()
            ));
        }
        let suspicious = |line: &&str| line.contains("DIFFERENT") || line.contains("BROKEN");
        wrong.extend(
            seen.lines()
                .filter(suspicious)
                .map(|line| format!("natively: {line}")),
        );
        let (others, by_limits) = differences(here, &seen, &text(&session.stdout));
        wrong.extend(others);
        limited.extend(by_limits);
        if session.status.code() != native.status.code() || session.stderr != native.stderr {
            wrong.push(format!(
                "the session ends with {}, stderr {:?}",
                session.status,
                text(&session.stderr)
            ));
        }
        println!(
            "{probe} ({layout}): {count} scenarios, {} wrong",
            wrong.len()
        );
        failures.extend(wrong.into_iter().map(|what| format!("{layout}: {what}")));
    }
    if programs.len() == LAYOUTS.len() {
        failures.extend(
            limits_of(probe)
                .chain(large.iter().flat_map(|here| limits_of(here)))
                .filter(|(named, ..)| !limited.contains(named))
                .map(|(named, ..)| format!("{named}: this limit is none any more")),
        );
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Has a signal frame on this machine more than 2 KiB, by `AT_MINSIGSTKSZ`? So it is with protection keys or AVX-512: a
/// stack that is as small as x86_64's kernel, or musl, lets it be has no room for one.
fn frames_are_large() -> bool {
    const AT_MINSIGSTKSZ: usize = 51;
    let auxv = std::fs::read("/proc/self/auxv").unwrap_or_default();
    let (words, _) = auxv.as_chunks::<{ size_of::<usize>() }>();
    let words: Vec<usize> = words.iter().copied().map(usize::from_ne_bytes).collect();
    words
        .chunks(2)
        .any(|pair| matches!(pair, [AT_MINSIGSTKSZ, bytes] if *bytes > 2048))
}

/// The image is what the probes are about: all that a page of a file can be, with the contents of the tree.
#[test]
fn the_image_has_every_storage() {
    let system = System::new(&[]);
    let image = Image::open(fs::read(system.image()).unwrap()).unwrap();
    image.require_runnable().unwrap();
    let mut states = BTreeSet::new();
    for entry in fs::read_dir(system.root().join(stored::FILES_DIR)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let inode = image
            .lookup(format!("/{}/{name}", stored::FILES_DIR).as_bytes())
            .unwrap();
        assert!(
            image.read_file(&inode).unwrap() == fs::read(&path).unwrap(),
            "{name}: other contents"
        );
        let index = FileIndex::new(&image, &inode, PageSize::K4).unwrap();
        let found: BTreeSet<String> = (0..PageSize::K4.count(inode.size))
            .map(|page| match index.page(page) {
                Ok(_) => "direct".to_owned(),
                Err(why) => why.to_string(),
            })
            .collect();
        let expected: &[&str] = match name {
            "empty" => &[],
            "apart" | "byte" | "direct" | "page" | "pages" => &["direct"],
            "byte-compressed" | "compressed" | "compressed-direct" | "page-compressed"
            | "pages-compressed" => &["compressed"],
            "byte-foreign" => &["shared-last-page"],
            "code" => &["compressed", "direct", "misaligned"],
            "direct-foreign" | "direct-long" => &["direct", "shared-last-page"],
            "hole-first" => &["direct", "hole"],
            "holes" => &["hole"],
            "misaligned" | "uncompressed" => &["misaligned"],
            "mixed" => &["compressed", "direct", "hole", "shared-last-page"],
            "mixed-compressed" => &["compressed", "direct"],
            "turns" => &["compressed", "direct"],
            "zz-cut-off" => &["beyond-image", "direct"],
            _ => panic!("{name} is unknown"),
        };
        assert!(
            found.iter().eq(expected),
            "{name}: {found:?}, not {expected:?}"
        );
        states.extend(found);
    }
    assert_eq!(states.len(), 6, "{states:?}");
}

#[test]
fn files_mapped_in_every_way() {
    compare("files", 1000);
}

#[test]
fn mappings_that_change() {
    compare("remap", 400);
}

#[test]
fn arguments_of_mmap() {
    compare("mmap", 500);
}

#[test]
fn what_would_change_a_file() {
    compare("readonly", 55);
}

#[test]
fn registers_and_stacks() {
    compare("stacks", 60);
}

#[test]
fn stacks_while_a_call_waits() {
    compare("waits", 54);
}

#[test]
fn signal_masks() {
    compare("masks", 170);
}

#[test]
fn signal_actions() {
    compare("actions", 170);
}

#[test]
fn a_programs_own_sigsys() {
    compare("sigsys", 50);
}

/// Whoever starts a session may ignore SIGSYS.
#[test]
fn the_first_programs_sigsys() {
    if !have_cc() || !mounted::can_mount() {
        return;
    }
    let programs = compiled("sigsys");
    let system = System::new(&programs);
    for (setup, action) in [("trap '' SYS", "ignored"), ("", "default")] {
        for (layout, _) in &programs {
            let (native, session) = system.both_after(setup, layout, &["inherited", "it", "is"]);
            let seen = text(&native.stdout);
            let expected = format!(
                "it, is: mask {:016x}, action {action} 0 {:016x}, mapped\n",
                0, 0
            );
            assert_eq!(seen, expected, "{native:?}");
            assert_eq!(text(&session.stdout), expected, "{session:?}");
        }
    }
}

#[test]
fn descriptors() {
    compare("descriptors", 60);
}

#[test]
fn processes_and_threads() {
    compare("processes", 60);
}

#[test]
fn a_storm_of_signals_and_threads() {
    compare("storm", 9);
}
