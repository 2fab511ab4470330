//! What RAM a number of processes of one dynamic program costs, and what the processes that serve them cost.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use xip_run::report::Observer;

use super::places::Place;
use super::rows::Shells;
use super::shared::{OrWhy, median};

/// RAM of some sleeping processes; in bytes, of all of them together.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Memory {
    pub(crate) anonymous_bytes: u64,
    pub(crate) page_table_bytes: u64,
    /// Of the session memfds.
    pub(crate) session_bytes: u64,
    /// The sum of these: what is gone when the processes are.
    pub(crate) own_bytes: u64,
    /// Pages of files that they have mapped and present, each counted once.
    pub(crate) cache_bytes: u64,
    /// Of the processes that serve them: the view's server, or proot. Their own, and the files that they map.
    pub(crate) helper_bytes: u64,
    /// All of it.
    pub(crate) all_bytes: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct MemoryRow {
    pub(crate) instances: u64,
    pub(crate) place: Place,
    pub(crate) figures: OrWhy<Memory>,
}

impl MemoryRow {
    /// What each process has to itself, without its part of what its session has: bytes.
    pub(crate) fn process_bytes_each(&self) -> Option<f64> {
        let memory = self.figures.as_ref().ok()?;
        let bytes = memory.anonymous_bytes + memory.page_table_bytes;
        Some(bytes as f64 / self.instances as f64)
    }

    /// What each process has to itself, and its part of what its session has: bytes.
    pub(crate) fn own_bytes_each(&self) -> Option<f64> {
        let memory = self.figures.as_ref().ok()?;
        Some(memory.own_bytes as f64 / self.instances as f64)
    }
}

/// The server of a view; in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Server {
    pub(crate) resident_bytes: u64,
    pub(crate) anonymous_bytes: u64,
}

/// Measures `instances` processes in each place; medians of some starts.
pub(crate) fn memory(shells: &mut Shells<'_>, instances: u64, starts: usize) -> Vec<MemoryRow> {
    let mut rows = Vec::new();
    for place in [Place::Native, Place::Session, Place::Proot] {
        if place == Place::Proot && !shells.tree.has_proot {
            continue;
        }
        let all: Result<Vec<Memory>> = (0..starts)
            .map(|_| sleeping(shells, place, instances))
            .collect();
        let figures = all.map_err(|err| format!("{err:#}")).map(|all| {
            let of = |figure: fn(&Memory) -> u64| {
                median(all.iter().map(|one| figure(one) as f64)) as u64
            };
            Memory {
                anonymous_bytes: of(|one| one.anonymous_bytes),
                page_table_bytes: of(|one| one.page_table_bytes),
                session_bytes: of(|one| one.session_bytes),
                own_bytes: of(|one| one.own_bytes),
                cache_bytes: of(|one| one.cache_bytes),
                helper_bytes: of(|one| one.helper_bytes),
                all_bytes: of(|one| one.all_bytes),
            }
        });
        rows.push(MemoryRow {
            instances,
            place,
            figures,
        });
    }
    rows
}

fn sleeping(shells: &mut Shells<'_>, place: Place, instances: u64) -> Result<Memory> {
    let image = shells.tree.image();
    shells.with(place, |shell| {
        let command = format!("/bin/bench instances {instances} /bin/instance sleep");
        shell.begin(&command)?;
        let pids = shell.line()?;
        let mut observer = Observer::default();
        let mut sum = Memory::default();
        for pid in pids.split_ascii_whitespace() {
            let pid = pid.parse().with_context(|| format!("{command}: {pids}"))?;
            let totals = observer.observe(pid)?.totals;
            sum.anonymous_bytes += totals.anonymous_bytes;
            sum.page_table_bytes += totals.page_table_bytes;
            sum.own_bytes += totals.ram_alone_bytes;
            // Shares of pages that no others map: together they are the pages.
            sum.cache_bytes += totals.ram_with_share_bytes - totals.ram_alone_bytes;
        }
        sum.session_bytes = sum.own_bytes - sum.anonymous_bytes - sum.page_table_bytes;
        let helper = match place {
            Place::Session => server_pid(&image),
            // What was started is proot, which started the shell.
            Place::Proot => Some(shell.pid()),
            _ => None,
        };
        if let Some(pid) = helper {
            sum.helper_bytes = observer.observe(pid)?.totals.ram_with_share_bytes;
        }
        sum.all_bytes = sum.own_bytes + sum.cache_bytes + sum.helper_bytes;
        shell.write("\n")?;
        shell.end(&command)?;
        Ok(sum)
    })
}

/// The process that serves the view of an image.
fn server_pid(image: &Path) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut servers = processes
        .map(|process| process.path())
        .filter(|process| fs::read(process.join("comm")).is_ok_and(|name| name == b"xip-view\n"))
        .filter(|process| {
            fs::read_dir(process.join("fd")).is_ok_and(|fds| {
                fds.flatten()
                    .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == image))
            })
        });
    servers.next()?.file_name()?.to_str()?.parse().ok()
}

/// What the server of the session's view costs now.
pub(crate) fn server(shells: &Shells<'_>) -> Option<Server> {
    let pid = server_pid(&shells.tree.image())?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let bytes = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib * 1024)
    };
    Some(Server {
        resident_bytes: bytes("VmRSS:")?,
        anonymous_bytes: bytes("RssAnon:")?,
    })
}
