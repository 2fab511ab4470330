//! ELF files for execve(2) to judge: one that is right, and what is wrong with the others. Its code is for x86_64.

#![allow(unreachable_pub)]

use super::exec_tree::{Entry, entry};

/// Where the program is linked.
const BASE: u64 = 0x1_0000_0000;
const EHDR: usize = 64;
const PHDR: usize = 56;
/// Where the code is in the file: in the first page, behind all headers.
const CODE: usize = 0x400;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const RX: u32 = 5;

/// A program header.
#[derive(Clone, Copy)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    vaddr: u64,
    filesz: u64,
    memsz: u64,
}

/// An ELF file in the making.
#[derive(Clone)]
struct Elf {
    kind: u16,
    entry: u64,
    segments: Vec<Segment>,
    exit: u8,
    /// Written over the code's page, from 0x800.
    interp: Vec<u8>,
    len: usize,
}

/// A program of one page that exits with 7, at `base`.
fn program(base: u64) -> Elf {
    Elf {
        kind: 2,
        entry: base + CODE as u64,
        segments: vec![Segment {
            kind: PT_LOAD,
            flags: RX,
            offset: 0,
            vaddr: base,
            filesz: 4096,
            memsz: 4096,
        }],
        exit: 7,
        interp: Vec::new(),
        len: 4096,
    }
}

/// It asks for this interpreter: the bytes are those of the segment.
fn with_interp(bytes: &[u8]) -> Elf {
    let mut elf = program(BASE);
    elf.interp = bytes.to_vec();
    elf.segments.insert(
        0,
        Segment {
            kind: PT_INTERP,
            flags: 4,
            offset: 0x800,
            vaddr: BASE + 0x800,
            filesz: bytes.len() as u64,
            memsz: bytes.len() as u64,
        },
    );
    elf
}

