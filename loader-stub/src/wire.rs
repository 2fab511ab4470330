//! What the launcher tells the stub: the launch record, as it lies in the session memfd.
//!
//! Compiled into both (`src/session.rs` writes it, the stub reads it), so the two cannot disagree. All numbers are in
//! the machine's byte order and 64 bits wide on every architecture. The memfd is an ELF executable of these parts, each
//! at a multiple of 64 KiB so that it can be mapped with any page size:
//!
//! | offset | mapped at | what |
//! |---|---|---|
//! | 0 | base, r-x | ELF header, the stub |
//! | 0 again | base + [`TWIN`], r-x | the stub a second time: the one that stays, moved beside the vdso |
//! | [`RECORD`] | base + [`RECORD`], r-- | [`Record`], then [`Mapping`]s, then strings |
//! | [`Record::pages_at`] | base + that, r-- | the pages that the plan copies, in order |

/// Alignment of the parts of the session memfd, in bytes: the largest page size.
pub const PART: u64 = 0x10000;
/// Where the stub's second mapping is, from the base, in bytes.
pub const TWIN: u64 = PART;
/// Where the record is, from the base and in the memfd, in bytes.
pub const RECORD: u64 = 2 * PART;
/// [`Record::magic`]; the last digit is the format's version.
pub const MAGIC: u64 = 0x5849_5020_7374_7531;

/// A string of the record: offset from the record's start and length, its NUL (which is there) not counted.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Str {
    /// In bytes.
    pub at: u64,
    /// In bytes.
    pub len: u64,
}

/// Which file is the image: opened by its path, and refused if it is no longer what was planned with.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Image {
    /// Absolute path.
    pub path: Str,
    /// `st_dev`, major and minor.
    pub dev: [u32; 2],
    /// `st_ino`.
    pub ino: u64,
    /// `st_size`, bytes.
    pub size: u64,
    /// `st_mtime`, seconds.
    pub mtime_s: i64,
    /// `st_mtime`, nanoseconds within the second.
    pub mtime_ns: u64,
}

/// Where an object (the program, its interpreter) goes.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Object {
    /// One of the `PLACE_` constants.
    pub place: u64,
    /// Lowest address, before the bias.
    pub span_start: u64,
    /// From there to the highest, bytes.
    pub span_len: u64,
    /// The bias is a multiple of this, a power of two, at least the page size.
    pub align: u64,
    /// Entry point, before the bias.
    pub entry: u64,
    /// Index of the first mapping.
    pub first_mapping: u64,
    /// Number of mappings.
    pub mappings: u64,
}

/// There is no such object.
pub const PLACE_NONE: u64 = 0;
/// `ET_EXEC`: just there.
pub const PLACE_FIXED: u64 = 1;
/// `ET_DYN` with an interpreter: above `ELF_ET_DYN_BASE`, at random.
pub const PLACE_PROGRAM: u64 = 2;
/// `ET_DYN` that is an interpreter or has none: where mmap(2) puts it.
pub const PLACE_ANYWHERE: u64 = 3;

/// A run of pages to map.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Mapping {
    /// Address, before the bias.
    pub addr: u64,
    /// Bytes, a multiple of the page size.
    pub len: u64,
    /// `PROT_` bits.
    pub prot: u64,
    /// One of the `SOURCE_` constants.
    pub source: u64,
    /// Offset in the image, or from [`Record::pages_at`].
    pub at: u64,
    /// First byte to be zeroed once it is mapped, before the bias.
    pub zero_start: u64,
    /// How many.
    pub zero_len: u64,
}

/// Anonymous memory.
pub const SOURCE_ZERO: u64 = 0;
/// The image itself; private, so that what is writable is copied on write.
pub const SOURCE_DIRECT: u64 = 1;
/// The pages that the launcher put into the memfd.
pub const SOURCE_COPIED: u64 = 2;

/// The launch record.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Record {
    /// [`MAGIC`].
    pub magic: u64,
    /// Length of the record with mappings and strings, bytes.
    pub len: u64,
    /// Where the copied pages are, from the base and in the memfd.
    pub pages_at: u64,
    /// How many bytes of them.
    pub pages_len: u64,
    /// The image.
    pub image: Image,
    /// `AT_EXECFN` of the first start: the path as it was given.
    pub execfn: Str,
    /// `comm` of the first start, NUL padded (prctl(2) `PR_SET_NAME`).
    pub comm: [u8; 16],
    /// Number of the memfd's descriptor in the launcher: `AT_EXECFN` says `/dev/fd/N` then, and something else when the
    /// program executes `/proc/self/exe` later.
    pub launch_fd: u64,
    /// The program and its interpreter.
    pub objects: [Object; 2],
    /// `AT_PHDR` before the bias.
    pub phdr: u64,
    /// `AT_PHNUM`.
    pub phnum: u64,
    /// `mm->start_code`, `end_code`, `start_data`, `end_data` and the break, all before the bias (proc_pid_stat(5)).
    pub start_code: u64,
    /// See [`Record::start_code`].
    pub end_code: u64,
    /// See [`Record::start_code`].
    pub start_data: u64,
    /// See [`Record::start_code`].
    pub end_data: u64,
    /// Page aligned.
    pub brk: u64,
    /// 1 if addresses are randomized (`kernel.randomize_va_space`, personality(2)).
    pub randomize: u64,
    /// Length of the mappings table.
    pub mappings: u64,
}

/// Where the table of mappings starts, from the record's start, in bytes.
pub const MAPPINGS: u64 = size_of::<Record>() as u64;

const _: () = assert!(size_of::<Mapping>() == 56 && size_of::<Object>() == 56);
const _: () = assert!(size_of::<Record>().is_multiple_of(8));

/// Where the stub's code starts, from the base and in the memfd, in bytes; the ELF header lies before it.
pub const CODE: u64 = 0x200;
