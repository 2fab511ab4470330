//! What is known to be different from Linux, in a session and for a program of its own, and why that is not mended.

#![allow(unreachable_pub)]

use std::fs;
use std::path::Path;

use super::elf_file::{ET_DYN, PAGE, PHDR, PT_INTERP, PT_LOAD, Phdr};

/// What a session says of a program that it cannot load though Linux can, and why.
const KNOWN: [(&str, &str); 4] = [
    (
        "where the session's handler is",
        "A program of fixed addresses cannot be where the handler is mapped.",
    ),
    (
        "align=0x1000): ENOMEM",
        "One of half the address space or more finds no room beside the handler.",
    ),
    (
        "): EEXIST",
        "Nor where something of the kernel's or of the handler's is, which natively would have come later.",
    ),
    (
        "nothing to load",
        "Without a PT_LOAD Linux starts just the interpreter, with the break at address 0.",
    ),
];

/// What `xip-run --no-root` refuses though Linux runs it, with a message: a part of that, and why.
const STRICTER: [(&str, &str); 13] = [
    (
        "segments must ascend",
        "elf(5) has it so, and a plan is sorted.",
    ),
    (
        "pages beyond the file's end",
        "Whoever touches them dies of SIGBUS.",
    ),
    (
        "where the loader stub is",
        "The stub needs them until the program is mapped.",
    ),
    (
        ", over the program at",
        "Linux would map the interpreter over the program.",
    ),
    (
        "there is nothing to run",
        "It would be its interpreter alone that runs.",
    ),
    (
        "the same ones over and over",
        "Copies of the same pages have a bound.",
    ),
    ("a script, which only a session starts", "So it is."),
    (
        "its entry ",
        "It is looked at even if an interpreter runs first.",
    ),
    (
        "PT_INTERP",
        "An interpreter is looked at for one of its own.",
    ),
    ("): ENOMEM", "It finds no room beside the stub."),
    (
        "ELF type",
        "Linux does not ask whether the file has the machine's byte order,",
    ),
    ("ELF class", "nor for its class,"),
    (
        "32-bit x86_64 program",
        "which are of another machine here.",
    ),
];

/// Linux maps all of a PIE with the protection of its first segment at first, which counts for RLIMIT_DATA if it is writable.
pub const COUNTED_WHOLE: [&str; 2] = [
    "/hand/data-first-far-above-dynamic",
    "/hand/data-first-far-above-pie",
];

/// Linux maps what is as long as a huge page at a multiple of one: nothing but the bias differs, which is shown where it is
/// not the usual one.
pub fn differs_in_bias(name: &str, native: &Verdict, other: &Verdict) -> bool {
    let without = |verdict: &Verdict| {
        let (before, rest) = verdict.seen.split_once(" bias=")?;
        let (_, after) = rest.split_once(' ')?;
        Some([before, after].concat())
    };
    name == "/hand/pie-data-at-stub"
        && without(native).is_some_and(|native| Some(native) == without(other))
}

/// What became of a file.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// An errno, an end, or what the program found.
    pub seen: String,
    /// Standard error.
    pub said: Vec<String>,
}

/// Of what the kernel made, what a session cannot set: prctl(2) refuses to have no code, and addresses below
/// vm.mmap_min_addr, for what /proc/PID/stat tells, and for the break.
fn without_what_cannot_be_set<'a>(native: &str, seen: &'a str) -> (&'a str, &'a str) {
    let (before, rest) = seen.split_once(" code=").unwrap_or((seen, ""));
    let after = rest.find(" startstack=").map_or("", |at| &rest[at..]);
    match () {
        () if native.contains("(unusual brk)") => (before, ""),
        () if native.contains("(unusual code)") => (before, after),
        () => (seen, ""),
    }
}

