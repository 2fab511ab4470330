//! ELF files for execve(2) to judge, right or wrong in any way, for x86_64. What runs of them grows its heap, stops itself
//! so that it can be looked at, and would end with an exit status.
//!
//! Every byte of a file that is nothing else is an instruction that faults at once, by which its page can be told.

#![allow(unreachable_pub)]

pub const ET_EXEC: u16 = 2;
pub const ET_DYN: u16 = 3;
pub const PT_LOAD: u32 = 1;
pub const PT_INTERP: u32 = 3;
pub const PT_GNU_STACK: u32 = 0x6474_e551;
pub const R: u32 = 4;
pub const W: u32 = 2;
pub const X: u32 = 1;
pub const PAGE: u64 = 4096;
/// Where the first program header is, if nothing else is said.
pub const PHOFF: u64 = 64;
/// Bytes of a program header.
pub const PHDR: u64 = 56;
/// Where the code is, in the page of the headers.
pub const CODE: u64 = 0xc00;
/// Where the interpreter's path is.
pub const PATH: u64 = 0x800;

/// A program header.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phdr {
    pub kind: u32,
    pub flags: u32,
    pub offset: u64,
    pub vaddr: u64,
    pub filesz: u64,
    pub memsz: u64,
    pub align: u64,
}

/// A `PT_LOAD` whose bytes are all in the file.
pub fn load(flags: u32, offset: u64, vaddr: u64, len: u64) -> Phdr {
    Phdr {
        kind: PT_LOAD,
        flags,
        offset,
        vaddr,
        filesz: len,
        memsz: len,
        align: PAGE,
    }
}

/// A file in the making.
#[derive(Clone, Debug)]
pub struct ElfFile {
    pub kind: u16,
    pub entry: u64,
    pub phoff: u64,
    /// `None`: as many as there are.
    pub phnum: Option<u16>,
    pub phdrs: Vec<Phdr>,
    /// Where in the file it is.
    pub code: u64,
    /// Its exit status tells whose code it is.
    pub exit: u8,
    /// What is written over the rest.
    pub patches: Vec<(u64, Vec<u8>)>,
    pub len: u64,
}

/// A program of one page at `base` which holds everything.
pub fn program(kind: u16, base: u64) -> ElfFile {
    ElfFile {
        kind,
        entry: base + CODE,
        phoff: PHOFF,
        phnum: None,
        phdrs: vec![load(R | X, 0, base, PAGE)],
        code: CODE,
        exit: 7,
        patches: Vec::new(),
        len: 4 * PAGE,
    }
}

impl ElfFile {
    pub fn change(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Changes the first program header.
    pub fn first(self, change: impl FnOnce(&mut Phdr)) -> Self {
        self.change(|elf| change(&mut elf.phdrs[0]))
    }

    /// With one more program header.
    pub fn with(self, phdr: Phdr) -> Self {
        self.change(|elf| elf.phdrs.push(phdr))
    }

    /// With other bytes at an offset.
    pub fn patch(self, at: u64, bytes: &[u8]) -> Self {
        self.change(|elf| elf.patches.push((at, bytes.to_vec())))
    }

    pub fn len(self, len: u64) -> Self {
        self.change(|elf| elf.len = len)
    }

    /// It asks for the interpreter whose path is these bytes, NUL included.
    pub fn interp(self, path: &[u8]) -> Self {
        let len = path.len() as u64;
        self.patch(PATH, path).change(|elf| {
            let phdr = Phdr {
                kind: PT_INTERP,
                ..load(R, PATH, PATH, len)
            };
            elf.phdrs.insert(0, phdr);
        })
    }

    /// The same by its path.
    pub fn interp_path(self, path: &str) -> Self {
        self.interp(format!("{path}\0").as_bytes())
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = filling(self.len.max(4 * PAGE));
        let mut put = |at: u64, what: &[u8]| {
            // What has no place in the file is not there.
            let room = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at..));
            for (to, from) in room.into_iter().flatten().zip(what) {
                *to = *from;
            }
        };
        put(0, &self.header());
        let phdrs: Vec<u8> = self.phdrs.iter().flat_map(Phdr::bytes).collect();
        put(self.phoff, &phdrs);
        put(self.code, &code(self.exit));
        for (at, what) in &self.patches {
            put(*at, what);
        }
        bytes.truncate(self.len as usize);
        bytes
    }

    fn header(&self) -> Vec<u8> {
        const EM_X86_64: u16 = 62;
        let phnum = self.phnum.unwrap_or(self.phdrs.len() as u16);
        let mut all = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        all.extend([self.kind, EM_X86_64, 1, 0].map(u16::to_le_bytes).concat());
        all.extend([self.entry, self.phoff, 0].map(u64::to_le_bytes).concat());
        let rest = [0, 0, 64, PHDR as u16, phnum, 0, 0, 0];
        all.extend(rest.map(u16::to_le_bytes).concat());
        all
    }
}

impl Phdr {
    fn bytes(&self) -> Vec<u8> {
        let words = [
            u64::from(self.flags) << 32 | u64::from(self.kind),
            self.offset,
            self.vaddr,
            self.vaddr,
            self.filesz,
            self.memsz,
            self.align,
        ];
        words.map(u64::to_le_bytes).concat()
    }

    /// Where its memory ends.
    pub fn end(&self) -> u64 {
        self.vaddr.wrapping_add(self.memsz)
    }
}

/// `brk(brk(0) + 0x3000); kill(getpid(), SIGSTOP); exit_group(exit)`, wherever it is.
fn code(exit: u8) -> Vec<u8> {
    let mut code = vec![
        0x31, 0xff, // xor edi, edi
        0xb8, 12, 0, 0, 0, // mov eax, brk
        0x0f, 0x05, // syscall
        0x48, 0x8d, 0xb8, 0, 0x30, 0, 0, // lea rdi, [rax + 0x3000]
        0xb8, 12, 0, 0, 0, 0x0f, 0x05, // brk
        0xb8, 39, 0, 0, 0, 0x0f, 0x05, // getpid
        0x89, 0xc7, // mov edi, eax
        0xbe, 19, 0, 0, 0, // mov esi, SIGSTOP
        0xb8, 62, 0, 0, 0, 0x0f, 0x05, // kill
    ];
    code.extend([0xbf, exit, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05]);
    code
}

/// Bytes, each of which no user program may execute, that say which page they are of.
fn filling(len: u64) -> Vec<u8> {
    // hlt, int3, cli, sti, in, out, ins, outs; and what is no instruction of 64-bit code.
    const DIGITS: [u8; 16] = [
        0xf4, 0xcc, 0xfa, 0xfb, 0xec, 0xed, 0xee, 0xef, 0x6c, 0x6d, 0x6e, 0x6f, 0x06, 0x16, 0x1e,
        0x27,
    ];
    (0..len)
        .map(|at| DIGITS[(((at / PAGE) >> (4 * (at % 2))) & 15) as usize])
        .collect()
}

#[test]
fn the_files_are_elf_files() {
    let elf = program(ET_DYN, 0x1000)
        .with(load(R | W, 0x1234, 0x2_1234, 100))
        .interp_path("/ld");
    let bytes = elf.bytes();
    let parsed = goblin::elf::Elf::parse(&bytes).unwrap();
    assert_eq!(
        (parsed.header.e_type, parsed.entry),
        (ET_DYN, 0x1000 + CODE)
    );
    assert_eq!(parsed.interpreter, Some("/ld"));
    let last = &parsed.program_headers[2];
    assert_eq!(
        (last.p_offset, last.p_vaddr, last.p_filesz),
        (0x1234, 0x2_1234, 100)
    );
}
