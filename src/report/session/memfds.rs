//! The session memfds of a session, each once.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use super::{Memfd, server};
use crate::cramfs::show_name;
use crate::report::classify::SESSION_MEMFD;
use crate::report::process::Observed;

/// Device and inode, as stat(2) and smaps show them: they are the same for a memfd.
type Identity = ((u32, u32), u64);

/// What processes execute or map.
#[derive(Default)]
pub(super) struct Memfds(BTreeMap<Identity, Found>);

#[derive(Default)]
struct Found {
    name: String,
    /// `None` if the memfd was seen in a mapping only, and could not be looked at.
    allocated_bytes: Option<u64>,
    processes: u64,
}

impl Memfds {
    /// Adds those of a process.
    pub(super) fn add(&mut self, process: &Observed) {
        let pid = process.proc.pid;
        let mut of_process: BTreeMap<Identity, (String, Option<u64>)> = BTreeMap::new();
        let exe = format!("/proc/{pid}/exe");
        if let (Ok(path), Ok(stat)) = (std::fs::read_link(&exe), std::fs::metadata(&exe))
            && let Some(name) = session_name(path.as_os_str().as_bytes())
        {
            of_process.insert(identity(&stat), (name, Some(stat.blocks() * 512)));
        }
        for mapping in &process.mappings {
            let Some(name) = session_name(&mapping.path) else {
                continue;
            };
            let key = (mapping.device, mapping.inode);
            of_process.entry(key).or_insert_with(|| {
                // Already known of another process, or to be had by the mapping, or by a descriptor.
                let known = self.0.get(&key).and_then(|found| found.allocated_bytes);
                let allocated = known.or_else(|| {
                    let range = format!("{:x}-{:x}", mapping.start, mapping.end);
                    let stat = std::fs::metadata(format!("/proc/{pid}/map_files/{range}")).ok();
                    let stat = stat.or_else(|| {
                        let mut descriptors = server::descriptors(pid);
                        Some(descriptors.find(|(_, stat)| identity(stat) == key)?.1)
                    });
                    Some(stat?.blocks() * 512)
                });
                (name, allocated)
            });
        }
        for (key, (name, allocated_bytes)) in of_process {
            let found = self.0.entry(key).or_default();
            found.name = name;
            found.allocated_bytes = found.allocated_bytes.or(allocated_bytes);
            found.processes += 1;
        }
    }

    /// All of them, with a note on those whose size is not known.
    pub(super) fn found(self, notes: &mut Vec<String>) -> Vec<Memfd> {
        let memfds = self.0.into_values().map(|found| {
            if found.allocated_bytes.is_none() {
                notes.push(format!(
                    "{}: what this memfd takes is not to be seen, and not in the sums; root can tell",
                    found.name
                ));
            }
            Memfd {
                name: found.name,
                allocated_bytes: found.allocated_bytes.unwrap_or(0),
                processes: found.processes,
            }
        });
        memfds.collect()
    }
}

fn identity(stat: &Metadata) -> Identity {
    let device = stat.dev();
    let numbers = (rustix::fs::major(device), rustix::fs::minor(device));
    (numbers, stat.ino())
}

/// The name of a session memfd, by the path that /proc shows.
fn session_name(path: &[u8]) -> Option<String> {
    let name = path.strip_prefix(b"/memfd:")?;
    let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
    name.starts_with(SESSION_MEMFD.as_bytes())
        .then(|| show_name(name))
}
