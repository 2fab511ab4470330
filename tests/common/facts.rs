//! What samples/probe.c says, and which differences between a native start and one in place are allowed: every exception
//! here has its reason beside it.
#![allow(unreachable_pub)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::launch::text;
use Variant::{Dynamic, Static, StaticPie};

/// How the probe is linked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Variant {
    /// `ET_EXEC`.
    Static,
    /// `ET_DYN` without interpreter.
    StaticPie,
    /// The probe is the interpreter of a dynamic program: it sees what ld.so would.
    Interpreter,
    /// A dynamic program, probed after the host's ld.so has run.
    Dynamic,
}

/// What the probe is started with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Case<'a> {
    pub inherits: &'a [&'a str],
    pub env: &'a [(&'a str, &'a str)],
    pub args: &'a [&'a str],
    /// Instead of the absolute one.
    pub path: Option<&'a str>,
}

impl Case<'_> {
    pub fn addresses_are_fixed(&self) -> bool {
        self.inherits.contains(&"fixed-addresses")
    }
}

/// Where the probe was started from.
#[derive(Clone)]
pub struct Origin {
    pub variant: Variant,
    /// The program, natively.
    pub program: PathBuf,
    /// Its interpreter, natively, without symbolic links.
    pub interpreter: Option<PathBuf>,
    pub image: PathBuf,
}

/// The probe's sections, and what is needed to understand the addresses in them.
pub struct Facts {
    sections: BTreeMap<String, Vec<u8>>,
    in_place: bool,
    origin: Origin,
}

impl Facts {
    /// Takes the probe's output apart.
    pub fn parse(output: &[u8], in_place: bool, origin: &Origin) -> Self {
        let mut sections = BTreeMap::new();
        let mut rest = output;
        while let Some(head_end) = rest.iter().position(|&byte| byte == b'\n') {
            let head = text(&rest[1..head_end]);
            let (name, len) = head.rsplit_once(' ').unwrap();
            let (value, after) = rest[head_end + 1..].split_at(len.parse().unwrap());
            sections.insert(name.to_owned(), value.to_vec());
            rest = &after[1..];
        }
        assert!(sections.contains_key("brk"), "the probe did not finish");
        Self {
            sections,
            in_place,
            origin: origin.clone(),
        }
    }

    fn bytes(&self, name: &str) -> &[u8] {
        self.sections
            .get(name)
            .unwrap_or_else(|| panic!("the probe does not say {name}"))
    }

    fn text(&self, name: &str) -> String {
        text(self.bytes(name))
    }

    fn number(&self, name: &str) -> u64 {
        u64::from_str_radix(&self.text(name), 16).unwrap()
    }

    fn register(&self, number: usize) -> u64 {
        words(self.bytes("registers"))[number]
    }

    fn sp(&self) -> u64 {
        self.register(7)
    }

    /// auxv as it is on the stack.
    fn auxv(&self) -> Vec<(u64, u64)> {
        (0..)
            .map_while(|at| {
                self.sections.get(&format!("auxv.kind.{at}"))?;
                Some((
                    self.number(&format!("auxv.kind.{at}")),
                    self.number(&format!("auxv.value.{at}")),
                ))
            })
            .collect()
    }

    fn aux(&self, kind: u64) -> Option<u64> {
        self.auxv()
            .iter()
            .find(|entry| entry.0 == kind)
            .map(|entry| entry.1)
    }

    /// Fields of /proc/self/stat by their numbers in proc_pid_stat(5).
    fn stat(&self) -> BTreeMap<usize, String> {
        let line = self.text("/proc/self/stat");
        let (head, tail) = line.trim_end().rsplit_once(") ").unwrap();
        let comm = head.split_once(" (").unwrap().1.to_owned();
        let fields = tail.split(' ').map(str::to_owned);
        std::iter::once(comm)
            .chain(fields)
            .enumerate()
            .map(|(at, value)| (at + 2, value))
            .collect()
    }

