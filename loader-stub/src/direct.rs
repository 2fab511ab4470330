//! Maps files: the pages that the session's index calls direct from the image, the rest from the descriptor.
//!
//! On entry and on exit: no state of its own. A descriptor is one of the view's if its device is; its inode number and
//! its size then find its runs.

use crate::image;
use crate::session_record;
use crate::sys::{self, Errno, Fd};
use crate::wire::{File, IMAGE_FLASH, IMAGE_MEM, IMAGE_NO_COW, IMAGE_WHOLE, Run, Session};

const PROT_WRITE: usize = 2;
const MAP_TYPE: usize = 0xf;
const MAP_SHARED: usize = 1;
/// What a filesystem may know and the view does not.
const MAP_SYNC: usize = 0x80000;
const S_IFMT: u16 = 0o170_000;
const S_IFREG: u16 = 0o100_000;

/// The instructions of the filter, behind the record: wire.rs.
pub fn filter(session: &'static Session) -> &'static [u64] {
    let start = (&raw const *session).wrapping_add(1).cast();
    // SAFETY: the launcher put that many there, in the record's own mapping, which never changes.
    unsafe { core::slice::from_raw_parts(start, session.filter as usize) }
}

fn files(session: &'static Session) -> &'static [File] {
    let start = filter(session).as_ptr_range().end.cast();
    // SAFETY: as above.
    unsafe { core::slice::from_raw_parts(start, session.files as usize) }
}

fn runs(file: &File) -> &'static [Run] {
    let session = session_record();
    let all = files(session).as_ptr_range().end.cast::<Run>();
    // SAFETY: as above; the launcher gave each file its own.
    unsafe { core::slice::from_raw_parts(all.add(file.first_run as usize), file.runs as usize) }
}

/// The index's entry for a descriptor, if it is a file of the view with direct pages.
pub fn find(fd: Fd) -> Option<&'static File> {
    let session = session_record();
    let stat = sys::statx(fd).ok()?;
    if stat.dev != session.view_dev || stat.mode & S_IFMT != S_IFREG {
        return None;
    }
    let files = files(session);
    let key = |file: &File| (u64::from(file.ino), u64::from(file.size));
    let found = files.binary_search_by_key(&(stat.ino, stat.size), key);
    files.get(found.ok()?)
}

