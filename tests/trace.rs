//! xip-run --trace: the pages that a session touches, exactly these, and added up over runs.

mod common {
    pub mod launch;
    pub mod mounted;
    pub mod pages;
}

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::launch::{Stage, XIP_RUN, run, text};
use common::mounted::can_mount;
use common::pages;
use goblin::elf::Elf;
use xip_run::trace::Trace;

const PAGE: u64 = 4096;
const PROGRAM: &str = "/bin/pages";

/// samples/pages.c in an image, and the program here.
fn stage(options: &[&str]) -> Option<(Stage, PathBuf)> {
    if !can_mount() {
        return None;
    }
    let program = pages::program()?;
    let stage = Stage::new();
    stage.add_at(&program, Path::new(PROGRAM));
    for dir in ["proc", "dev", "tmp"] {
        std::fs::create_dir(stage.in_root(Path::new(dir))).unwrap();
    }
    stage.build(options);
    Some((stage, program))
}

/// Runs the program, and waits until the trace has this many runs.
fn trace(stage: &Stage, touched: [u64; 3], runs: u64) -> Trace {
    let path = stage.path().join("trace");
    let out = run(
        Command::new(XIP_RUN)
            .env_remove("XIP_IMAGE")
            .arg("--trace")
            .arg(&path)
            .arg("--image")
            .arg(stage.image())
            .arg(PROGRAM)
            .args(touched.map(|number| number.to_string())),
        b"",
    );
    assert_eq!(text(&out.stdout), "ready\n", "{}", text(&out.stderr));
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let text = std::fs::read_to_string(&path).unwrap();
        match Trace::parse(&text) {
            Ok(trace) if trace.runs == runs => return trace,
            _ => assert!(Instant::now() < end, "{text}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The pages of a file that a symbol has.
fn pages_of(program: &Path, symbol: &str) -> Vec<u64> {
    let bytes = std::fs::read(program).unwrap();
    let elf = Elf::parse(&bytes).unwrap();
    let found = elf
        .syms
        .iter()
        .find(|it| elf.strtab.get_at(it.st_name) == Some(symbol));
    let found = found.unwrap();
    let load = elf.program_headers.iter().find(|load| {
        load.p_type == 1 && (load.p_vaddr..load.p_vaddr + load.p_filesz).contains(&found.st_value)
    });
    let load = load.unwrap();
    let first = (found.st_value - load.p_vaddr + load.p_offset) / PAGE;
    let count = if symbol == "text" {
        64
    } else {
        found.st_size / PAGE
    };
    (first..first + count).collect()
}

#[test]
fn a_trace_has_the_pages_that_were_touched_and_no_others() {
    // Whether the image could map them or not: this is what a builder wants to know.
    for options in [&[][..], &["--xip=none"]] {
        let Some((stage, program)) = stage(options) else {
            return;
        };
        let texts = pages_of(&program, "text");
        let datas = pages_of(&program, "data");
        assert_eq!((texts.len(), datas.len()), (64, 32));
        let touched = |trace: &Trace, of: &[u64]| -> Vec<u64> {
            of.iter()
                .map(|&page| trace.runs_of(PROGRAM.as_bytes(), page))
                .collect()
        };
        let first = trace(&stage, [21, 3, 4], 1);
        assert_eq!(first.page.bytes(), PAGE);
        let mut expected = vec![0; 64];
        expected[..21].fill(1);
        assert_eq!(touched(&first, &texts), expected, "{first}");
        let mut expected = vec![0; 32];
        expected[..3].fill(1);
        assert_eq!(touched(&first, &datas)[..31], expected[..31], "{first}");
        // Beside them: headers, and the page with the program's own code.
        let rest: BTreeSet<u64> = first.files[PROGRAM.as_bytes()].keys().copied().collect();
        let known: BTreeSet<u64> = texts.iter().chain(&datas).copied().collect();
        assert!(rest.difference(&known).count() <= 4, "{first}");
        assert_eq!(first.files.len(), 1, "{first}");

        let both = trace(&stage, [2, 30, 0], 2);
        let mut expected = vec![0; 64];
        expected[..21].fill(1);
        expected[..2].fill(2);
        assert_eq!(touched(&both, &texts), expected, "{both}");
        assert_eq!(touched(&both, &datas)[..4], [2, 2, 2, 1]);
    }
}

#[test]
fn what_is_no_trace_is_left_alone() {
    let Some((stage, _)) = stage(&[]) else { return };
    let path = stage.path().join("precious");
    std::fs::write(&path, "my notes\n").unwrap();
    let with = |options: &[&str]| {
        let mut command = Command::new(XIP_RUN);
        command
            .arg("--trace")
            .arg(&path)
            .args(options)
            .arg("--image")
            .arg(stage.image());
        run(command.args([PROGRAM, "0", "0", "0"]), b"")
    };
    let refused = with(&[]);
    assert_eq!(refused.status.code(), Some(125));
    let says = text(&refused.stderr);
    assert!(
        says.contains("precious: line 1: not `xip-run trace 1`"),
        "{says}"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "my notes\n");
    for option in ["--no-root", "--copy-text"] {
        let refused = with(&[option]);
        assert_eq!(refused.status.code(), Some(125), "{option}");
        assert!(
            text(&refused.stderr).contains("cannot be used with"),
            "{option}"
        );
    }
}
