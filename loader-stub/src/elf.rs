//! Loads an ELF program by its descriptor, as fs/binfmt_elf.c does: in a session, where programs are not planned ahead.

use core::mem::MaybeUninit;

use crate::arch::{self, stub_base};
use crate::direct::{self, Direct, FirstPage, Request};
use crate::error::{Name, OrFail, fail};
use crate::mem;
use crate::place::{self, Wanted};
use crate::session_record;
use crate::sys::{self, Errno, Fd};
use crate::wire;

/// The fields of an ELF header that matter, for the class of this machine.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Header {
    ident: [u8; 16],
    pub kind: u16,
    machine: u16,
    version: u32,
    pub entry: usize,
    pub phoff: usize,
    shoff: usize,
    flags: u32,
    ehsize: u16,
    phentsize: u16,
    pub phnum: u16,
    shentsize: u16,
    shnum: u16,
    shstrndx: u16,
}

/// A program header, for the class of this machine.
#[cfg(target_pointer_width = "64")]
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Phdr {
    pub kind: u32,
    pub flags: u32,
    pub offset: usize,
    pub vaddr: usize,
    paddr: usize,
    pub filesz: usize,
    pub memsz: usize,
    pub align: usize,
}

/// A program header, for the class of this machine.
#[cfg(target_pointer_width = "32")]
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Phdr {
    pub kind: u32,
    pub offset: usize,
    pub vaddr: usize,
    paddr: usize,
    pub filesz: usize,
    pub memsz: usize,
    pub flags: u32,
    pub align: usize,
}

const _: () = assert!(size_of::<Header>() == if size_of::<usize>() == 8 { 64 } else { 52 });
const _: () = assert!(size_of::<Phdr>() == if size_of::<usize>() == 8 { 56 } else { 32 });

pub const ET_EXEC: u16 = 2;
pub const ET_DYN: u16 = 3;
pub const PT_LOAD: u32 = 1;
pub const PT_INTERP: u32 = 3;
const PT_GNU_STACK: u32 = 0x6474_e551;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
/// `PATH_MAX`
pub const PATH_MAX: usize = 4096;

impl Phdr {
    /// Of a `PT_INTERP`: where its path is in the file, and how long, its NUL included. An empty one is as bad as too short.
    pub fn interp(&self) -> (usize, usize) {
        (self.offset, self.filesz.max(1))
    }
}

impl Header {
    /// Reads the header of a file, if execve(2) would take it for an ELF file of this machine: load_elf_binary(),
    /// elf_check_arch() (which looks at the class on RISC-V only), load_elf_phdrs().
    pub fn of(bytes: &[u8; size_of::<Self>()]) -> Option<&Self> {
        // SAFETY: as many bytes as the header has, every value of its fields is valid, and the callers align them.
        let header = unsafe { &*bytes.as_ptr().cast::<Self>() };
        const ELFCLASS64: u8 = 2;
        let right = header.ident[..4] == *b"\x7fELF"
            && header.machine == arch::ELF_MACHINE
            && (cfg!(not(target_arch = "riscv64")) || header.ident[4] == ELFCLASS64)
            && header.phentsize as usize == size_of::<Phdr>()
            && header.phnum > 0
            && header.phnum as usize <= 65536 / size_of::<Phdr>();
        right.then_some(header)
    }

    /// Not an object file, nor a core.
    pub fn is_program(&self) -> bool {
        matches!(self.kind, ET_EXEC | ET_DYN)
    }

    /// The program headers.
    pub fn phdrs<'a>(&self, source: Source<'a>) -> Phdrs<'a> {
        Phdrs {
            phdr: Phdr::default(),
            source,
            at: self.phoff as u64,
            left: self.phnum,
            batch: [0; BATCH_BYTES],
            batch_at: 0,
            batch_len: 0,
        }
    }

    /// Are all of them in the file, as far as its last one tells?
    pub fn require_phdrs(&self, source: Source<'_>) -> Result<(), Errno> {
        let before = (usize::from(self.phnum) - 1) * SIZE;
        let last = (self.phoff as u64).wrapping_add(before as u64);
        if source.in_head(last, SIZE).is_some() {
            return Ok(());
        }
        match sys::pread(source.fd, &mut [0; SIZE], last)? {
            SIZE => Ok(()),
            _ => Err(Errno::EIO),
        }
    }
}

