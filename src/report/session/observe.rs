//! Looks at a live session: its processes, its image, its server.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::memfds::AllMemfds;
use super::server;
use super::{Seen, SeenMapping, Server, Session, Surroundings};
use crate::backing::Backing;
use crate::cramfs::show_name;
use crate::error::{Error, Result};
use crate::report::classify::{Class, MappedFile};
use crate::report::mountinfo::{self, RootMount};
use crate::report::proc::{Proc, processes};
use crate::report::process::{Known, Observed, Observer, OpenImage};
use crate::report::session_memfd::{self, Memfds, SessionImage};
use crate::report::status;
use crate::session;
use crate::units::PageSize;
use crate::view;

impl Observer {
    /// Measures the session that the process `pid` is in, whose root directory is an image: all processes in its mount
    /// namespace, and those that left it but have the session's memfd. `image` is that image, where it is not to be found
    /// out.
    ///
    /// Beside the session it returns why processes of it are missing. Processes come and go while it is looked at: those
    /// that have ended are not missed.
    ///
    /// # Errors
    /// As [`Observer::observe`]; if the process's root directory is no image; if `image` is another one.
    pub fn observe_session(
        &mut self,
        pid: u32,
        image: Option<&Path>,
    ) -> Result<(Session, Vec<Error>)> {
        let page = PageSize::of_running_kernel()?;
        let named = Proc::open(pid)?;
        let view = root_view(&named)?;
        let mut notes = Vec::new();
        let (pids, hidden) = members(&named)?;
        let same_user_namespace = Proc::own()
            .and_then(|own| Ok(own.namespace("user")? == named.namespace("user")?))
            .unwrap_or(true);
        // A user namespace of its own has no other users in it.
        if hidden > 0 && same_user_namespace {
            notes.push(format!(
                "processes of this system that may not be looked at: {hidden}; any of them that is of this session is \
                 missing here"
            ));
        }

        let server = match view.is_served() {
            true => find_server(&named, &view, &mut notes),
            false => None,
        };
        let mut members = pids.iter().filter_map(|&pid| Proc::open(pid).ok());
        let found = members
            .find_map(|member| self.image_of_session(&member, &Memfds::of(&member), &mut notes));
        let found = match image {
            Some(path) => Some(self.named_image(path, found.as_ref(), &mut notes)?),
            None => found,
        };
        let mut known = Known {
            view: Some(view.device),
            in_session: true,
            ..Known::default()
        };
        let (mut image_path, mut image) = (None, None);
        if let Some(found) = found {
            image_path = Some(show_name(&found.file.path));
            let data = found.file.device.as_ref().and_then(session::no_cow);
            notes.extend(data.map(|why| {
                format!(
                    "no data is in place ({why}): {}; it comes from the view, copied on write",
                    why.explain()
                )
            }));
            known.image = Some((found.file, found.mapped));
            image = Some(found.open);
        }

        let mut seen = Vec::new();
        let mut errors = Vec::new();
        let mut memfds = AllMemfds::default();
        for &pid in &pids {
            let process = self.look(pid, &known).and_then(|observed| {
                memfds.add(&observed.memfds, &mut notes);
                see(&observed)
            });
            match process {
                Ok(process) => seen.push(process),
                // It is missed only if it is still there.
                Err(err) if Proc::open(pid).is_ok_and(|proc| proc.status().is_ok()) => {
                    errors.push(err);
                }
                Err(_) => {}
            }
        }
        let server = server.and_then(|server| match self.look(server, &Known::default()) {
            Ok(observed) => Some(cost(&observed)),
            Err(err) => {
                errors.push(err);
                None
            }
        });
        if image.is_none()
            && let Some((path, open)) = self.mapped_image(&seen)
        {
            (image_path, image) = (Some(path), Some(open));
        }
        if image.is_none() {
            notes.push(
                "no process has the image, so files of the view are not looked up in it: name it with --image"
                    .to_owned(),
            );
        }
        let around = Surroundings {
            pid,
            view,
            image_path,
            image,
            server,
            memfds: memfds.found(),
            notes,
        };
        Ok((Session::new(around, &seen, page), errors))
    }

    /// The image of the view that is a process's root directory.
    pub(in crate::report) fn image_of_view(&mut self, member: &Observed) -> Option<OpenImage> {
        member.view?;
        let found = self.image_of_session(&member.proc, &member.memfds, &mut Vec::new())?;
        Some(found.open)
    }

    /// The image that a process of the session has as a descriptor, or was started from.
    fn image_of_session(
        &mut self,
        member: &Proc,
        memfds: &Memfds,
        notes: &mut Vec<String>,
    ) -> Option<Found> {
        let image = memfds.image(member)?;
        let fd = image.file.as_ref()?;
        let shown = show_name(&image.path);
        let (open, mapped) = match &image.device {
            Some(map) => {
                let fd = image.mapped_device(member)?;
                (
                    self.image_on_device(&fd, map, &shown, notes)?,
                    self.describe_device(&fd, map, &shown, notes),
                )
            }
            None => (
                self.image(fd, &shown, notes)?,
                self.describe(fd, &shown, notes),
            ),
        };
        Some(Found {
            open,
            mapped,
            file: image,
        })
    }

    /// The image that the caller names; it must be what the server serves, if that is known.
    fn named_image(
        &mut self,
        spec: &Path,
        served: Option<&Found>,
        notes: &mut Vec<String>,
    ) -> Result<Found> {
        let found = self.open_image(spec, notes)?;
        match served {
            Some(served) if served.open.image.superblock() != found.open.image.superblock() => {
                Err(Error::failed(format!(
                    "{}: is not the image of this session, which is {}; leave --image away",
                    spec.display(),
                    show_name(&served.file.path)
                )))
            }
            _ => Ok(found),
        }
    }

