//! Several processes as one: what RAM all of them cost together, each page once.

use serde::{Deserialize, Serialize};

use super::files::{File, FileSums};
use super::pages::View;
use super::process::{Known, Observer, OpenImage};
use super::session::{AllMemfds, cost, find_server, root_view, see};
use crate::error::Result;
use crate::units::PageSize;

/// The RAM of several processes, each page once; in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ram {
    /// Anonymous memory; pages that are shared since a fork once.
    pub anonymous_bytes: u64,
    /// Page tables.
    pub page_table_bytes: u64,
    /// Session memfds: what xip-run itself costs.
    pub stub_bytes: u64,
    /// Anonymous memory and page tables of the servers of their views.
    pub server_bytes: u64,
    /// Mapped in place from flash: no RAM.
    pub flash_bytes: u64,
    /// Mapped in place from an image in the page cache or in tmpfs.
    pub image_cache_mapped_bytes: u64,
    /// Of that, touched: RAM.
    pub image_cache_bytes: u64,
    /// Other page cache and shared memory that they have touched, the servers' programs not counted.
    pub other_cache_bytes: u64,
}

impl Ram {
    /// What is theirs alone: anonymous memory, page tables, session memfds, servers.
    pub fn own_bytes(&self) -> u64 {
        self.anonymous_bytes + self.page_table_bytes + self.stub_bytes + self.server_bytes
    }

    /// All of it.
    pub fn total_bytes(&self) -> u64 {
        self.if_in_flash_bytes() + self.image_cache_bytes
    }

    /// All of it, if the image were in flash: its pages are no RAM then.
    pub fn if_in_flash_bytes(&self) -> u64 {
        self.own_bytes() + self.other_cache_bytes
    }
}

/// Several processes.
#[derive(Clone, Debug)]
pub struct Group {
    /// What they cost.
    pub ram: Ram,
    /// The files that they map.
    pub files: Vec<File>,
    /// The images that they map.
    pub images: Vec<OpenImage>,
    /// What the reader has to know.
    pub notes: Vec<String>,
}

impl Observer {
    /// Measures processes together.
    ///
    /// # Errors
    /// As [`Observer::observe`], for the first process that cannot be measured.
    pub fn observe_group(&mut self, pids: &[u32]) -> Result<Group> {
        let page = PageSize::of_running_kernel()?;
        let mut ram = Ram::default();
        let mut notes = Vec::new();
        let mut memfds = AllMemfds::default();
        let mut views = Vec::new();
        let mut processes = Vec::new();
        for &pid in pids {
            let known = Known {
                in_session: true,
                ..Known::default()
            };
            let observed = self.look_in_view(pid, known)?;
            memfds.add(&observed.memfds, &mut notes);
            if let Some(device) = observed.view.filter(|device| !views.contains(device)) {
                views.push(device);
                let view = root_view(&observed.proc)?;
                if let Some(server) = find_server(&observed.proc, &view, &mut notes) {
                    let server = cost(&self.look(server, &Known::default())?);
                    ram.server_bytes += server.anonymous_bytes + server.page_table_bytes;
                }
            }
            let image = self.image_of_view(&observed);
            processes.push((see(&observed)?, observed.view, image));
        }
        let mut sums = FileSums::new(page);
        for (seen, device, image) in &processes {
            sums.add(seen, View::new(*device, image.as_ref()));
            let totals = &seen.report.totals;
            ram.anonymous_bytes += seen.anonymous_share_bytes.unwrap_or(totals.anonymous_bytes);
            ram.page_table_bytes += totals.page_table_bytes;
            for note in &seen.report.notes {
                if !notes.contains(note) {
                    notes.push(note.clone());
                }
            }
        }
        let memfds = memfds.found();
        ram.stub_bytes = memfds.iter().map(|memfd| memfd.allocated_bytes).sum();
        let sources = sums.sources();
        ram.flash_bytes = sources.flash.mapped_bytes;
        for image in [sources.image_cache, sources.image_tmpfs] {
            ram.image_cache_mapped_bytes += image.mapped_bytes;
            ram.image_cache_bytes += image.touched_bytes;
        }
        ram.other_cache_bytes = sources.cache_bytes() - ram.image_cache_bytes;
        Ok(Group {
            ram,
            files: sums.rows(|files| self.name_of(files)),
            images: self.images().cloned().collect(),
            notes,
        })
    }
}