/// Where a file's headers are read: what is known of its start, where they usually are, else its descriptor.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub head: &'a [u8],
    pub fd: Fd,
}

impl<'a> Source<'a> {
    /// `len` bytes at an offset, if they are known.
    fn in_head(&self, at: u64, len: usize) -> Option<&'a [u8]> {
        part(self.head, at, len)
    }
}

/// `len` bytes at an offset, if there are so many.
fn part(bytes: &[u8], at: u64, len: usize) -> Option<&[u8]> {
    bytes.get(usize::try_from(at).ok()?..)?.get(..len)
}

const SIZE: usize = size_of::<Phdr>();
/// Four are read at a time: a vfork child has little stack.
const BATCH_BYTES: usize = 4 * SIZE;

/// The program headers of a file, one by one.
pub struct Phdrs<'a> {
    /// The one that `next` has found.
    pub phdr: Phdr,
    source: Source<'a>,
    /// The next one's offset in the file, and how many are left.
    at: u64,
    left: u16,
    batch: [u8; BATCH_BYTES],
    /// Where in the file that begins, and how many bytes of it have been read.
    batch_at: u64,
    batch_len: usize,
}

impl Phdrs<'_> {
    /// Goes to the next one; false behind the last.
    #[inline(never)]
    pub fn next(&mut self) -> Result<bool, Errno> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(false);
        };
        self.left = left;
        let at = self.at;
        self.at = at.wrapping_add(SIZE as u64);
        let read = &self.batch[..self.batch_len];
        let known = self.source.in_head(at, SIZE);
        let bytes = match known.or_else(|| part(read, at.wrapping_sub(self.batch_at), SIZE)) {
            Some(bytes) => bytes.as_ptr(),
            None => {
                self.batch_at = at;
                self.batch_len = sys::pread(self.source.fd, &mut self.batch, at)?;
                if self.batch_len < SIZE {
                    return Err(Errno::EIO);
                }
                self.batch.as_ptr()
            }
        };
        // SAFETY: as many bytes as a program header has; every value of its fields is valid.
        self.phdr = unsafe { bytes.cast::<Phdr>().read_unaligned() };
        Ok(true)
    }
}

/// A file's first bytes, where a header can be read.
#[repr(C, align(8))]
pub struct Head<const N: usize>(pub [u8; N]);

/// The page boundary at or above an address.
pub fn page_up(at: usize, page: usize) -> usize {
    (at + page - 1) & !(page - 1)
}

/// What was loaded; addresses have the bias in them.
pub struct Loaded {
    pub phnum: usize,
    pub entry: usize,
    /// `ET_EXEC`
    pub fixed: bool,
    /// What was added to the file's addresses.
    pub bias: usize,
    /// `AT_PHDR`
    pub phdr: usize,
    pub start_code: usize,
    pub end_code: usize,
    pub start_data: usize,
    pub end_data: usize,
    /// Behind all that is mapped, on a page boundary.
    pub behind_bss: usize,
    /// `PT_GNU_STACK`'s answer.
    pub stack_exec: Option<bool>,
    /// `PT_INTERP`: offset and length of the path; none has the length 0.
    pub interp: (usize, usize),
    /// Before the bias: the lowest address and the highest, on page boundaries.
    start: usize,
    end: usize,
    /// The first segment's address, before the bias, and whether it has no bytes of the file.
    first: Option<(usize, bool)>,
    align: usize,
}

