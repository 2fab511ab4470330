//! What /proc says of the processes of a session, by other means than the library's.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test crate uses its own part"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::mapped::Mapped;
use super::session::{Map, PAGE, Waiting, bytes, maps};

/// What of an object is in place: from flash, from the page cache, or from tmpfs, wherever the test's image lies.
pub fn in_place(sources: &Value, what: &str) -> u64 {
    ["flash", "image_cache", "image_tmpfs"]
        .iter()
        .map(|source| bytes(&sources[source][what]))
        .sum()
}

/// The session's processes with their mappings, and what tells image and view in these.
pub struct Facts {
    pub processes: BTreeMap<u32, Vec<Map>>,
    pub image: (u64, u64),
    pub view_device: u64,
}

impl Facts {
    pub fn of(session: &Waiting, image: &Path) -> Self {
        let root = fs::metadata(format!("/proc/{}/root", session.pid())).unwrap();
        Self {
            processes: session.pids.iter().map(|&pid| (pid, maps(pid))).collect(),
            image: Mapped::new(image).identity(),
            view_device: root.dev(),
        }
    }

    pub fn of_image(&self, pid: u32) -> impl Iterator<Item = &Map> {
        self.processes[&pid]
            .iter()
            .filter(|map| map.is_of(self.image))
    }

    pub fn of_view(&self, pid: u32) -> impl Iterator<Item = &Map> {
        let maps = self.processes[&pid].iter();
        maps.filter(|map| map.dev == self.view_device)
    }

    pub fn all(&self) -> impl Iterator<Item = &Map> {
        self.processes.values().flatten()
    }

    /// How many different page frames hold the file pages of some mappings, in bytes.
    pub fn frames<'a>(maps: impl Iterator<Item = &'a Map>) -> u64 {
        let frames: BTreeSet<u64> = maps
            .flat_map(|map| map.file_pages().map(|(_, frame)| frame))
            .collect();
        assert!(!frames.contains(&0), "root sees page frame numbers");
        frames.len() as u64 * PAGE
    }

    /// How many different page frames of anonymous memory the session has, in bytes: by /proc/kpageflags.
    pub fn anonymous_frames(&self) -> u64 {
        const KPF_ANON: u64 = 1 << 12;
        let flags = File::open("/proc/kpageflags").unwrap();
        let mut frames = BTreeSet::new();
        for entry in self.all().flat_map(|map| &map.pages) {
            let frame = entry & ((1 << 55) - 1);
            if entry >> 61 == 0b100 && !frames.contains(&frame) {
                let mut word = [0; 8];
                flags.read_exact_at(&mut word, frame * 8).unwrap();
                if u64::from_ne_bytes(word) & KPF_ANON != 0 {
                    frames.insert(frame);
                }
            }
        }
        frames.len() as u64 * PAGE
    }

    /// RAM of the session memfds that processes map or have as descriptors, each once.
    pub fn memfd_bytes(&self) -> u64 {
        let mut memfds = BTreeMap::new();
        for (pid, maps) in &self.processes {
            let mapped = maps
                .iter()
                .filter(|map| map.path.starts_with("/memfd:xip-run:"))
                .map(|map| format!("/proc/{pid}/map_files/{:x}-{:x}", map.start, map.end).into());
            let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
            let fds = fds.map(|fd| fd.unwrap().path());
            for path in mapped.chain(fds) {
                let to: PathBuf = fs::read_link(&path).unwrap();
                if to.to_string_lossy().starts_with("/memfd:xip-run:") {
                    let stat = fs::metadata(path).unwrap();
                    memfds.insert((stat.dev(), stat.ino()), stat.blocks() * 512);
                }
            }
        }
        assert_eq!(
            memfds.len(),
            2,
            "the resident one and the one that is executed"
        );
        memfds.values().sum()
    }
}
