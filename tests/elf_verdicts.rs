//! execve(2)'s verdict of ELF files, good, odd and broken: each file is executed from a directory by the kernel, and in place
//! from an image of that directory, in a session and as a program of its own (`--no-root`). The errno, the signal that ends
//! it, and all that execve(2) makes for a program (memory, its protections and contents to the byte, auxv, break, what
//! /proc tells) must be the same; samples/session/verdicts.c says it in a line for each file.
//!
//! The files are common/elf_cases.rs's, by hand, and common/elf_random.rs's, at random: XIP_ELF_COUNT of them from the seed
//! XIP_ELF_SEED. `XIP_ELF_KEEP=DIR` leaves tree, image and lines there. A long run:
//!
//!     XIP_ELF_SEED=$(date +%s) XIP_ELF_COUNT=1000000 cargo test --test elf_verdicts at_random -- --nocapture
//!
//! What differs from Linux, and why, is in common/elf_known.rs: all else is a failure.

#[path = "common/chroot.rs"]
mod chroot;
#[path = "common/elf_cases.rs"]
mod elf_cases;
#[path = "common/elf_file.rs"]
mod elf_file;
#[path = "common/elf_interpreters.rs"]
mod elf_interpreters;
#[path = "common/elf_known.rs"]
mod elf_known;
#[path = "common/elf_random.rs"]
mod elf_random;
#[path = "common/launch.rs"]
mod launch;
#[path = "common/mounted.rs"]
mod mounted;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use elf_known::{COUNTED_WHOLE, Verdict, differs_in_bias, known_alone, known_in_session};
use elf_random::Random;
use launch::{XIP_RUN, compile, copy_program, have, have_cc, in_parallel, run, text};
use mounted::can_mount;

/// How many files at random; how many of them are in an image together.
const COUNT: u64 = 10_000;
const BATCH: u64 = 1000;
/// Of how many of these one is executed as a program of its own too.
const ALONE: usize = 25;
const SEED: u64 = 6;

/// Resource limits, in the driver's words.
const LIMITS: [&[&str]; 5] = [
    &["stack=0x4000"],
    &["stack=0x20000"],
    &["as=0x200000"],
    &["data=0x100000"],
    &["nofile=16"],
];

type Verdicts = BTreeMap<String, Verdict>;

/// A tree and its image.
struct Theatre {
    dir: TempDir,
    /// Sessions look at headers as they do where the image is flash.
    is_flash: bool,
}