    fn open_image(&mut self, spec: &Path, notes: &mut Vec<String>) -> Result<Found> {
        let fail =
            |what: &dyn std::fmt::Display| Error::failed(format!("{}: {what}", spec.display()));
        let backing = Backing::open(spec)?;
        // As mappings show it.
        let name = std::fs::canonicalize(backing.path()).map_err(|err| fail(&err))?;
        let fd: OwnedFd = rustix::fs::open(&name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|err| fail(&err))?;
        let name = name.as_os_str().as_bytes().to_vec();
        let shown = show_name(&name);
        let inode = backing.identity().ino;
        let device = session::device_map(&backing);
        let Some(open) = self.walk(backing, &shown, notes) else {
            // Says why, by the name that the caller knows.
            let damage = crate::cramfs::Image::open(Backing::open(spec)?).err();
            return Err(damage.map_or_else(|| fail(&"no image"), |err| err.context(spec.display())));
        };
        let mapped = match &device {
            Some(map) => self.describe_device(&fd, map, &shown, notes),
            None => self.describe(&fd, &shown, notes),
        };
        Ok(Found {
            mapped,
            open,
            file: SessionImage {
                path: name,
                inode,
                file: None,
                device,
            },
        })
    }

    /// The image that a process maps in place.
    fn mapped_image(&self, seen: &[Seen]) -> Option<(String, OpenImage)> {
        let mut mappings = seen.iter().flat_map(|process| &process.mappings);
        mappings.find_map(|seen| {
            let files = seen.file.as_ref()?.image.as_ref()?;
            let open = self.image_of(files)?;
            Some((show_name(&seen.mapping.path), open.clone()))
        })
    }
}

/// An image, and by what name and inode processes map it.
struct Found {
    open: OpenImage,
    file: SessionImage,
    mapped: MappedFile,
}

/// The image that is a process's root directory.
pub(in crate::report) fn root_view(proc: &Proc) -> Result<RootMount> {
    let pid = proc.pid;
    let name = proc.status()?.name;
    let none = |why: String| {
        let way_out = match name == view::SERVER_NAME {
            true => "it serves one from outside: name a process that runs in it".to_owned(),
            false => format!("`xip-mem {pid}` measures the process by itself"),
        };
        Error::failed(format!(
            "process {pid} ({name}) is in no session: {why}; {way_out}"
        ))
    };
    let Some(root) = mountinfo::root(&proc.read("mountinfo")?) else {
        return Err(none("its root directory is no mount point".to_owned()));
    };
    if !root.is_image() {
        return Err(none(format!(
            "its root directory is not an image but {} ({})",
            show_name(root.source.as_bytes()),
            show_name(root.file_system.as_bytes())
        )));
    }
    // A chroot into a mounted image shares the namespace of the whole system, whose root is another.
    let own = Proc::own()?;
    let is_own = own.namespace("mnt")? == proc.namespace("mnt")?;
    let own_root = mountinfo::root(&own.read("mountinfo")?);
    if is_own && own_root.is_none_or(|own| own.device != root.device) {
        return Err(none(
            "it has the image as its root by chroot(2), in the mount namespace of everybody"
                .to_owned(),
        ));
    }
    Ok(root)
}

/// The processes of the session of `named`, and how many are not to be seen.
fn members(named: &Proc) -> Result<(Vec<u32>, usize)> {
    let namespace = named.namespace("mnt")?;
    let memfds: Vec<_> = Memfds::of(named).used().collect();
    let mut pids = Vec::new();
    let mut hidden = 0;
    for pid in processes() {
        match Proc::open(pid).map(|proc| proc.link("ns/mnt")) {
            Ok(Ok(other)) if other == namespace || session_memfd::uses(pid, &memfds) => {
                pids.push(pid);
            }
            Ok(Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM)) => hidden += 1,
            _ => {}
        }
    }
    Ok((pids, hidden))
}

pub(in crate::report) fn find_server(
    named: &Proc,
    view: &RootMount,
    notes: &mut Vec<String>,
) -> Option<u32> {
    let candidates = server::candidates(named);
    let (_, connection) = view.device;
    match server::choose(&candidates, connection, view::server_of(&view.source)) {
        Ok(server) => Some(server.pid),
        Err(why) => {
            notes.push(format!(
                "the server of the view (FUSE connection {connection}) is not found, and what it costs is not in the sums: \
                 {why}"
            ));
            None
        }
    }
}

pub(in crate::report) fn cost(server: &Observed) -> Server {
    let totals = &server.report.totals;
    Server {
        pid: server.report.pid,
        anonymous_bytes: totals.anonymous_bytes,
        page_table_bytes: totals.page_table_bytes,
        page_cache_bytes: totals.file_cache.resident_bytes,
    }
}

/// Adds what pagemap says to what smaps said.
pub(in crate::report) fn see(process: &Observed) -> Result<Seen> {
    let mut report = process.report.clone();
    let mut mappings = Vec::new();
    for (mapping, row) in process.mappings.iter().zip(&report.rows) {
        let runs = match row.class {
            Class::Anonymous | Class::Kernel | Class::Device | Class::Stub => Vec::new(),
            _ => process.file_runs(mapping, row, &mut report.notes)?,
        };
        mappings.push(SeenMapping {
            mapping: mapping.clone(),
            file: process.file(mapping).cloned(),
            runs,
        });
    }
    let rollup = process.proc.read("smaps_rollup").unwrap_or_default();
    Ok(Seen {
        anonymous_share_bytes: status::anonymous_share_bytes(&rollup),
        report,
        mappings,
    })
}