/// Loads a program, or the interpreter of one. Those with an interpreter go where programs go, others where mmap(2) puts
/// them.
pub fn load(fd: Fd, sp: usize, page: usize, program: Option<&Loaded>) -> Loaded {
    /// A header, and more program headers than most have.
    const START_BYTES: usize = 1024;
    let mut room = Head([0; START_BYTES]);
    let image = direct::open(direct::find(fd));
    let read = match FirstPage::map(image) {
        // It is gone before a place is looked for.
        Some(first) => direct::copy(headers_of(first.bytes()), &mut room.0),
        None => sys::pread(fd, &mut room.0, 0).or_fail("pread", &[]),
    };
    let head = &room.0[..read];
    let source = Source { head, fd };
    let header = head.first_chunk().and_then(Header::of);
    let Some(header) = header.filter(|header| header.is_program()) else {
        fail("not an ELF program of this machine", &[], None)
    };
    let mut loaded = Loaded {
        phnum: usize::from(header.phnum),
        entry: header.entry,
        fixed: header.kind == ET_EXEC,
        bias: 0,
        phdr: 0,
        start_code: usize::MAX,
        end_code: 0,
        start_data: 0,
        end_data: 0,
        behind_bss: 0,
        stack_exec: None,
        interp: (0, 0),
        start: usize::MAX,
        end: 0,
        first: None,
        align: page,
    };
    let next = |phdrs: &mut Phdrs<'_>| {
        let next = phdrs.next();
        next.or_fail("pread of the program headers", &[])
    };
    let mut phdrs = header.phdrs(source);
    while next(&mut phdrs) {
        loaded.survey(&phdrs.phdr, header.phoff, page);
    }
    loaded.find_place(sp, page, program);
    // The first segment of a fixed program must not replace anything (load_elf_interp(): its interpreter may replace it);
    // later ones may lie on the last page of earlier ones.
    let mut how = match loaded.fixed && program.is_none() {
        true => sys::MAP_PRIVATE | sys::MAP_FIXED_NOREPLACE,
        false => sys::MAP_PRIVATE | sys::MAP_FIXED,
    };
    let mut phdrs = header.phdrs(source);
    while next(&mut phdrs) {
        let phdr = &phdrs.phdr;
        if phdr.kind != PT_LOAD || phdr.memsz == 0 {
            continue;
        }
        let segment_start = phdr.vaddr & !(page - 1);
        let ask = Request {
            addr: segment_start.wrapping_add(loaded.bias),
            len: 0,
            prot: prot_of(phdr.flags),
            flags: how,
            fd,
            offset: 0,
        };
        load_segment(ask, image, phdr, page);
        how = sys::MAP_PRIVATE | sys::MAP_FIXED;
    }
    direct::close(image);
    loaded
}

/// Of a file's first bytes those of its headers: flash may be slow.
fn headers_of(bytes: &[u8]) -> &[u8] {
    let header = bytes.first_chunk().and_then(Header::of);
    let end = header.map(|header| header.phoff.checked_add(usize::from(header.phnum) * SIZE));
    let end = end.flatten().unwrap_or(0).max(size_of::<Header>());
    bytes.get(..end).unwrap_or(bytes)
}

impl Loaded {
    /// What a program header says of the whole. `mm->start_code` and the others are load_elf_binary()'s.
    fn survey(&mut self, phdr: &Phdr, phoff: usize, page: usize) {
        match phdr.kind {
            PT_LOAD => {
                let (file_end, end) = (phdr.vaddr + phdr.filesz, phdr.vaddr + phdr.memsz);
                let page_end = page_up(end, page);
                // None reaches beyond the last page.
                if phdr.filesz > phdr.memsz || end < phdr.vaddr || page_end < end {
                    let shown = [(Name::Addr, phdr.vaddr), (Name::Len, phdr.memsz)];
                    fail("a bad segment", &shown, None);
                }
                let segment_start = phdr.vaddr & !(page - 1);
                self.first.get_or_insert((phdr.vaddr, phdr.filesz == 0));
                self.start = self.start.min(segment_start);
                self.end = self.end.max(page_end);
                if phdr.align.is_power_of_two() {
                    self.align = self.align.max(phdr.align);
                }
                if phdr.offset <= phoff && phoff - phdr.offset < phdr.filesz {
                    self.phdr = phoff - phdr.offset + phdr.vaddr;
                }
                if phdr.flags & PF_X != 0 {
                    self.start_code = self.start_code.min(phdr.vaddr);
                    self.end_code = self.end_code.max(file_end);
                }
                self.start_data = self.start_data.max(phdr.vaddr);
                self.end_data = self.end_data.max(file_end);
            }
            PT_INTERP if self.interp.1 == 0 => self.interp = phdr.interp(),
            PT_GNU_STACK => self.stack_exec = Some(phdr.flags & PF_X != 0),
            _ => {}
        }
    }