impl Theatre {
    /// With files, executable ones, in /NAME.
    fn new(name: &str, files: &[(String, Vec<u8>)]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("xip-run-test-")
            .tempdir()
            .unwrap();
        let theatre = Self {
            dir,
            is_flash: false,
        };
        let root = theatre.root();
        for dir in ["proc", "dev", "sys", "tmp", "bin", "interp", name] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::create_dir(theatre.tmp()).unwrap();
        let driver = compile("session/verdicts", &["-static"]).unwrap();
        copy_program(&driver, &root.join("bin/verdicts"));
        for (dir, files) in [
            ("interp", &elf_interpreters::interpreters()),
            (name, &files.to_vec()),
        ] {
            for (name, bytes) in files {
                let path = root.join(dir).join(name);
                fs::write(&path, bytes).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        let interp = root.join("interp");
        symlink("pie", interp.join("link")).unwrap();
        symlink("link-loop", interp.join("link-loop")).unwrap();
        fs::copy(interp.join("pie"), interp.join("mode-0644")).unwrap();
        fs::set_permissions(interp.join("mode-0644"), fs::Permissions::from_mode(0o644)).unwrap();
        mknodat(
            CWD,
            interp.join("fifo"),
            FileType::Fifo,
            Mode::from_raw_mode(0o777),
            0,
        )
        .unwrap();
        let built = run(
            Command::new(env!("CARGO_BIN_EXE_xip-image"))
                .arg("build")
                .args([&root, &theatre.image()]),
            b"",
        );
        assert!(built.status.success(), "{}", text(&built.stderr));
        theatre
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn tmp(&self) -> PathBuf {
        self.dir.path().join("tmp")
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image.cramfs")
    }

    /// All files of /NAME, executed by the kernel.
    fn native(&self, dir: &str, limits: &[&str]) -> Verdicts {
        let mut command = chroot::native(&self.root(), &self.tmp());
        command.arg("/bin/verdicts").args(limits);
        verdicts(command.args(["", dir]))
    }

    /// The same in a session.
    fn session(&self, dir: &str, limits: &[&str]) -> Verdicts {
        let mut command = chroot::session(&self.image(), &self.tmp());
        command.arg("/bin/verdicts").args(limits);
        if self.is_flash {
            command.env("XIP_AS_FLASH", "1");
        }
        verdicts(command.args(["", dir]))
    }

    /// The same, each a program of its own.
    fn alone(&self, dir: &str, every: usize) -> Verdicts {
        let mut command = Command::new(self.root().join("bin/verdicts"));
        command
            .env_remove("XIP_IMAGE")
            .arg(format!("every={every}"))
            .arg(self.root())
            .arg(dir);
        command
            .args([XIP_RUN, "--no-root", "--image"])
            .arg(self.image());
        verdicts(&mut command)
    }
}

/// What the driver prints.
fn verdicts(command: &mut Command) -> Verdicts {
    let output = run(command, b"");
    assert!(
        output.status.success(),
        "{command:?}: {}: {}\n{}",
        output.status,
        text(&output.stderr),
        text(&output.stdout),
    );
    let mut all = Verdicts::new();
    for line in text(&output.stdout).lines() {
        let (is_said, rest) = match line.strip_prefix("! ") {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let (name, what) = rest.split_once(": ").unwrap();
        let verdict = all.entry(name.to_owned()).or_default();
        match is_said {
            true => verdict.said.push(what.to_owned()),
            false => verdict.seen = what.to_owned(),
        }
    }
    all
}

/// What differs between the kernel's verdicts and others, but for what is known.
fn differences(
    side: &str,
    native: &Verdicts,
    others: &Verdicts,
    is_known: impl Fn(&str, &Verdict, &Verdict) -> bool,
) -> Vec<String> {
    let mut all = Vec::new();
    for (name, other) in others {
        let native = &native[name];
        if native.seen != other.seen && !is_known(name, native, other) {
            all.push(format!(
                "{name}\n    native  {}\n    {side} {} {:?}",
                native.seen, other.seen, other.said
            ));
        }
    }
    all
}

fn can_test() -> bool {
    have_cc() && can_mount() && have("unshare") && have("chroot")
}

fn keep(theatre: &Theatre, name: &str, sides: &[(&str, &Verdicts)]) {
    let Some(dir) = std::env::var_os("XIP_ELF_KEEP").map(PathBuf::from) else {
        return;
    };
    let dir = dir.join(name);
    fs::create_dir_all(&dir).unwrap();
    let copied = Command::new("cp")
        .arg("-a")
        .arg(theatre.root())
        .arg(theatre.image())
        .arg(&dir)
        .status();
    assert!(copied.unwrap().success());
    for (side, verdicts) in sides {
        let lines: Vec<String> = verdicts
            .iter()
            .map(|(name, verdict)| format!("{name}: {} {:?}\n", verdict.seen, verdict.said))
            .collect();
        fs::write(dir.join(side), lines.concat()).unwrap();
    }
}

/// All that differs, of all three sides.
///
/// Of the files one of `every` is executed as a program of its own too: each of these is a launch.
fn all_differences(theatre: &Theatre, name: &str, every: usize, limits: &[&str]) -> Vec<String> {
    let dir = format!("/{name}");
    let sides = in_parallel(&[0, 1, 2], |side| match side {
        0 => theatre.native(&dir, limits),
        1 => theatre.session(&dir, limits),
        // The launcher itself needs more than that.
        _ if !limits.is_empty() => Verdicts::new(),
        _ => theatre.alone(&dir, every),
    });
    let [native, session, alone] = &sides[..] else {
        unreachable!()
    };
    let first = native.keys().next().unwrap().replace('/', "-");
    keep(
        theatre,
        &format!("{}{}", &first[1..], limits.concat()),
        &[("native", native), ("session", session), ("alone", alone)],
    );
    let root = theatre.root();
    let limits_data = limits.iter().any(|limit| limit.starts_with("data="));
    let mut wrong = differences("session", native, session, |name, one, other| {
        known_in_session(&root, name, one, other)
            || differs_in_bias(name, one, other)
            || limits_data && COUNTED_WHOLE.contains(&name)
    });
    wrong.extend(differences("alone  ", native, alone, |name, one, other| {
        known_alone(&root, name, one, other)
    }));
    println!(
        "{name} {limits:?}: {} files, {} of them alone",
        native.len(),
        alone.len()
    );
    assert_eq!(native.len(), session.len());
    wrong
}

fn assert_none(wrong: &[String]) {
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn files_by_hand() {
    if !can_test() {
        return;
    }
    let theatre = Theatre::new("hand", &elf_cases::cases());
    assert_none(&all_differences(&theatre, "hand", 1, &[]));
}

#[test]
fn files_by_hand_from_flash() {
    if !can_test() {
        return;
    }
    let theatre = Theatre {
        is_flash: true,
        ..Theatre::new("hand", &elf_cases::cases())
    };
    assert_none(&all_differences(&theatre, "hand", 1, &[]));
}

/// Small limits of what a program may have, which execve(2) fails by, or not.
#[test]
fn files_under_limits() {
    if !can_test() {
        return;
    }
    let theatre = Theatre::new("hand", &elf_cases::cases());
    let wrong: Vec<String> = LIMITS
        .iter()
        .flat_map(|limits| all_differences(&theatre, "hand", 1, limits))
        .collect();
    assert_none(&wrong);
}

#[test]
fn files_at_random() {
    if !can_test() {
        return;
    }
    let number =
        |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (seed, count) = (number("XIP_ELF_SEED", SEED), number("XIP_ELF_COUNT", COUNT));
    println!("XIP_ELF_SEED={seed} XIP_ELF_COUNT={count}");
    let interpreters: Vec<String> = elf_interpreters::interpreters()
        .into_iter()
        .map(|(name, _)| format!("/interp/{name}"))
        .chain(
            [
                "/interp/missing",
                "/interp",
                "/interp/mode-0644",
                "interp/pie",
            ]
            .map(str::to_owned),
        )
        .collect();
    let batches: Vec<u64> = (0..count.div_ceil(BATCH)).collect();
    let wrong: Vec<String> = batches
        .iter()
        .flat_map(|batch| {
            // A batch is the same whatever there is before it.
            let mut random = Random::new(seed << 32 | batch);
            let name_of = |number: u64| format!("{:06}", batch * BATCH + number);
            let here = BATCH.min(count - batch * BATCH);
            let files: Vec<_> = (0..here)
                .map(|number| {
                    let sibling = format!("/random/{}", name_of(random.below(here)));
                    let bytes = elf_random::file(&mut random, &interpreters, &sibling);
                    (name_of(number), bytes)
                })
                .collect();
            all_differences(&Theatre::new("random", &files), "random", ALONE, &[])
        })
        .collect();
    assert_none(&wrong);
}
