//! What a program in place costs: its text and constants are the image, and all else is as much as natively.

#[path = "common/launch.rs"]
mod launch;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use launch::{busybox_stage, waiting_shell};
use xip_run::backing::Backing;
use xip_run::cramfs::Image;
use xip_run::index::FileIndex;
use xip_run::units::PageSize;

/// A mapping of /proc/PID/smaps.
#[derive(Debug)]
struct Mapped {
    start: u64,
    end: u64,
    prot: String,
    offset: u64,
    path: String,
    anonymous_kib: u64,
}

fn mappings(pid: u32) -> Vec<Mapped> {
    let mut all: Vec<Mapped> = Vec::new();
    for line in fs::read_to_string(format!("/proc/{pid}/smaps"))
        .unwrap()
        .lines()
    {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        if let Some((start, end)) = fields[0].split_once('-') {
            let hex = |digits| u64::from_str_radix(digits, 16).unwrap();
            all.push(Mapped {
                start: hex(start),
                end: hex(end),
                prot: fields[1].into(),
                offset: hex(fields[2]),
                path: fields[5..].join(" "),
                anonymous_kib: 0,
            });
        } else if fields[0] == "Anonymous:" {
            all.last_mut().unwrap().anonymous_kib = fields[1].parse().unwrap();
        }
    }
    all
}

/// Every page of text and constants is the image's, at just the place where the file's page is.
#[test]
fn text_and_constants_are_the_image() {
    let Some(stage) = busybox_stage() else { return };
    let shell = waiting_shell(stage.xip_run().arg("/bin/busybox"), "echo ready");
    let mappings = mappings(shell.child.id());
    let image = fs::canonicalize(stage.image()).unwrap();

    let page = PageSize::of_running_kernel().unwrap();
    let backing = Arc::new(Backing::open(&image).unwrap());
    let opened = Image::open_shared(backing).unwrap();
    let inode = opened.resolve(b"/bin/busybox", true).unwrap().inode;
    let index = FileIndex::new(&opened, &inode, page).unwrap();
    let busybox = fs::read(stage.path().join("busybox")).unwrap();
    let elf = goblin::elf::Elf::parse(&busybox).unwrap();
    let mut pages = 0;
    for phdr in &elf.program_headers {
        if phdr.p_type != goblin::elf::program_header::PT_LOAD || phdr.is_write() {
            continue;
        }
        let bias = if elf.header.e_type == goblin::elf::header::ET_DYN {
            // Static PIE: its lowest mapping is where its lowest segment is.
            mappings
                .iter()
                .filter(|mapping| Path::new(&mapping.path) == image)
                .map(|mapping| mapping.start)
                .min()
                .unwrap()
        } else {
            0
        };
        let start = page.floor(phdr.p_vaddr);
        for number in 0..page.count(phdr.p_vaddr + phdr.p_filesz - start) {
            let address = bias + start + number * page.bytes();
            let mapping = mappings
                .iter()
                .find(|mapping| (mapping.start..mapping.end).contains(&address))
                .unwrap();
            let at = index.page(phdr.p_offset / page.bytes() + number).unwrap().0;
            assert_eq!(Path::new(&mapping.path), image, "{mapping:?}");
            assert_eq!(
                mapping.offset + (address - mapping.start),
                at,
                "{mapping:?}"
            );
            assert_eq!(mapping.anonymous_kib, 0, "{mapping:?}");
            assert!(!mapping.prot.contains('w'), "{mapping:?}");
            pages += 1;
        }
    }
    assert!(pages > 200, "{pages}");

    let stubs: Vec<_> = mappings
        .iter()
        .filter(|mapping| mapping.path.contains("memfd"))
        .collect();
    assert_eq!(stubs.len(), 1, "{mappings:#?}");
    assert_eq!(stubs[0].prot, "r-xp");
    let known = |path: &str| path.is_empty() || path.starts_with('[') || Path::new(path) == image;
    assert!(
        mappings
            .iter()
            .all(|mapping| known(&mapping.path) || mapping.path.contains("memfd")),
        "{mappings:#?}"
    );
}

/// The measured bar: anonymous memory of a waiting shell at most native + 16 KiB, page tables included.
#[test]
fn memory_is_that_of_a_native_process() {
    let Some(stage) = busybox_stage() else { return };
    let cost = |command: &mut Command| {
        let shell = waiting_shell(command, "echo ready");
        let pid = shell.child.id();
        let anonymous: u64 = mappings(pid)
            .iter()
            .map(|mapping| mapping.anonymous_kib)
            .sum();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let tables = status
            .lines()
            .find_map(|line| line.strip_prefix("VmPTE:"))
            .unwrap();
        let tables: u64 = tables.trim().trim_end_matches(" kB").parse().unwrap();
        println!("{anonymous} KiB anonymous, {tables} KiB of page tables: {command:?}");
        anonymous + tables
    };
    // How many page tables there are depends on where things are put at random: the median of some.
    let median = |cost: &dyn Fn() -> u64| {
        let mut costs: Vec<u64> = (0..7).map(|_| cost()).collect();
        costs.sort_unstable();
        costs[3]
    };
    let native = median(&|| {
        let mut command = Command::new(stage.path().join("busybox"));
        cost(command.arg0("/bin/busybox").env_remove("XIP_IMAGE"))
    });
    let in_place = median(&|| cost(stage.xip_run().arg("/bin/busybox")));
    println!("a waiting shell: {native} KiB native, {in_place} KiB in place");
    assert!(
        in_place <= native + 16,
        "{in_place} KiB in place, {native} KiB natively"
    );
}

#[test]
fn copy_text_runs_from_ram() {
    let Some(stage) = busybox_stage() else { return };
    let shell = waiting_shell(
        stage.xip_run().args(["--copy-text", "/bin/busybox"]),
        "echo ready",
    );
    assert_eq!(shell.line, "ready\n");
    let mappings = mappings(shell.child.id());
    let image = stage.image();
    assert!(
        mappings
            .iter()
            .all(|mapping| Path::new(&mapping.path) != image || !mapping.prot.contains('x')),
        "{mappings:#?}"
    );
}