/// The program headers of a file that may be broken, as far as they are there.
fn phdrs(bytes: &[u8]) -> Vec<Phdr> {
    let word = |at: u64, len: usize| {
        let bytes = bytes.get(usize::try_from(at).ok()?..)?.get(..len)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |word, &byte| word << 8 | u64::from(byte)),
        )
    };
    let phdr = |at: u64| {
        Some(Phdr {
            kind: word(at, 4)? as u32,
            offset: word(at + 8, 8)?,
            vaddr: word(at + 16, 8)?,
            filesz: word(at + 32, 8)?,
            memsz: word(at + 40, 8)?,
            ..Phdr::default()
        })
    };
    let (phoff, phnum) = (word(32, 8).unwrap_or(0), word(56, 2).unwrap_or(0));
    (0..phnum)
        .map_while(|number| phdr(phoff.checked_add(number * PHDR)?))
        .collect()
}

/// Is the first instruction of a program, or of its interpreter, in no segment, so that what is there is anybody's?
fn begins_outside(root: &Path, name: &str) -> bool {
    let read = |name: &str| fs::read(root.join(name.trim_start_matches('/'))).unwrap_or_default();
    let mut bytes = read(name);
    let interp = phdrs(&bytes)
        .into_iter()
        .find(|phdr| phdr.kind == PT_INTERP);
    if let Some(interp) = interp {
        let path = bytes
            .iter()
            .skip(interp.offset as usize)
            .take_while(|&&byte| byte != 0);
        bytes = read(&String::from_utf8_lossy(&path.copied().collect::<Vec<_>>()));
    }
    let Some(entry) = bytes.get(24..32) else {
        return false;
    };
    let entry = u64::from_le_bytes(entry.try_into().unwrap());
    !phdrs(&bytes).iter().any(|phdr| {
        let start = phdr.vaddr & !(PAGE - 1);
        let len = (phdr.vaddr - start).saturating_add(phdr.memsz);
        phdr.kind == PT_LOAD
            && entry.wrapping_sub(start) < len.saturating_add(PAGE - 1) & !(PAGE - 1)
    })
}

/// Has the first segment of a program that can be anywhere no bytes of the file? Linux means to have it placed by mmap(2), but
/// nothing is mapped for it: so it goes to address 0, where what is before it has no room. A launch finds a place.
fn is_misplaced(root: &Path, name: &str) -> bool {
    let bytes = fs::read(root.join(name.trim_start_matches('/'))).unwrap_or_default();
    let first = phdrs(&bytes).into_iter().find(|phdr| phdr.kind == PT_LOAD);
    bytes.get(16) == Some(&(ET_DYN as u8)) && first.is_some_and(|first| first.filesz == 0)
}

/// What is known to be different in a session.
pub fn known_in_session(root: &Path, name: &str, native: &Verdict, session: &Verdict) -> bool {
    let says = |part: &str| session.said.iter().any(|line| line.contains(part));
    let seen = |verdict| without_what_cannot_be_set(&native.seen, verdict);
    let dies = |verdict: &Verdict| verdict.seen.starts_with("killed by");
    KNOWN.iter().any(|(part, _)| says(part))
        || seen(&native.seen) == seen(&session.seen)
        || dies(native) && dies(session) && begins_outside(root, name)
}

/// The launcher says 126 or 127 where execve(2) has an errno, or ends what it cannot load.
pub fn known_alone(root: &Path, name: &str, native: &Verdict, alone: &Verdict) -> bool {
    let says = |part: &str| alone.said.iter().any(|line| line.contains(part));
    let refused = !alone.said.is_empty() && ["exit 126", "exit 127"].contains(&&*alone.seen);
    let is_refusal = native.seen.starts_with('E') || native.seen == "killed by SIGSEGV";
    match refused {
        true => is_refusal || STRICTER.iter().any(|(part, _)| says(part)),
        // A PIE whose first segment begins within a page is a page higher. It is at random, but in this test.
        false => {
            let without_bias = |verdict: &Verdict| Verdict {
                seen: verdict
                    .seen
                    .replace("bias=555555553000", "bias=555555554000"),
                said: verdict.said.clone(),
            };
            is_misplaced(root, name)
                || known_in_session(root, name, &without_bias(native), &without_bias(alone))
        }
    }
}
