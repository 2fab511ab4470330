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
pub const MAGIC: u64 = 0x5849_5020_7374_7532;

/// A string of the record: offset from the record's start and length, its NUL (which is there) not counted.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Str {
    /// In bytes.
    pub at: u64,
    /// In bytes.
    pub len: u64,
}

/// How the image is mapped from its descriptor.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct ImageMap {
    /// Offset of the image's first byte in the descriptor, as mmap(2) takes it: of /dev/mem its physical address.
    pub base: u64,
    /// Length of the image, or of what holds it, bytes.
    pub len: u64,
    /// Offset of its first byte as /proc/PID/maps shows it.
    pub shown: u64,
    /// `IMAGE_` bits.
    pub flags: u64,
}

/// It is a device: its length and its times say nothing.
pub const IMAGE_DEVICE: u64 = 1;
/// It is mapped `MAP_SHARED`.
pub const IMAGE_SHARED: u64 = 2;
/// It can be mapped from its start only (UIO): parts are moved into place.
pub const IMAGE_WHOLE: u64 = 4;
/// What is writable is not mapped from it, but from the program's own descriptor. Why is for reports: a number above
/// [`IMAGE_NO_COW_WHY`].
pub const IMAGE_NO_COW: u64 = 8;
/// It is /dev/mem, as a rule to be found by that name.
pub const IMAGE_MEM: u64 = 16;
/// It is memory-mapped flash, a device's or a DAX file's: what is mapped of it takes no RAM.
pub const IMAGE_FLASH: u64 = 32;
/// See [`IMAGE_NO_COW`]: how many bits above.
pub const IMAGE_NO_COW_WHY: u32 = 8;

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
    /// How it is mapped.
    pub map: ImageMap,
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
/// `ET_DYN` that is the interpreter of a program of fixed addresses: just there if mmap(2) finds that free, else anywhere.
pub const PLACE_HINTED: u64 = 4;

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
/// [`Session::magic`] and [`Start::magic`]; the last digit is the format's version.
pub const SESSION_MAGIC: u64 = 0x5849_5020_7365_7335;

/// Where the record of a session is, from the base and in the memfd, in bytes: with the stub in the 64 KiB that Linux maps
/// at one page fault (`fault_around_bytes`).
pub const SESSION_RECORD: u64 = 0x8000;

/// Where the boot memfd has its [`Boot`], from the base, in bytes: between the ELF header and the code.
pub const BOOT: u64 = CODE - size_of::<Boot>() as u64;

/// What the stub needs before it has the record.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Boot {
    /// The number at which programs keep the boot memfd: who executes it by that one tells the start by [`START_ARGS`].
    pub boot_fd: u64,
    /// The resident memfd, to be mapped.
    pub resident_fd: u64,
    /// [`Session::len`].
    pub resident_len: u64,
}

/// How many arguments are put before the program's, for a start that needs no pipe: decimal, the descriptors of the program
/// and of its interpreter (or nothing); then `/dev/fd/N/` or nothing, and the path, which are one string together. They are
/// an even number, so that the stack is aligned without them.
pub const START_ARGS: usize = 4;

/// Length of the memory for the actions of SIGSYS that a program has had, bytes: see [`Session::actions`].
pub const ACTIONS: u64 = 4096;

