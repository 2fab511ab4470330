//! ELF files and scripts at random: mostly right, then changed a little, so that each rule of execve(2) is met by itself
//! and with others.

#![allow(unreachable_pub)]

use super::elf_file::{
    CODE, ET_DYN, ET_EXEC, ElfFile, PAGE, PATH, PHDR, PT_GNU_STACK, Phdr, R, W, X, load, program,
};

/// SplitMix64: the same numbers everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// In so many of a hundred cases.
    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// What a file contains; `siblings` are paths of others, which can be its interpreter.
pub fn file(random: &mut Random, interpreters: &[String], sibling: &str) -> Vec<u8> {
    if random.percent(6) {
        return script(random, interpreters, sibling);
    }
    let mut elf = regular(random);
    if random.percent(35) {
        let path = interpreter(random, interpreters, sibling);
        elf = elf.interp_path(&path);
    }
    for _ in 0..random.of(&[0, 0, 1, 1, 1, 1, 2, 2, 2, 3]) {
        change(&mut elf, random);
    }
    elf.bytes()
}

fn interpreter(random: &mut Random, interpreters: &[String], sibling: &str) -> String {
    match random.below(10) {
        0..5 => "/interp/pie".to_owned(),
        5..8 => interpreters[random.below(interpreters.len() as u64) as usize].clone(),
        _ => sibling.to_owned(),
    }
}

/// One that every Linux runs: segments that ascend, pages of their own or one that two of them share.
fn regular(random: &mut Random) -> ElfFile {
    let (kind, base) = match random.percent(50) {
        true => (
            ET_EXEC,
            random.of(&[0x40_0000, 0x1_0000, 0x1_0000_0000, 0x7000_0000_0000]),
        ),
        false => (ET_DYN, random.of(&[0, 0, 0, 0x1000, 0x40_0000])),
    };
    let mut elf = program(kind, base);
    elf.phdrs[0].flags = random.of(&[R | X, R | X, R | X, R | W | X, X]);
    let (mut at, mut offset) = (base + PAGE, PAGE);
    for _ in 0..random.of(&[0, 1, 1, 1, 2, 2, 3, 4]) {
        at += PAGE * random.of(&[0, 0, 0, 1, 2, 16]);
        let in_page = match random.percent(50) {
            true => 0,
            false => random.below(PAGE),
        };
        let (few, many) = (1 + random.below(100), 1 + random.below(3 * PAGE));
        let filesz = random.of(&[1, few, PAGE - in_page, PAGE, many]);
        let bss = match random.below(8) {
            0..3 => 0,
            3 => 1,
            4 => random.below(200),
            5 => (PAGE - (in_page + filesz) % PAGE) % PAGE,
            6 => PAGE,
            _ => random.below(20 * PAGE),
        };
        let phdr = Phdr {
            memsz: filesz + bss,
            ..load(
                random.of(&[R, R | W, R | W, R | X, R | W | X, X, W, 0]),
                offset + in_page,
                at + in_page,
                filesz,
            )
        };
        elf.phdrs.push(phdr);
        at = phdr.end().next_multiple_of(PAGE);
        offset = (phdr.offset + phdr.filesz).next_multiple_of(PAGE);
    }
    // Perhaps the last page is not all there.
    let last = elf.phdrs.last().map_or(0, |last| last.offset + last.filesz);
    elf.len = random.of(&[last, offset, offset + 100]).max(CODE + 100);
    elf
}

/// A number that somebody might get wrong.
fn odd(random: &mut Random) -> u64 {
    match random.below(12) {
        0 => 0,
        1 => 1,
        2 => PAGE - 1,
        3 => PAGE,
        4 => PAGE + 1,
        5 => random.below(0x10_0000),
        6 => 1 << random.below(64),
        7 => (1_u64 << random.below(64)).wrapping_neg(),
        8 => 0x7fff_ffff_f000,
        9 => 0x8000_0000_0000 - random.below(3) * PAGE,
        10 => u64::MAX - random.below(2 * PAGE),
        _ => random.next(),
    }
}

fn add(to: &mut u64, more: u64) {
    *to = to.wrapping_add(more);
}