    /// Finds the bias, and adds it to all addresses.
    fn find_place(&mut self, sp: usize, page: usize, program: Option<&Self>) {
        let session = session_record();
        let Some((first, first_is_empty)) = self.first.filter(|_| self.end > self.start) else {
            fail("nothing to load", &[], None)
        };
        // TASK_SIZE is not much above the stack, but for the kernel's own half.
        let user_end = sp.checked_next_power_of_two().unwrap_or(usize::MAX);
        if !self.fixed && program.is_none() && self.end >= user_end {
            fail("a bad segment", &[(Name::End, self.end)], None);
        }
        let is_hinted = program.is_some_and(|program| program.bias == 0);
        let place = match program {
            None if self.interp.1 != 0 => wire::PLACE_PROGRAM,
            Some(_) if is_hinted => wire::PLACE_HINTED,
            _ => wire::PLACE_ANYWHERE,
        };
        // What is not of the file goes just where it is asked for, by whoever meant anywhere: elf_load().
        let is_misplaced = first_is_empty && place != wire::PLACE_PROGRAM;
        let is_free = !self.fixed && !is_misplaced;
        if is_free {
            let want = Wanted {
                place,
                start: self.start,
                len: self.end - self.start,
                first: first - self.start,
                // load_elf_interp() asks for none.
                align: match program {
                    None => self.align,
                    Some(_) => page,
                },
                randomize: session.randomize != 0,
            };
            self.bias = place::find(&want, sp, page).wrapping_sub(self.start);
        } else if !self.fixed && !is_hinted {
            self.bias = page_up(first, page).wrapping_neg();
        }
        if !is_free {
            let (start, len) = (self.start.wrapping_add(self.bias), self.end - self.start);
            // All of a fixed interpreter is mapped at first, and what is between its segments goes: elf_map().
            let is_mapped_whole = program.is_some() && !first_is_empty;
            let whole = match is_mapped_whole {
                true => first & !(page - 1),
                false => start,
            };
            // Where the stub works, if that is not the stack: no further from here.
            const WORK_BYTES: usize = wire::PART as usize;
            let work = (&raw const *self as usize) - WORK_BYTES;
            for (there, bytes) in [(stub_base(), session.len as usize), (work, 2 * WORK_BYTES)] {
                // What wraps cannot be mapped, and need not be looked at.
                if start < there + bytes && whole.saturating_add(len) > there {
                    fail(
                        "where the session's handler is",
                        &[(Name::Addr, start)],
                        None,
                    );
                }
            }
            if is_mapped_whole {
                // SAFETY: (1) the program's that is there gives way to its interpreter.
                let _ = unsafe { sys::munmap(whole, len) };
            }
        }
        self.behind_bss = self.end;
        for at in [
            &mut self.entry,
            &mut self.phdr,
            &mut self.start_code,
            &mut self.end_code,
            &mut self.start_data,
            &mut self.end_data,
            &mut self.behind_bss,
        ] {
            *at = at.wrapping_add(self.bias);
        }
    }
}

/// The path that a `PT_INTERP` names, NUL included: its offset and length.
pub fn read_interpreter<'a, const N: usize>(
    source: Source<'_>,
    (at, len): (usize, usize),
    room: &'a mut MaybeUninit<[u8; N]>,
) -> Result<&'a [u8], Errno> {
    // load_elf_binary()
    if len < 2 || len > N {
        return Err(Errno::ENOEXEC);
    }
    let at = at as u64;
    let path = match source.in_head(at, len) {
        Some(path) => fill(room, path),
        None => sys::pread_into(source.fd, room, len, at)?,
    };
    match path {
        path if path.len() != len => Err(Errno::EIO),
        path if path.last() != Some(&0) => Err(Errno::ENOEXEC),
        path => Ok(path),
    }
}

/// Copies no more bytes than there is room for.
fn fill<'a, const N: usize>(room: &'a mut MaybeUninit<[u8; N]>, from: &[u8]) -> &'a [u8] {
    let room = room.write([0; N]);
    let len = direct::copy(from, room);
    &room[..len]
}