/// What every program of a session shares: the stub with this record at [`SESSION_RECORD`] is the *resident* memfd, mapped as
/// one read-only, executable piece, beside the stack, where there are page tables already. A program is started by executing
/// the *boot* memfd, which has nothing but the same code. That goes once the resident one is mapped: the
/// kernel changes `/proc/self/exe` only when no page of the executed file is mapped any more (`replace_mm_exe_file()`).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Session {
    /// [`SESSION_MAGIC`].
    pub magic: u64,
    /// Length of the resident memfd, bytes.
    pub len: u64,
    /// Where its last page is, from its start, a multiple of [`PART`]: zeroes, a hole. A program that sets an action for
    /// SIGSYS writes to its own copy of it.
    pub actions: u64,
    /// The lowest of the session's descriptors, which programs cannot close.
    pub first_fd: u64,
    /// The highest of them.
    pub last_fd: u64,
    /// The boot memfd, to be executed.
    pub boot_fd: u64,
    /// `st_dev` (major and minor) of the boot memfd.
    pub boot_dev: [u32; 2],
    /// `st_ino` of it.
    pub boot_ino: u64,
    /// The number at which a process keeps its program, if the kernel would not make that `/proc/self/exe`.
    pub exe_fd: u64,
    /// The image.
    pub image_fd: u64,
    /// 1 if [`START_ARGS`] can be taken back: `CONFIG_CHECKPOINT_RESTORE`.
    pub starts_by_args: u64,
    /// 1 if `image_fd` is `O_PATH`: it is opened again, with the caller's own rights, for each mapping.
    pub image_reopen: u64,
    /// How it is mapped.
    pub image_map: ImageMap,
    /// What is said of it when a program needs a page that has been cut off: from the record's start, behind the tables.
    pub text_truncated: Str,
    /// What is said when it is found to be another, which no program is started from.
    pub text_changed: Str,
    /// What is said when it needs a page that the server of the view is no more there to give.
    pub text_server: Str,
    /// `st_mtime` of it when the session began, seconds; of a device it says nothing.
    pub image_mtime_s: i64,
    /// The same, nanoseconds within the second.
    pub image_mtime_ns: u64,
    /// `st_dev` of the root view, major and minor.
    pub view_dev: [u32; 2],
    /// See [`Record::randomize`].
    pub randomize: u64,
    /// The kernel's page size, bytes.
    pub page: u64,
    /// The process that serves the view, if it is to outlive everything: kill.rs. Else 0.
    pub server: u64,
    /// The highest process number that there can be.
    pub pid_max: u64,
    /// Instructions of the seccomp filter (`struct sock_filter`, 8 bytes each), which follow this.
    pub filter: u64,
    /// Number of [`File`]s, which follow it, sorted by `ino` and `size`.
    pub files: u64,
    /// Number of [`Run`]s, which follow them. The texts follow those.
    pub runs: u64,
}

/// A file of the image that has direct pages.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct File {
    /// `st_ino` in the view.
    pub ino: u32,
    /// `st_size`, bytes.
    pub size: u32,
    /// Index of its first [`Run`].
    pub first_run: u32,
    /// How many it has; they are sorted and do not overlap.
    pub runs: u32,
}

/// Pages of a file that follow each other in the image too.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Run {
    /// Number of the first page in the file.
    pub first_page: u32,
    /// How many.
    pub pages: u32,
    /// Offset of the first one in the image, bytes, page aligned.
    pub image_at: u32,
}

/// What one program is started with if there are scripts, or too many arguments to add some: the contents of a pipe,
/// descriptor N - 1, where N is the boot memfd's (`AT_EXECFN` says `/dev/fd/N`). Strings follow, each with its NUL:
/// [`Start::args`] of them are what scripts put in the place of argv\[0\]; the last one, always there, is the path that was
/// executed.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Start {
    /// [`SESSION_MAGIC`].
    pub magic: u64,
    /// The program's descriptor, to be closed; [`NO_PROGRAM`] in the session's first start: the path is executed then, once
    /// the session has begun.
    pub program_fd: u64,
    /// Its interpreter's, the same; [`NO_PROGRAM`] if it has none.
    pub interpreter_fd: u64,
    /// Length of the strings, bytes.
    pub strings_len: u64,
    /// How many of them replace argv\[0\]; none but for scripts.
    pub args: u64,
    /// 1 if the program was named by nothing but a descriptor: `comm` is its file's name, where the kernel has it so.
    pub by_descriptor: u64,
}

/// See [`Start::program_fd`].
pub const NO_PROGRAM: u64 = u64::MAX;
/// By what the session's filter knows a call for the handler's own, and lets it pass: this is its last argument, where the
/// kernel looks at none.
pub const OWN_CALL: u32 = 0x5849_6f77;
/// The same of calls that wait with a signal mask, which have no such argument: the pointer to that is odd, in these bits,
/// as no compiler has it.
pub const OWN_POINTER: u32 = 5;
/// See [`OWN_POINTER`].
pub const OWN_POINTER_MASK: u32 = 7;
/// The same of mmap(2) of a file: the upper half of the descriptor, of which the kernel looks at the lower one. In 32 bits
/// the upper half of the protection, where it knows no bits of these.
pub const OWN_MAPPING: u32 = 0x5849_0000;

/// Protection and descriptor of such a mapping.
pub const fn own_mapping(prot: usize, fd: usize) -> (usize, usize) {
    match usize::BITS {
        32 => (prot | OWN_MAPPING as usize, fd),
        _ => (prot, fd | ((OWN_MAPPING as u64) << 32) as usize),
    }
}

/// `SECCOMP_RET_DATA` of the filter's traps, which the handler finds in `si_errno`: those of other filters are not its own.
pub const TRAP_DATA: u16 = 0x5849;

const _: () = assert!(
    size_of::<Session>().is_multiple_of(8) && size_of::<File>() == 16 && size_of::<Run>() == 12
);
