//! What several tests share: the golden images, tools that may be absent, images written byte by byte.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test crate uses its own part"
)]

pub mod image_bytes;
pub mod oracle;
pub mod storing;

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use xip_run::backing::ReadAt;
use xip_run::cramfs::{Image, Inode, InodeKind};

/// The golden images, by the reference tool; see TREE and SHA256SUMS beside them.
pub const GOLDEN: [&str; 10] = [
    "plain",
    "ext",
    "holes",
    "holes-ext",
    "pad512",
    "big-endian",
    "big-endian-ext",
    "squashed-owner",
    "xip-mmu",
    "xip-nommu",
];

/// A file of tests/golden.
pub fn golden_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// The bytes of a golden image.
pub fn golden_bytes(name: &str) -> Vec<u8> {
    std::fs::read(golden_path(&format!("{name}.cramfs"))).unwrap()
}

/// A golden image.
pub fn golden(name: &str) -> Image {
    Image::open(golden_bytes(name)).unwrap()
}

/// Is the tool here? If not, says that the test is skipped, and for want of what; where `CI` is set, fails.
pub fn have_tool(name: &str) -> bool {
    let found = std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(name).is_file());
    assert!(
        found || std::env::var_os("CI").is_none(),
        "{name} is not installed, and CI may skip nothing"
    );
    if !found {
        println!("skipped: {name} is not installed");
    }
    found
}

/// A command for a tool that [`have_tool`] found: sbin included, whoever runs the tests.
pub fn tool(name: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("env");
    command
        .arg(format!("PATH={path}:/usr/sbin:/sbin"))
        .arg(name);
    command
}

/// Every inode of an honest image with its path (`bin/sh`; the root is the empty one), depth first.
pub fn tree(image: &Image) -> Vec<(Vec<u8>, Inode)> {
    fn walk(image: &Image, path: &[u8], inode: Inode, out: &mut Vec<(Vec<u8>, Inode)>) {
        out.push((path.to_vec(), inode));
        if inode.kind != InodeKind::Directory {
            return;
        }
        for entry in image.entries(&inode).unwrap() {
            let mut path = path.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&entry.name);
            walk(image, &path, entry.inode, out);
        }
    }
    let mut out = Vec::new();
    walk(image, b"", image.root(), &mut out);
    out
}

/// Bytes that differ from page to page, never zero at a 4 KiB page's end, hard to compress.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 24) as u8 | 1
        })
        .collect()
}

/// What this thread has used of a processor: unlike the time by the clock, no matter of what else the machine does.
pub fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Counts the reads of an image: each stands for one pread(2).
#[derive(Clone)]
pub struct Counted {
    bytes: Arc<Vec<u8>>,
    reads: Arc<AtomicUsize>,
}

impl Counted {
    /// Counts from 0.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Arc::new(bytes),
            reads: Arc::default(),
        }
    }

    /// How many there were; those of no bytes are no system calls.
    pub fn reads(&self) -> usize {
        self.reads.load(Relaxed)
    }
}

impl ReadAt for Counted {
    fn len_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.reads.fetch_add(usize::from(!buf.is_empty()), Relaxed);
        self.bytes.as_slice().read_exact_at(buf, at)
    }
}

/// The configuration of every property test: `XIP_FUZZ_CASES` cases, else `default`; nothing is written to the tree.
pub fn cases(default: u32) -> proptest::test_runner::Config {
    let cases = std::env::var("XIP_FUZZ_CASES").map_or(default, |cases| {
        cases.parse().expect("XIP_FUZZ_CASES is a number")
    });
    proptest::test_runner::Config {
        cases,
        failure_persistence: None,
        ..Default::default()
    }
}