/// `PF_R`, `PF_W` and `PF_X` are `PROT_READ`, `PROT_WRITE` and `PROT_EXEC` the other way round.
fn prot_of(flags: u32) -> usize {
    const PF_R: u32 = 4;
    ((flags & PF_R) >> 2 | flags & PF_W | (flags & PF_X) << 2) as usize
}

/// elf_load(): whole pages of the file, the rest of the last one zeroed if it may be written, anonymous pages after it.
/// `ask` has the address of the first page.
fn load_segment(mut ask: Request, image: Option<Direct>, phdr: &Phdr, page: usize) {
    let in_page = phdr.vaddr & (page - 1);
    let file_end = ask.addr + in_page + phdr.filesz;
    let end = page_up(ask.addr + in_page + phdr.memsz, page);
    let mut anonymous_start = ask.addr;
    if phdr.filesz > 0 {
        anonymous_start = page_up(file_end, page);
        ask.len = anonymous_start - ask.addr;
        ask.offset = phdr.offset.wrapping_sub(in_page) as u64;
        // SAFETY: (1) only the object's own pages are replaced, or nothing.
        expect(unsafe { ask.map_in_place(image) }, ask.addr);
        let len = anonymous_start - file_end;
        if phdr.memsz > phdr.filesz && phdr.flags & PF_W != 0 && len > 0 {
            let last_page = ask.offset + (ask.len - page) as u64;
            let file_end_at = ask.offset + (ask.len - len) as u64;
            // Looking at the mapping is one page fault, and the first write to it another: it is read. But where it is flash
            // read(2) takes a page of RAM.
            let is_there = image.is_some_and(|(file, _)| last_page < file.size.into());
            let tail = match is_there && direct::data_is_flash() {
                // SAFETY: it was just mapped, and the file has that page.
                true => Some(all_zero(unsafe {
                    core::slice::from_raw_parts(file_end as *const u8, len)
                })),
                false => is_zero(ask.fd, file_end_at, len),
            };
            match tail {
                // What is zero already stays clean, and costs no memory.
                Some(true) => {}
                // SAFETY: the page was just mapped, writable.
                Some(false) => unsafe {
                    mem::memset(file_end as *mut u8, 0, len);
                },
                None if sys::pread(ask.fd, &mut [0], last_page) != Ok(0) => {}
                // padzero()
                None => fail(
                    "bss in a page beyond the file's end",
                    &[(Name::Addr, file_end)],
                    None,
                ),
            }
        }
    }
    if end > anonymous_start {
        let (prot, flags) = (3 | ask.prot & 4, ask.flags | sys::MAP_ANONYMOUS);
        let len = end - anonymous_start;
        if flags & sys::MAP_FIXED != 0 {
            // What replaces something would not count for RLIMIT_DATA: vm_brk_flags() unmaps that first.
            // SAFETY: (1) as above.
            let _ = unsafe { sys::munmap(anonymous_start, len) };
        }
        // SAFETY: (1) as above.
        let answer = unsafe { sys::mmap(anonymous_start, len, prot, flags, None, 0) };
        expect(answer, anonymous_start);
    }
}

fn all_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// Are `len` bytes at an offset zero? `None` if those that there are are, and the file ends.
#[inline(never)]
fn is_zero(fd: Fd, mut at: u64, mut len: usize) -> Option<bool> {
    let mut some = [0; 256];
    while len > 0 {
        let want = some.len().min(len);
        let Ok(read) = sys::pread(fd, &mut some[..want], at) else {
            return Some(false);
        };
        if !all_zero(&some[..read]) {
            return Some(false);
        }
        if read < want {
            return None;
        }
        at += read as u64;
        len -= read;
    }
    Some(true)
}

/// A mapping must be just there: kernels before 4.17 take `MAP_FIXED_NOREPLACE` for a hint.
fn expect(answer: Result<usize, Errno>, addr: usize) {
    let shown = [(Name::Addr, addr)];
    if answer.or_fail("mmap", &shown) != addr {
        fail("mmap", &shown, Some(Errno::EEXIST));
    }
}