/// A file with direct pages, and a descriptor of the image for mapping them: the session's, or another one where that is
/// only a place.
pub type Direct = (&'static File, Fd);

/// Opens the image, for as many mappings of a file as there are until `close`: they share one open file then.
#[inline(never)]
pub fn open(file: Option<&'static File>) -> Option<Direct> {
    let (file, session) = (file?, session_record());
    let fd = Fd(session.image_fd as usize);
    let image = match session.image_reopen {
        0 => fd,
        _ => open_mem(session, fd).or_else(|| sys::reopen(fd).ok())?,
    };
    Some((file, image))
}

/// Opens /dev/mem by its name, if that is what the image's descriptor is: by /proc/self/fd each process would have two inodes
/// there and their names, 2 KiB for as long as it lives. The right to open is asked for in the same way.
#[inline(never)]
fn open_mem(session: &Session, fd: Fd) -> Option<Fd> {
    if session.image_map.flags & IMAGE_MEM == 0 {
        return None;
    }
    let mem = sys::open(b"/dev/mem\0").ok()?;
    let file = |fd| sys::statx(fd).ok().map(|stat| (stat.dev, stat.ino));
    let is_it = file(mem).is_some_and(|mem| file(fd) == Some(mem));
    if !is_it {
        sys::close(mem);
        return None;
    }
    Some(mem)
}

#[inline(never)]
pub fn close(direct: Option<Direct>) {
    if let Some((_, image)) = direct
        && session_record().image_reopen != 0
    {
        sys::close(image);
    }
}

/// The first page of a file, mapped from flash: the headers of a program are read there. read(2) would bring that page into
/// the page cache of the view, where nothing else needs it.
pub struct FirstPage(&'static [u8]);

impl FirstPage {
    /// Of a descriptor. Where it would be for nothing the image is not opened.
    #[inline(never)]
    pub fn of(fd: Fd) -> Option<Self> {
        if !is_flash() {
            return None;
        }
        let image = open(find(fd));
        let page = Self::map(image);
        close(image);
        page
    }

    /// The same of a file that was found.
    #[inline(never)]
    pub fn map(direct: Option<Direct>) -> Option<Self> {
        let (file, image) = direct.filter(|_| is_flash())?;
        let run = runs(file).first().filter(|run| run.first_page == 0)?;
        let session = session_record();
        let page = session.page as usize;
        let ask = [0, page, sys::PROT_READ, sys::MAP_PRIVATE];
        // SAFETY: (1) nothing is replaced.
        let at = unsafe { image::map(image, &session.image_map, ask, run.image_at.into()) }.ok()?;
        // SAFETY: just mapped, as many bytes or more, which are the image's: nobody writes to them.
        Some(Self(unsafe {
            core::slice::from_raw_parts(at as *const u8, page.min(file.size as usize))
        }))
    }

    /// What is in it: no more than the file has.
    pub fn bytes(&self) -> &[u8] {
        self.0
    }
}

impl Drop for FirstPage {
    fn drop(&mut self) {
        // SAFETY: (1) who had the bytes had them from here.
        let _ = unsafe { sys::munmap(self.0.as_ptr() as usize, session_record().page as usize) };
    }
}

/// Copies what there is room for: how many bytes.
pub fn copy(from: &[u8], room: &mut [u8]) -> usize {
    let pairs = room.iter_mut().zip(from);
    pairs.map(|(to, from)| *to = *from).count()
}

/// Is what is mapped of the image flash? Not where a page can only be mapped with all that is before it: that is no cheaper.
fn is_flash() -> bool {
    session_record().image_map.flags & (IMAGE_FLASH | IMAGE_WHOLE) == IMAGE_FLASH
}

/// Is data that nobody has written to flash too?
pub fn data_is_flash() -> bool {
    is_flash() && session_record().image_map.flags & IMAGE_NO_COW == 0
}

/// What mmap(2) is asked for.
#[derive(Clone, Copy)]
pub struct Request {
    pub addr: usize,
    pub len: usize,
    pub prot: usize,
    pub flags: usize,
    pub fd: Fd,
    pub offset: u64,
}

impl Request {
    /// Maps the descriptor, as the kernel does.
    ///
    /// # Safety
    /// 1. As mmap(2) with these flags.
    pub unsafe fn map(&self) -> Result<usize, Errno> {
        // SAFETY: (1) the caller's promise.
        unsafe {
            sys::mmap(
                self.addr,
                self.len,
                self.prot,
                self.flags,
                Some(self.fd),
                self.offset,
            )
        }
    }

    /// Maps the descriptor, from flash where that can be. Every error is the kernel's own: where a mapping could fail for
    /// the descriptor but not for the image, the descriptor is mapped first.
    ///
    /// # Safety
    /// 1. As mmap(2) with these flags.
    pub unsafe fn map_in_place(&self, direct: Option<Direct>) -> Result<usize, Errno> {
        let session = session_record();
        let page = session.page;
        let direct = direct.and_then(|(file, image)| Some((self.direct_runs(file, page)?, image)));
        let Some(((runs, first, end), image)) = direct else {
            // SAFETY: (1) the caller's promise.
            return unsafe { self.map() };
        };
        let flash = |addr, flags, run: &Run, start: u64, end: u64| {
            let at = u64::from(run.image_at) + (start - start_of(run, page));
            // SAFETY: (1) the caller's promise; the index says that the image has the same bytes there.
            unsafe {
                let len = (end - start) as usize;
                image::map(image, &session.image_map, [addr, len, self.prot, flags], at)
            }
        };
        let mut answer = Err(Errno::EINVAL);
        if let [run, ..] = runs
            && start_of(run, page) <= first
            && end <= end_of(run, page)
        {
            answer = flash(self.addr, self.flags, run, first, end);
        }
        if answer.is_err() {
            // SAFETY: (1) the caller's promise.
            answer = unsafe { self.map() };
            if let Ok(base) = answer {
                let flags = self.flags & !sys::MAP_FIXED_NOREPLACE | sys::MAP_FIXED;
                for run in runs {
                    let start = start_of(run, page).max(first);
                    let stop = end_of(run, page).min(end);
                    if start >= stop {
                        break;
                    }
                    // A part of what was just mapped. Where it cannot be replaced, the descriptor's pages have the same bytes;
                    // but what the image's filesystem refuses at last has unmapped them (mmap_region(), mm/vma.c).
                    let addr = base + (start - first) as usize;
                    if flash(addr, flags, run, start, stop).is_err() {
                        let part = Self {
                            addr,
                            len: (stop - start) as usize,
                            flags,
                            offset: start,
                            ..*self
                        };
                        // SAFETY: (1) the caller's promise.
                        answer = unsafe { part.map() }.and(answer);
                    }
                }
            }
        }
        answer
    }

    /// The runs that the mapping touches and those behind them, and the range of the file that it shows, in whole pages;
    /// `None` if there is nothing direct in it, or if it is the kernel's to refuse.
    fn direct_runs(&self, file: &File, page: u64) -> Option<(&'static [Run], u64, u64)> {
        let first = self.offset;
        let end = first.checked_add(self.len as u64 + page - 1)? & !(page - 1);
        let copies_on_write = self.flags & MAP_TYPE != MAP_SHARED
            && session_record().image_map.flags & IMAGE_NO_COW == 0;
        let is_writable = self.prot & PROT_WRITE != 0;
        let is_kernels = self.len == 0 || self.flags & MAP_SYNC != 0;
        if first & (page - 1) != 0 || is_kernels || is_writable && !copies_on_write {
            return None;
        }
        let runs = runs(file);
        let runs = runs.get(runs.partition_point(|run| end_of(run, page) <= first)..)?;
        (start_of(runs.first()?, page) < end).then_some((runs, first, end))
    }
}

fn start_of(run: &Run, page: u64) -> u64 {
    u64::from(run.first_page) * page
}

fn end_of(run: &Run, page: u64) -> u64 {
    (u64::from(run.first_page) + u64::from(run.pages)) * page
}
