//! samples/*.c: every program does in place what it does natively, and what its header says.

mod common {
    pub mod launch;
    pub mod sample;
}

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;

use common::launch::{Stage, copy_program, have_cc, in_parallel, run, text};
use common::sample::{Sample, ending, samples};
use xip_run::backing::Backing;
use xip_run::cramfs::Image;
use xip_run::index::FileIndex;
use xip_run::units::PageSize;

#[test]
fn samples_run_in_place_as_they_run_natively() {
    if !have_cc() {
        return;
    }
    let only = std::env::var("XIP_SAMPLE").ok();
    let mut samples = samples("");
    samples.retain(|sample| only.as_ref().is_none_or(|name| *name == sample.name));
    assert!(!samples.is_empty());

    let failures: Vec<String> = in_parallel(&samples, |sample| {
        let failures = check(sample);
        println!(
            "{} ({}): {}",
            sample.name,
            sample.layout,
            if failures.is_empty() { "ok" } else { "FAILED" }
        );
        let named = failures
            .into_iter()
            .map(|failure| format!("{} ({}): {failure}", sample.name, sample.layout));
        named.collect::<Vec<_>>()
    })
    .concat();
    println!("{} programs", samples.len());
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Compiles, builds, runs and compares; returns what is wrong.
fn check(sample: &Sample) -> Vec<String> {
    let compiled = match sample.compile() {
        Ok(program) => program,
        Err(failure) => return vec![failure],
    };
    let stage = Stage::new();
    let linked = stage.path().join("linked");
    copy_program(&compiled, &linked);
    if let Some(change) = &sample.elf {
        change_elf(&linked, change);
    }
    let program = stage.add_program(&linked, &sample.name);
    stage.build(&sample.build);
    if let Some(change) = &sample.image {
        assert_eq!(change, "bytes-after-the-file");
        put_bytes_after_the_file(&stage, &program);
    }

    let mut native = Command::new(&program);
    let mut in_place = stage.xip_run();
    in_place.arg(&program);
    for command in [&mut native, &mut in_place] {
        command.args(&sample.args);
        if let Some(env) = &sample.env {
            command.env_clear().envs(env.iter().cloned());
        }
    }
    let native = run(&mut native, sample.stdin.as_bytes());
    let in_place = run(&mut in_place, sample.stdin.as_bytes());

    let mut failures = Vec::new();
    let mut expect = |what: &str, expected: String, found: String| {
        if expected != found {
            failures.push(format!("{what} is {found:?}, not {expected:?}"));
        }
    };
    expect(
        "the native status",
        sample.exit.clone(),
        ending(native.status),
    );
    expect(
        "the native stdout",
        sample.stdout.clone(),
        text(&native.stdout),
    );
    expect(
        "the status in place",
        ending(native.status),
        ending(in_place.status),
    );
    expect(
        "stdout in place",
        text(&native.stdout),
        text(&in_place.stdout),
    );
    expect(
        "stderr in place",
        text(&native.stderr),
        text(&in_place.stderr),
    );
    if !sample.plan.is_empty() {
        let plan = stage.explain(&program);
        let wrong = sample
            .plan
            .iter()
            .filter_map(|fact| check_plan(&plan, fact));
        failures.extend(wrong);
    }
    failures
}

/// Holds the plan of the program (not of its interpreter) against a fact: what is wrong, `None` if nothing.
///
/// `direct=`, `cow=`, `copied=`, `zero=` count pages, `cleared=` the mappings with a tail to be cleared; `>=` is a lower
/// bound; `copied=all` says that nothing is direct. `reason=` is one that must be given, `stack=exec` speaks for itself.
fn check_plan(plan: &Value, fact: &str) -> Option<String> {
    let program = &plan["program"];
    let mappings = program["mappings"].as_array().unwrap();
    let page = plan["page_bytes"].as_u64().unwrap();
    let number = |value: &Value| value.as_u64().unwrap();
    let pages = |source: &str| -> u64 {
        let of_source = mappings
            .iter()
            .filter(|mapping| mapping["source"] == source);
        of_source
            .map(|mapping| (number(&mapping["end"]) - number(&mapping["start"])) / page)
            .sum()
    };
    let (key, wanted) = fact.split_once('=').unwrap();
    let (key, at_least) = match key.strip_suffix('>') {
        Some(key) => (key, true),
        None => (key, false),
    };
    let found = match key {
        "direct" | "zero" => pages(key),
        "cow" => pages("copy-on-write"),
        "copied" if wanted == "all" => {
            let all = pages("direct") + pages("copy-on-write") == 0 && pages("copied") > 0;
            return (!all).then(|| format!("not all is copied:{}", shown(program)));
        }
        "copied" => pages("copied"),
        "cleared" => mappings
            .iter()
            .filter(|mapping| !mapping["cleared_from"].is_null())
            .count() as u64,
        "reason" => {
            let given = mappings.iter().any(|mapping| mapping["reason"] == wanted);
            return (!given)
                .then(|| format!("the plan gives no reason {wanted}:{}", shown(program)));
        }
        "stack" => {
            return (program["stack_exec"] != true)
                .then(|| "the plan's stack is not executable".into());
        }
        _ => panic!("unknown fact {fact}"),
    };
    let wanted: u64 = wanted.parse().unwrap();
    let right = found == wanted || at_least && found > wanted;
    (!right).then(|| format!("the plan has {key}={found}, not {fact}:{}", shown(program)))
}

/// Changes a linked program, ELF64 little-endian: elf(5).
fn change_elf(path: &Path, change: &str) {
    let mut bytes = fs::read(path).unwrap();
    let (phoff, phnum, ends) = {
        let elf = goblin::elf::Elf::parse(&bytes).unwrap();
        let loads = elf
            .program_headers
            .iter()
            .filter(|phdr| phdr.p_type == goblin::elf::program_header::PT_LOAD);
        let ends: Vec<u64> = loads.map(|phdr| phdr.p_offset + phdr.p_filesz).collect();
        (
            elf.header.e_phoff as usize,
            usize::from(elf.header.e_phnum),
            ends,
        )
    };
    match change {
        // The file ends with its last segment.
        "no-sections" => {
            bytes.truncate(ends.into_iter().max().unwrap() as usize);
            bytes[0x28..0x30].fill(0); // e_shoff
            bytes[0x3c..0x40].fill(0); // e_shnum, e_shstrndx
        }
        // The program headers go behind everything else, and out of every segment.
        "phdrs-at-end" => {
            let table = bytes[phoff..phoff + phnum * 56].to_vec();
            bytes.resize(bytes.len().next_multiple_of(4096), 0);
            let at = bytes.len() as u64;
            bytes.extend(table);
            bytes[0x20..0x28].copy_from_slice(&at.to_le_bytes());
        }
        _ => panic!("unknown change {change}"),
    }
    // Not the name that is executed: that one is a copy which no descriptor is open on.
    fs::write(path, bytes).unwrap();
}

/// Fills the rest of the file's last page in the image, as an image maker does that packs files tightly.
fn put_bytes_after_the_file(stage: &Stage, program: &Path) {
    let page = PageSize::of_running_kernel().unwrap();
    let backing = Arc::new(Backing::open(&stage.image()).unwrap());
    let image = Image::open_shared(backing).unwrap();
    let inode = image
        .resolve(program.as_os_str().as_encoded_bytes(), true)
        .unwrap()
        .inode;
    let index = FileIndex::new(&image, &inode, page).unwrap();
    let last = index
        .page(page.count(inode.size) - 1)
        .expect("the last page is direct");
    let used = page.offset(inode.size);
    assert_ne!(used, 0, "the file's size is a multiple of the page's");
    let foreign = vec![b'X'; (page.bytes() - used) as usize];
    let file = fs::OpenOptions::new()
        .write(true)
        .open(stage.image())
        .unwrap();
    file.write_all_at(&foreign, last.0 + used).unwrap();
}

/// The mappings of a plan, a line each.
fn shown(program: &Value) -> String {
    let mut lines = String::new();
    for mapping in program["mappings"].as_array().unwrap() {
        let number = |key: &str| mapping[key].as_u64().unwrap_or(0);
        let (start, end) = (number("start"), number("end"));
        let text = |key: &str| mapping[key].as_str().unwrap_or_default();
        lines.push_str(&format!(
            "\n  {start:x}-{end:x} {} {} {}",
            text("prot"),
            text("source"),
            text("reason")
        ));
    }
    lines
}
