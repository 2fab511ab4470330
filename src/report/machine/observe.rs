//! Looks at a live machine: which of its processes run in place, and what all of them cost.

use std::collections::HashMap;
use std::io::{self, ErrorKind};

use super::{Heat, Machine};
use crate::error::Result;
use crate::report::classify::MappedFile;
use crate::report::files::{FileSums, Seen};
use crate::report::memory;
use crate::report::pages::View;
use crate::report::proc::{Proc, processes};
use crate::report::process::{FileKey, Known, Observer, OpenImage};
use crate::report::session::{cost, see};
use crate::report::session_memfd::{self, Identity};
use crate::report::smaps::{self, Mapping};
use crate::trace::Trace;
use crate::units::PageSize;
use crate::view::SERVER_NAME;

/// What a first look at the machine found.
#[derive(Default)]
struct Scan {
    /// Processes that may run in place.
    candidates: Vec<u32>,
    servers: Vec<u32>,
    /// The session memfds that each process uses.
    memfds: Vec<Vec<Identity>>,
    /// Processes that may not be looked at.
    hidden: usize,
    /// May the mapping of such a file be in place?
    in_place: HashMap<FileKey, bool>,
    /// What was opened to find that out.
    files: HashMap<FileKey, MappedFile>,
}

/// A process that was looked at.
struct Looked {
    seen: Seen,
    /// The device of the view that it has as its root.
    view: Option<(u32, u32)>,
    /// Its image, if that is known.
    image: Option<OpenImage>,
}

impl Observer {
    /// Measures all processes that run in place: those that xip-run started, and those that map an image, a DAX file or
    /// flash by other means. With `files` their pages are looked at one by one, and counted by the files that they map.
    ///
    /// Processes that end while this looks are left out; those that may not be looked at are a note.
    pub fn observe_machine(&mut self, files: bool) -> Machine {
        let before = memory::now();
        let mut scan = Scan::default();
        for pid in processes() {
            if let Err(err) = self.glance(pid, &mut scan)
                && err.kind() == ErrorKind::PermissionDenied
            {
                scan.hidden += 1;
            }
        }
        let mut reports = Vec::new();
        let mut seen = Vec::new();
        for &pid in &scan.candidates {
            // One that has ended is not missed.
            let Ok(looked) = self.look_in(pid, &scan, files) else {
                continue;
            };
            let report = &looked.seen.report;
            if report.totals.in_place_bytes() > 0 || report.totals.started_by_xip_run() {
                reports.push(report.clone());
                seen.push(looked);
            }
        }
        let servers = scan.servers.iter();
        let servers = servers.filter_map(|&pid| self.look(pid, &Known::default()).ok());
        let servers = servers.map(|observed| cost(&observed)).collect();
        let mut machine = Machine::new(&reports, servers, [before, memory::now()]);
        if scan.hidden > 0 {
            machine.notes.push(format!(
                "processes of this system that may not be looked at: {}; any of them that runs in place is missing here",
                scan.hidden
            ));
        }
        if files {
            machine.files = PageSize::of_running_kernel().ok().map(|page| {
                let mut sums = FileSums::new(page);
                for looked in &seen {
                    sums.add(&looked.seen, View::new(looked.view, looked.image.as_ref()));
                }
                machine.heat = self.heat(&sums, page);
                sums.rows(|files| self.name_of(files))
            });
        }
        machine
    }

    /// How many processes have touched each page of the images that they map.
    fn heat(&self, sums: &FileSums<'_>, page: PageSize) -> Vec<Heat> {
        let images = self.images().filter_map(|open| {
            let mut touched = Trace::new(page);
            touched.files = sums.touched(&open.files);
            touched.runs = touched
                .files
                .values()
                .flat_map(|pages| pages.values())
                .copied()
                .max()?;
            Some(Heat {
                path: open.path.clone(),
                image: open.image.clone(),
                touched,
            })
        });
        let mut images: Vec<Heat> = images.collect();
        images.sort_by(|one, other| one.path.cmp(&other.path));
        images
    }

    /// Notes what a process is, by its maps alone: cheap, as there may be thousands.
    fn glance(&mut self, pid: u32, scan: &mut Scan) -> io::Result<()> {
        let Ok(proc) = Proc::open(pid) else {
            return Ok(());
        };
        let maps = proc.read_raw("maps")?;
        let mappings: Vec<Mapping> = smaps::parse_maps(&maps).collect();
        let memfds = session_memfd::used(&proc, &mappings);
        let is_ours = !memfds.is_empty();
        scan.memfds.push(memfds);
        if proc.read_raw("comm")?.trim_ascii_end() == SERVER_NAME.as_bytes() {
            scan.servers.push(pid);
            return Ok(());
        }
        if is_ours || self.maps_in_place(&proc, &mappings, scan) {
            scan.candidates.push(pid);
        }
        Ok(())
    }

    fn maps_in_place(&mut self, proc: &Proc, mappings: &[Mapping], scan: &mut Scan) -> bool {
        mappings.iter().any(|mapping| {
            if mapping.inode == 0 && !mapping.path.starts_with(b"/") {
                return false;
            }
            let key = (mapping.device, mapping.inode);
            if let Some(&known) = scan.in_place.get(&key) {
                return known;
            }
            // Opening a file of a view costs its server.
            let can_be = self.served_view(proc) != Some(mapping.device)
                && self.can_be_in_place(proc, mapping, scan);
            scan.in_place.insert(key, can_be);
            can_be
        })
    }

    fn can_be_in_place(&mut self, proc: &Proc, mapping: &Mapping, scan: &mut Scan) -> bool {
        let path = mapping.path.as_slice();
        let in_ram = [&b"/dev/zero"[..], b"/dev/shm/", b"/memfd:", b"/SYSV"];
        if in_ram.iter().any(|start| path.starts_with(start)) {
            return false;
        }
        // Only smaps tells whether a device is mapped by its physical pages.
        if path.starts_with(b"/dev/") || path.starts_with(b"/sys/") {
            return true;
        }
        let Ok(file) = proc.open_mapped(mapping) else {
            return false;
        };
        let by_kernel = rustix::fs::fstatfs(&file)
            .is_ok_and(|fs| fs.f_type as u32 == crate::cramfs::format::MAGIC);
        let file = self.describe(&file, "", &mut Vec::new());
        let can_be = by_kernel || file.is_image || file.dax;
        scan.files.insert((mapping.device, mapping.inode), file);
        can_be
    }

    /// Looks at a process; with `pages` at every page of files that it maps.
    fn look_in(&mut self, pid: u32, scan: &Scan, pages: bool) -> Result<Looked> {
        let known = Known {
            memfds: Some(&scan.memfds),
            files: Some(&scan.files),
            ..Known::default()
        };
        let observed = self.look_in_view(pid, known)?;
        Ok(Looked {
            view: observed.view,
            image: match pages {
                true => self.image_of_view(&observed),
                false => None,
            },
            seen: match pages {
                true => see(&observed)?,
                false => Seen::unseen(observed.report),
            },
        })
    }
}
