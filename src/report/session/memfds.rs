//! The session memfds of a session, each once.

use std::collections::BTreeMap;

use super::Memfd;
use crate::report::session_memfd::{Identity, Memfds};

/// What the processes of a session have.
#[derive(Default)]
pub(in crate::report) struct AllMemfds(BTreeMap<Identity, Memfd>);

impl AllMemfds {
    /// Adds those of a process, with a note on one whose size is not known.
    pub(in crate::report) fn add(&mut self, of_process: &Memfds, notes: &mut Vec<String>) {
        for (&key, memfd) in of_process.iter() {
            let all = self.0.entry(key).or_insert_with(|| {
                if memfd.allocated_bytes.is_none() {
                    notes.push(format!(
                        "{}: what this memfd takes is not to be seen, and not in the sums; root can tell",
                        memfd.name
                    ));
                }
                Memfd {
                    name: memfd.name.clone(),
                    allocated_bytes: memfd.allocated_bytes.unwrap_or(0),
                    processes: 0,
                }
            });
            all.processes += 1;
        }
    }

    /// All of them.
    pub(in crate::report) fn found(self) -> Vec<Memfd> {
        self.0.into_values().collect()
    }
}