    fn stat_number(&self, field: usize) -> u64 {
        self.stat()[&field].parse().unwrap()
    }

    /// An address by what is there: `program+0x40`.
    fn place(&self, address: u64) -> String {
        const AT_PHDR: u64 = 3;
        const AT_BASE: u64 = 7;
        const AT_SYSINFO_EHDR: u64 = 33;
        // The probe's program headers come right after its ELF header.
        let program = self.aux(AT_PHDR).unwrap() - 64;
        let bases = [
            ("program", program),
            ("interpreter", self.aux(AT_BASE).unwrap()),
            ("vdso", self.aux(AT_SYSINFO_EHDR).unwrap_or(0)),
            ("stack", self.sp()),
        ];
        let nearest = bases
            .iter()
            .filter(|(_, base)| *base != 0 && *base <= address)
            .max_by_key(|(_, base)| *base);
        match nearest {
            _ if address == 0 => "0".into(),
            Some((name, base)) if address - base < 0x200_0000 => {
                format!("{name}+{:#x}", address - base)
            }
            _ => "elsewhere".into(),
        }
    }

    // ---- what is compared

    /// What must be the same, by name; addresses as places.
    pub fn normalized(&self, case: &Case<'_>) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for (name, value) in &self.sections {
            let first = name.split('.').next().unwrap_or_default();
            match name.as_str() {
                // Another process every time.
                "pid" => continue,
                // Another 16 bytes every time; `contradictions` wants them to be random.
                "random" => continue,
                // Below, in parts.
                "/proc/self/maps" | "/proc/self/smaps" | "/proc/self/stat"
                | "/proc/self/status" | "/proc/self/auxv" | "registers" => continue,
                "block.end" | "brk" => continue,
                // Its own PID, which is another every time, or inherited.
                "pgid" | "sid" => {
                    all.insert(name.clone(), self.shown_pid(self.number(name)));
                }
                // ld.so's doing, and the code of ld.so decides what it leaves in them.
                "flags" | "vector" if self.origin.variant == Dynamic => continue,
                // The file that the kernel executed is the session's memfd. PR_SET_MM_EXE_FILE could tell the truth only
                // if the image were mounted.
                "/proc/self/exe" if self.in_place => {
                    let path = case.path.map_or(self.origin.program.clone(), PathBuf::from);
                    let mut name = format!("/memfd:xip-run:{}", path.display());
                    // Of a memfd's name 249 bytes are kept.
                    name.truncate("/memfd:".len() + 249);
                    assert_eq!(text(value), format!("{name} (deleted)"));
                    continue;
                }
                "/proc/self/exe" => {
                    assert_eq!(
                        text(value),
                        self.origin
                            .program
                            .with_file_name(self.file_name(case))
                            .to_str()
                            .unwrap()
                    );
                    continue;
                }
                _ if first == "fd"
                    && name
                        .split('.')
                        .nth(1)
                        .is_some_and(|part| part.parse::<u32>().is_ok()) =>
                {
                    // Every run has its own pipes.
                    let target = text(value);
                    let target = target.split(":[").next().unwrap_or_default();
                    all.insert(name.clone(), target.to_owned());
                }
                "fs_base" | "robust_list" => {
                    // Set by ld.so, in memory that it got from mmap(2).
                    let set = if self.number(name) == 0 {
                        "not set"
                    } else {
                        "set"
                    };
                    all.insert(name.clone(), set.to_owned());
                }
                _ if name.starts_with("argv.at") || name.starts_with("envp.at") => {
                    let from = self.number(name) - self.strings_start();
                    all.insert(name.clone(), format!("strings+{from:#x}"));
                }
                _ if first == "auxv" => continue,
                _ => {
                    all.insert(name.clone(), value.escape_ascii().to_string());
                }
            }
        }
        self.add_registers(&mut all);
        self.add_auxv(&mut all, case);
        self.add_stat(&mut all);
        self.add_status(&mut all);
        self.add_brk(&mut all, case);
        let mut mappings = self.mappings(case);
        mappings.sort();
        for (at, mapping) in mappings.into_iter().enumerate() {
            all.insert(format!("maps line {at:02}"), mapping);
        }
        all
    }

    fn file_name(&self, case: &Case<'_>) -> String {
        let path = case.path.map_or(self.origin.program.clone(), PathBuf::from);
        path.file_name().unwrap().to_str().unwrap().to_owned()
    }

    fn shown_pid(&self, pid: u64) -> String {
        if pid == self.number("pid") {
            "its own".into()
        } else {
            pid.to_string()
        }
    }

    /// The lowest string: `argv[0]`.
    fn strings_start(&self) -> u64 {
        self.number("argv.at.0")
    }

    fn add_registers(&self, all: &mut BTreeMap<String, String>) {
        for (number, name) in REGISTERS.iter().enumerate() {
            match *name {
                // The stack's place is random, and there is room for AT_EXECFN in it: `contradictions` looks at it.
                "rsp" => {}
                // ld.so's: rdx is its destructor, others are left over.
                _ if self.origin.variant == Dynamic => {}
                _ => {
                    all.insert(
                        format!("register {name}"),
                        format!("{:#x}", self.register(number)),
                    );
                }
            }
        }
        all.insert(
            "length of argc to auxv".into(),
            (self.number("block.end") - self.sp()).to_string(),
        );
    }

    fn add_auxv(&self, all: &mut BTreeMap<String, String>, case: &Case<'_>) {
        const AT_PHDR: u64 = 3;
        const AT_BASE: u64 = 7;
        const AT_ENTRY: u64 = 9;
        const AT_PLATFORM: u64 = 15;
        const AT_BASE_PLATFORM: u64 = 24;
        const AT_RANDOM: u64 = 25;
        const AT_EXECFN: u64 = 31;
        const AT_SYSINFO_EHDR: u64 = 33;
        for (at, (kind, value)) in self.auxv().into_iter().enumerate() {
            let shown = match kind {
                AT_PHDR | AT_ENTRY | AT_BASE
                    if case.addresses_are_fixed() && !self.is_placed_by_mmap(kind) =>
                {
                    format!("{value:#x}")
                }
                AT_PHDR | AT_ENTRY | AT_BASE => self.place(value),
                // mmap(2) places the vdso like any mapping. Linux maps it last, here it came before the program.
                AT_SYSINFO_EHDR => "the vdso".into(),
                AT_PLATFORM | AT_BASE_PLATFORM | AT_RANDOM => {
                    // The bytes between auxv and the strings are Linux's own, at random.
                    let between = (self.number("block.end")..self.strings_start()).contains(&value);
                    if between {
                        "between auxv and argv's strings".into()
                    } else {
                        format!("{value:#x}")
                    }
                }
                // The string is the same (`execfn`); it stands behind auxv instead of behind the environment, where
                // Linux put the path of the memfd.
                AT_EXECFN => "the path".into(),
                _ => format!("{value:#x}"),
            };
            all.insert(format!("auxv entry {at:02}"), format!("{kind}: {shown}"));
        }
    }

    /// Is the address that an auxv entry tells chosen by mmap(2), among what is mapped already? That is one stub, and
    /// vdso first, other than natively, even if nothing is random.
    fn is_placed_by_mmap(&self, kind: u64) -> bool {
        const AT_BASE: u64 = 7;
        self.origin.variant == StaticPie || kind == AT_BASE
    }

    fn add_stat(&self, all: &mut BTreeMap<String, String>) {
        for (field, value) in self.stat() {
            let shown = match field {
                // What it cost: minor and major faults, times, memory, the processor that it happens to run on.
                10..=17 | 22..=24 | 39 | 42 => continue,
                // Process group and session.
                5 | 6 => self.shown_pid(value.parse().unwrap()),
                // Code and data.
                26 | 27 | 45 | 46 => self.place(value.parse().unwrap()),
                // `contradictions`: the stack's start is the stack pointer; the break has its own rules.
                28 | 47 => continue,
                // The strings.
                48..=51 => format!(
                    "strings+{:#x}",
                    value.parse::<u64>().unwrap() - self.strings_start()
                ),
                _ => value,
            };
            all.insert(format!("stat field {field:02}"), shown);
        }
    }

    fn add_status(&self, all: &mut BTreeMap<String, String>) {
        for line in self.text("/proc/self/status").lines() {
            let (key, value) = line.split_once(':').unwrap();
            match key {
                "Tgid" | "Pid" | "NStgid" | "NSpid" => {}
                // What it cost, and the stub's one mapping more.
                "VmPeak" | "VmSize" | "VmHWM" | "VmRSS" | "RssAnon" | "RssFile" | "RssShmem"
                | "VmLib" | "VmExe" | "VmPTE" | "VmData" => {}
                // `pgid` and `sid`.
                "NSpgid" | "NSsid" => {}
                // The stack starts at random in a page, and its length in pages follows from that; mappings() looks at it
                // where nothing is random.
                "VmStk" => {}
                // How many signals are pending for the user, in all processes.
                "SigQ" => {
                    let limit = value.split_once('/').unwrap().1;
                    all.insert("status SigQ".into(), limit.to_owned());
                }
                "voluntary_ctxt_switches" | "nonvoluntary_ctxt_switches" => {}
                _ => {
                    all.insert(format!("status {key}"), value.trim().to_owned());
                }
            }
        }
    }

    fn add_brk(&self, all: &mut BTreeMap<String, String>, case: &Case<'_>) {
        let brk = self.number("brk");
        let shown = match self.origin.variant {
            // Natively it starts at random behind the program (kernel.randomize_va_space=2), in place right there.
            _ if !case.addresses_are_fixed() => "behind bss".into(),
            // Linux moves it to where programs with an interpreter are, and leaves a page free there; in place none.
            StaticPie => format!("{:#x}", brk & !0x1fff),
            _ => format!("{brk:#x}"),
        };
        all.insert("brk".into(), shown);
    }

    /// The mappings: place, length, protection, what of which file. Sorted by name, because mmap(2) finds other places
    /// for the vdso and ld.so than natively.
    fn mappings(&self, case: &Case<'_>) -> Vec<String> {
        let flags = self.vm_flags();
        let maps = self.text("/proc/self/maps");
        let mut lines = Vec::new();
        let mut stubs = 0;
        let mut above: Option<(u64, String)> = None;
        let mut first_offset: BTreeMap<String, u64> = BTreeMap::new();
        for line in maps.lines() {
            let mut fields = line.split_ascii_whitespace();
            let mut field = || fields.next().unwrap_or_default();
            let (range, prot, offset) = (field(), field(), field());
            let (start, end) = range.split_once('-').unwrap();
            let [start, end, offset] =
                [start, end, offset].map(|hex| u64::from_str_radix(hex, 16).unwrap());
            field();
            field();
            let path = fields.collect::<Vec<_>>().join(" ");
            if path.starts_with("/memfd:xip-run") {
                // The stub stays to be one mapping that nothing can change: it made the last system call.
                assert!(
                    self.in_place && prot == "r-xp" && end - start <= 0x4000,
                    "{line}"
                );
                stubs += 1;
                continue;
            }
            let place = self.place(start);
            let object = place.split('+').next().unwrap_or_default().to_owned();
            let owner = match path.as_str() {
                // What ld.so got from mmap(2), for itself and for libraries.
                "" if self.origin.variant == Dynamic => "anonymous".into(),
                "" => match &above {
                    Some((above_end, owner)) if *above_end == start => {
                        format!("anonymous behind {owner}")
                    }
                    _ => "anonymous".into(),
                },
                _ if Path::new(&path) == self.origin.image => object.clone(),
                _ if self.is_file(&path, &self.origin.program, &object) => "program".into(),
                _ if self
                    .origin
                    .interpreter
                    .as_ref()
                    .is_some_and(|interpreter| Path::new(&path) == interpreter) =>
                {
                    "interpreter".into()
                }
                _ => path.clone(),
            };
            let first = *first_offset.entry(owner.clone()).or_insert(offset);
            // Libraries, which ld.so maps, are anywhere.
            let shown_place = match owner.as_str() {
                "program"
                | "interpreter"
                | "anonymous behind program"
                | "anonymous behind interpreter" => place,
                _ => String::new(),
            };
            let len = match owner.as_str() {
                // It starts at random in a page; Linux also puts the path there a second time.
                "[stack]" if !case.addresses_are_fixed() || case.path.is_some() => "some".into(),
                _ => format!("{:#x}", end - start),
            };
            let mut shown = format!(
                "{owner} {shown_place} {len} bytes {prot} file+{:#x}",
                offset.wrapping_sub(first)
            );
            if let Some(flags) = flags.get(&start) {
                shown.push(' ');
                shown.push_str(flags);
            }
            lines.push(shown);
            above = Some((
                end,
                owner.trim_start_matches("anonymous behind ").to_owned(),
            ));
        }
        assert_eq!(stubs, usize::from(self.in_place), "stubs in {maps}");
        lines
    }

    /// The program may have been started by another name.
    fn is_file(&self, path: &str, program: &Path, object: &str) -> bool {
        !self.in_place && object == "program" && Path::new(path).parent() == program.parent()
    }

    /// `VmFlags` by address.
    fn vm_flags(&self) -> BTreeMap<u64, String> {
        let mut flags = BTreeMap::new();
        let mut start = 0;
        for line in self.text("/proc/self/smaps").lines() {
            if let Some(value) = line.strip_prefix("VmFlags:") {
                // Soft-dirty: was it written to, or mapped since it was last asked?
                flags.insert(start, value.replace(" sd", "").trim().to_owned());
            } else if let Some((hex, _)) = line.split_once('-') {
                start = u64::from_str_radix(hex, 16).unwrap_or(start);
            }
        }
        flags
    }

    // ---- what must be true of either

    pub fn contradictions(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let way = if self.in_place {
            "in place"
        } else {
            "natively"
        };
        let mut check = |what: &str, holds: bool| {
            if !holds {
                wrong.push(format!("{way}: {what}"));
            }
        };
        check(
            "the stack is not aligned to 16 bytes",
            self.sp().is_multiple_of(16),
        );
        check(
            "the stack does not start where stat says",
            self.stat_number(28) == self.sp() || self.origin.variant == Dynamic,
        );
        check(
            "the break is not where stat says",
            self.stat_number(47) == self.number("brk"),
        );
        check(
            "the break is not page aligned",
            self.number("brk").is_multiple_of(4096),
        );
        check(
            "comm is not what prctl says",
            self.text("/proc/self/comm").trim_end() == self.text("prctl.name"),
        );
        check(
            "AT_RANDOM is all zero",
            self.bytes("random").iter().any(|&byte| byte != 0),
        );
        check(
            "there is no vdso",
            self.aux(33)
                .is_none_or(|_| self.bytes("vdso").starts_with(b"\x7fELF")),
        );
        let flat: Vec<u64> = self
            .auxv()
            .iter()
            .flat_map(|entry| [entry.0, entry.1])
            .collect();
        check(
            "/proc/self/auxv is not what the stack has",
            words(self.bytes("/proc/self/auxv")).starts_with(&flat),
        );
        if self.origin.variant == Static {
            let end = self.stat_number(46).next_multiple_of(4096);
            check("the break is before bss", self.number("brk") >= end);
        }
        wrong
    }
}

const REGISTERS: [&str; 16] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes
        .chunks_exact(8)
        .map(|word| u64::from_ne_bytes(word.try_into().unwrap()))
        .collect()
}