impl Elf {
    fn change(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn load(self, change: impl FnOnce(&mut Segment)) -> Self {
        self.change(|elf| {
            let load = elf.segments.iter_mut().find(|one| one.kind == PT_LOAD);
            change(load.unwrap());
        })
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len.max(4096)];
        bytes[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\0\0\x3e\0");
        bytes[16..18].copy_from_slice(&self.kind.to_le_bytes());
        bytes[20] = 1;
        bytes[24..32].copy_from_slice(&self.entry.to_le_bytes());
        bytes[32] = EHDR as u8;
        bytes[52] = EHDR as u8;
        bytes[54] = PHDR as u8;
        bytes[56] = self.segments.len() as u8;
        for (number, segment) in self.segments.iter().enumerate() {
            let words = [
                u64::from(segment.flags) << 32 | u64::from(segment.kind),
                segment.offset,
                segment.vaddr,
                segment.vaddr,
                segment.filesz,
                segment.memsz,
                4096,
            ];
            let header = words.map(u64::to_le_bytes).concat();
            bytes[EHDR + number * PHDR..][..PHDR].copy_from_slice(&header);
        }
        // mov edi, N; mov eax, exit_group; syscall
        let code = [
            &[0xbf, self.exit, 0, 0, 0][..],
            &[0xb8, 231, 0, 0, 0, 0x0f, 0x05],
        ];
        bytes[CODE..][..12].copy_from_slice(&code.concat());
        let interp_len = self.interp.len().min(bytes.len() - 0x800);
        bytes[0x800..][..interp_len].copy_from_slice(&self.interp[..interp_len]);
        bytes.resize(self.len, 0);
        bytes
    }

    /// With other bytes at an offset.
    fn patched(&self, at: usize, with: &[u8]) -> Vec<u8> {
        let mut bytes = self.bytes();
        bytes[at..][..with.len()].copy_from_slice(with);
        bytes
    }
}

/// A program of i386 that exits with 9: where the kernel has the emulation it runs.
fn program_i386() -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[..16].copy_from_slice(b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0");
    let put = |bytes: &mut Vec<u8>, at: usize, words: &[u32]| {
        for (word, to) in words.iter().zip(bytes[at..].chunks_mut(4)) {
            to.copy_from_slice(&word.to_le_bytes());
        }
    };
    put(
        &mut bytes,
        16,
        &[3 << 16 | 2, 1, 0x0100_0400, 52, 0, 0, 32 << 16 | 52, 1],
    );
    put(
        &mut bytes,
        52,
        &[1, 0, 0x0100_0000, 0x0100_0000, 4096, 4096, RX, 4096],
    );
    // mov ebx, 9; mov eax, exit; int 0x80
    bytes[CODE..][..12].copy_from_slice(&[0xbb, 9, 0, 0, 0, 0xb8, 1, 0, 0, 0, 0xcd, 0x80]);
    bytes
}

/// The files of /elf: name, contents, what Linux is known to answer ("" where that may be this or that).
pub fn elves() -> Vec<Entry> {
    let right = program(BASE);
    let interp = |path: &str| with_interp(format!("{path}\0").as_bytes()).bytes();
    let last_page = 0x7fff_ffff_e000;
    let mut two = right.clone();
    two.segments.push(Segment {
        vaddr: BASE - 0x10_0000,
        ..two.segments[0]
    });
    vec![
        entry("right", right.bytes(), "; exit 7"),
        entry("i386", program_i386(), ""),
        entry(
            "relocatable",
            program(0).change(|elf| elf.kind = 3).bytes(),
            "; exit 7",
        ),
        // No ELF file.
        entry("empty", "", "ENOEXEC"),
        entry("one-byte", "x", "ENOEXEC"),
        entry("text", "echo shell text: $*\n", "ENOEXEC"),
        entry("zeros", vec![0; 5000], "ENOEXEC"),
        entry(
            "garbage",
            (0..5000u32)
                .map(|at| ((at * at) >> 3) as u8 | 0x80)
                .collect::<Vec<_>>(),
            "ENOEXEC",
        ),
        entry("magic-only", "\x7fELF", "ENOEXEC"),
        entry("truncated-header", &right.bytes()[..40], "ENOEXEC"),
        entry("truncated-program-headers", &right.bytes()[..64], ""),
        entry("half-a-program-header", &right.bytes()[..90], ""),
        // Of another sort: e_machine, e_type, e_ident.
        entry("other-machine", right.patched(18, &[183, 0]), "ENOEXEC"),
        entry("machine-386", right.patched(18, &[3, 0]), "ENOEXEC"),
        entry("class-32", right.patched(4, &[1]), ""),
        entry("class-0", right.patched(4, &[0]), ""),
        entry("big-endian", right.patched(5, &[2]), ""),
        entry("version-9", right.patched(6, &[9]), ""),
        entry("abi-9", right.patched(7, &[9]), ""),
        entry("type-none", right.patched(16, &[0]), "ENOEXEC"),
        entry("type-relocatable", right.patched(16, &[1]), "ENOEXEC"),
        entry("type-core", right.patched(16, &[4]), "ENOEXEC"),
        // Program headers that are none.
        entry("phnum-0", right.patched(56, &[0, 0]), "ENOEXEC"),
        entry("phnum-65535", right.patched(56, &[255, 255]), "ENOEXEC"),
        entry("phnum-past-the-end", right.patched(56, &[200, 0]), ""),
        entry("phentsize-32", right.patched(54, &[32]), "ENOEXEC"),
        entry("phoff-past-the-end", right.patched(33, &[0xff; 3]), ""),
        entry("phoff-negative", right.patched(32, &[0xff; 8]), ""),
        // Too late for an error: the old program is gone when the segments are mapped.
        entry(
            "no-load",
            right.clone().change(|elf| elf.segments[0].kind = 4).bytes(),
            "; killed by SIGSEGV",
        ),
        entry(
            "filesz-above-memsz",
            right.clone().load(|load| load.memsz = 100).bytes(),
            "; killed by SIGSEGV",
        ),
        entry(
            "memsz-huge",
            right.clone().load(|load| load.memsz = 1 << 62).bytes(),
            "; killed by SIGSEGV",
        ),
        entry(
            "offset-not-as-address",
            right.clone().load(|load| load.offset = 0x100).bytes(),
            "; killed by SIGSEGV",
        ),
        entry(
            "beyond-user-space",
            right.clone().load(|load| load.vaddr = 1 << 63).bytes(),
            "; killed by SIGSEGV",
        ),
        entry(
            "not-executable-segment",
            right.clone().load(|load| load.flags = 4).bytes(),
            "; killed by SIGSEGV",
        ),
        entry(
            "entry-unmapped",
            right.clone().change(|elf| elf.entry = 0x10).bytes(),
            "; killed by SIGSEGV",
        ),
        // Root may map page 0, others may not (CAP_SYS_RAWIO, vm.mmap_min_addr).
        entry("at-0", program(0).bytes(), ""),
        entry("at-the-last-page", program(last_page).bytes(), ""),
        // Where a loader might be itself.
        entry("at-0x10000", program(0x1_0000).bytes(), ""),
        entry(
            "at-0x200000000000",
            program(0x2000_0000_0000).bytes(),
            "; exit 7",
        ),
        // Odd, but good enough for Linux.
        entry("loads-not-sorted", two.bytes(), "; exit 7"),
        entry(
            "segment-longer-than-file",
            right
                .clone()
                .load(|load| (load.filesz, load.memsz) = (0x3000, 0x3000))
                .bytes(),
            "; exit 7",
        ),
        entry(
            "code-past-the-end",
            right
                .clone()
                .load(|load| (load.filesz, load.memsz) = (0x3000, 0x3000))
                .change(|elf| elf.entry += 0x2000)
                .bytes(),
            "; killed by SIGBUS",
        ),
        // PT_INTERP.
        entry("interp-missing", interp("/missing"), "ENOENT"),
        entry("interp-text", interp("/elf/garbage"), "ELIBBAD"),
        entry("interp-short-text", interp("/elf/text"), ""),
        entry("interp-empty-file", interp("/elf/empty"), ""),
        entry("interp-script", interp("/scripts/long-script"), "ELIBBAD"),
        entry(
            "interp-not-executable",
            interp("/files/mode-0644"),
            "EACCES",
        ),
        entry("interp-unreadable", interp("/elf/mode-0711"), "; exit 8"),
        entry("interp-mode-0700", interp("/files/mode-0700"), ""),
        entry("interp-private", interp("/private/show"), ""),
        entry("interp-directory", interp("/bin"), "EACCES"),
        entry("interp-fifo", interp("/files/fifo"), "EACCES"),
        entry("interp-link-loop", interp("/links/loop"), "ELOOP"),
        entry("interp-noexec", interp("/tmp/noexec/show"), "EACCES"),
        entry(
            "interp-other-machine",
            interp("/elf/other-machine"),
            "ELIBBAD",
        ),
        entry("interp-phnum-0", interp("/elf/phnum-0"), "ELIBBAD"),
        entry("interp-type-core", interp("/elf/type-core"), ""),
        entry("interp-no-load", interp("/elf/no-load"), ""),
        entry("interp-fixed", interp("/elf/other-address"), "; exit 8"),
        entry("interp-relative", interp("elf/other-address"), "; exit 8"),
        entry("interp-link", interp("/links/other-address"), "; exit 8"),
        entry("interp-itself", interp("/elf/interp-itself"), ""),
        entry("interp-overlapping", interp("/elf/right"), ""),
        entry(
            "interp-unterminated",
            with_interp(b"/elf/other-address").bytes(),
            "ENOEXEC",
        ),
        entry("interp-of-1-byte", with_interp(b"\0").bytes(), "ENOEXEC"),
        entry("interp-of-0-bytes", with_interp(b"").bytes(), "ENOEXEC"),
        entry("interp-empty-name", with_interp(b"\0\0").bytes(), ""),
        entry("interp-of-4096-bytes", interp_of(4096), ""),
        entry("interp-of-4097-bytes", interp_of(4097), "ENOEXEC"),
        entry(
            "interp-past-the-end",
            with_interp(b"/missing\0")
                .change(|elf| elf.segments[0].offset = 0x10_0000)
                .bytes(),
            "",
        ),
        entry("other-address", other_address().bytes(), "; exit 8"),
        entry("mode-0711", other_address().bytes(), "; exit 8").mode(0o711),
        entry("mode-0644", right.bytes(), "EACCES").mode(0o644),
    ]
}

fn other_address() -> Elf {
    program(2 * BASE).change(|elf| elf.exit = 8)
}

/// An interpreter's path of that length, its NUL included.
fn interp_of(len: usize) -> Vec<u8> {
    let mut path = b"/.".repeat(len / 2);
    let name = b"/elf/other-address\0";
    path.resize(len - name.len(), b'/');
    path.extend_from_slice(name);
    let mut elf = with_interp(&path);
    elf.len = 0x3000;
    elf.bytes()
}