/// Changes one thing.
fn change(elf: &mut ElfFile, random: &mut Random) {
    let count = elf.phdrs.len() as u64;
    let (one, other) = (random.below(count) as usize, random.below(count) as usize);
    let pages = PAGE * random.below(12);
    match random.below(26) {
        0 => elf.phdrs.swap(one, other),
        1 => elf.phdrs[one].vaddr = elf.phdrs[one].vaddr.wrapping_sub(pages),
        2 => add(&mut elf.phdrs[one].vaddr, pages),
        // Over another one, or next to it, or in its last page.
        3 => {
            elf.phdrs[one].vaddr =
                elf.phdrs[other].vaddr & !(PAGE - 1) | (elf.phdrs[one].vaddr % PAGE);
        }
        4 => {
            let end = elf.phdrs[other].end();
            let phdr = &mut elf.phdrs[one];
            phdr.vaddr = end;
            phdr.offset = phdr.offset & !(PAGE - 1) | (end % PAGE);
        }
        5 => elf.phdrs[one].filesz = 0,
        6 => elf.phdrs[one].memsz = 0,
        7 => (elf.phdrs[one].filesz, elf.phdrs[one].memsz) = (0, 0),
        8 => add(&mut elf.phdrs[one].filesz, random.below(3 * PAGE)),
        9 => add(&mut elf.phdrs[one].memsz, random.below(40 * PAGE)),
        10 => elf.phdrs[one].memsz = odd(random),
        11 => elf.phdrs[one].filesz = odd(random),
        12 => elf.phdrs[one].vaddr = odd(random),
        13 => elf.phdrs[one].offset = odd(random),
        14 => add(&mut elf.phdrs[one].offset, random.below(PAGE)),
        15 => add(&mut elf.phdrs[one].offset, pages),
        16 => elf.phdrs[one].flags = random.below(8) as u32,
        17 => {
            let shift = random.below(48);
            elf.phdrs[one].align =
                random.of(&[0, 1, 16, 1 << shift, 3, 0x20_0000, 0x1001, u64::MAX]);
        }
        18 => {
            let kinds = [
                0,
                1,
                2,
                3,
                4,
                5,
                6,
                7,
                0x6474_e550,
                0x6474_e552,
                0x6474_e553,
                0x7000_0000,
            ];
            elf.phdrs[one].kind = random.of(&kinds);
        }
        19 => {
            let stack = Phdr {
                kind: PT_GNU_STACK,
                flags: random.below(8) as u32,
                ..Phdr::default()
            };
            elf.phdrs.insert(one, stack);
        }
        20 => {
            elf.entry = match random.below(3) {
                0 => odd(random),
                1 => elf.phdrs[one].vaddr.wrapping_add(random.below(2 * PAGE)),
                _ => elf.phdrs[one].end().wrapping_sub(random.below(3)),
            }
        }
        21 => elf.len = random.below(elf.len + 1),
        22 => elf.len += random.below(3 * PAGE),
        23 => elf.phdrs.push(elf.phdrs[one]),
        24 => headers_elsewhere(elf, random),
        _ => header_byte(elf, random),
    }
}

/// The program headers are in another page, or they are not there, or not as many.
fn headers_elsewhere(elf: &mut ElfFile, random: &mut Random) {
    match random.below(4) {
        0 => elf.phoff = odd(random),
        1 => elf.phoff = elf.len.saturating_sub(elf.phdrs.len() as u64 * PHDR),
        2 => elf.phoff = PATH - 8 * random.below(20),
        _ => elf.phnum = Some(random.of(&[0, 1, 2, 3, 20, 200, 1170, 1171, 0xffff])),
    }
}

/// One byte of the header is another.
fn header_byte(elf: &mut ElfFile, random: &mut Random) {
    let at = random.below(64);
    let byte = match random.percent(50) {
        true => random.below(5) as u8,
        false => random.below(256) as u8,
    };
    elf.patches.push((at, vec![byte]));
}

fn script(random: &mut Random, interpreters: &[String], sibling: &str) -> Vec<u8> {
    let mut line = b"#!".to_vec();
    let blanks = |random: &mut Random| {
        let many = random.of(&[0, 0, 0, 1, 1, 2, 5, 230, 250]);
        (0..many).map(|_| random.of(b" \t")).collect::<Vec<u8>>()
    };
    line.extend(blanks(random));
    line.extend(interpreter(random, interpreters, sibling).bytes());
    line.extend(blanks(random));
    line.extend(random.of(&[&b""[..], b"x", b"two words", b"a\0b", b"\r", &[b'y'; 240]]));
    line.extend(blanks(random));
    line.extend(random.of(&[&b"\n"[..], b"\n", b"", b"\0", b"\nmore\n", b"\0\n"]));
    line
}
