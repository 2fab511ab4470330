//! What a program finds when it starts: samples/probe.c tells everything, after execve(2) and after xip-run, and all that
//! differs must be allowed here, with its reason.

#[path = "common/launch.rs"]
mod launch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use launch::{Stage, XIP_RUN, compile, copy_program, finish, have_cc, in_parallel, skip, text};

/// How the probe is linked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Variant {
    /// `ET_EXEC`.
    Static,
    /// `ET_DYN` without interpreter.
    StaticPie,
    /// The probe is the interpreter of a dynamic program: it sees what ld.so would.
    Interpreter,
    /// A dynamic program, probed after the host's ld.so has run.
    Dynamic,
}

use Variant::{Dynamic, Interpreter, Static, StaticPie};

const VARIANTS: [Variant; 4] = [Static, StaticPie, Interpreter, Dynamic];

/// A stage with the probe, its image built.
struct Probed {
    stage: Stage,
    variant: Variant,
    program: PathBuf,
    inherit: PathBuf,
}

impl Probed {
    /// With the probe under these names as well.
    fn new(variant: Variant, names: &[&str]) -> Self {
        const FREE: &str =
            "-nostdlib -ffreestanding -fno-stack-protector -Wl,--build-id=none -Wl,-e,probe_start";
        let kind = match variant {
            Static => "-static -no-pie -fno-pie",
            StaticPie | Interpreter => "-static-pie -fPIE",
            Dynamic => "-pie -fPIE -Wl,--no-as-needed -lc",
        };
        let flags: Vec<&str> = FREE.split(' ').chain(kind.split(' ')).collect();
        let probe = compile("probe", &flags).unwrap();
        let inherit = compile("inherit", &[]).unwrap();

        let stage = Stage::new();
        // For those who are nobody.
        fs::set_permissions(stage.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let linked = match variant {
            Interpreter => {
                let interpreter = stage.add_program(&probe, "interpreter");
                program_with_interpreter(&stage, &interpreter)
            }
            _ => probe,
        };
        for name in names {
            copy_program(&linked, &stage.path().join(name));
            stage.add_at(&linked, &Path::new("/").join(name));
        }
        let program = stage.add_program(&linked, "probe");
        stage.build::<&str>(&[]);
        Self {
            stage,
            variant,
            program,
            inherit,
        }
    }

    /// Starts the probe natively and in place and compares. The environment is `env`, `inherits` is what to set up.
    fn compare(&self, case: &Case<'_>) -> Vec<String> {
        let mut facts = Vec::new();
        for in_place in [false, true] {
            let mut command = Command::new(&self.inherit);
            command.env_clear().envs(case.env.iter().copied());
            command.current_dir(self.stage.path());
            command.args(case.inherits).arg("--");
            if in_place {
                command.arg(XIP_RUN).arg("--no-root").arg("--image");
                command.arg(self.stage.image());
            }
            let program = case.path.map_or(self.program.clone(), PathBuf::from);
            command.arg(&program).args(case.args);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let output = finish(command.spawn().unwrap());
            if !output.status.success() {
                let way = if in_place { "in place" } else { "natively" };
                return vec![format!(
                    "{:?}, {case:?} {way}: {}: {}",
                    self.variant,
                    output.status,
                    text(&output.stderr)
                )];
            }
            facts.push(Facts::parse(&output.stdout, in_place, self));
        }
        let (native, in_place) = (facts[0].normalized(case), facts[1].normalized(case));
        let mut differences = Vec::new();
        for name in native
            .keys()
            .chain(in_place.keys())
            .collect::<BTreeSet<_>>()
        {
            let (native, in_place) = (native.get(name), in_place.get(name));
            if native != in_place {
                differences.push(format!(
                    "{:?}, {case:?}: {name}:\n    native   {native:?}\n    in place {in_place:?}",
                    self.variant
                ));
            }
        }
        for facts in &facts {
            differences.extend(
                facts
                    .contradictions()
                    .into_iter()
                    .map(|what| format!("{:?}, {case:?}: {what}", self.variant)),
            );
        }
        differences
    }
}

/// What the probe is started with.
#[derive(Clone, Copy, Debug, Default)]
struct Case<'a> {
    inherits: &'a [&'a str],
    env: &'a [(&'a str, &'a str)],
    args: &'a [&'a str],
    /// Instead of the absolute one.
    path: Option<&'a str>,
}

impl Case<'_> {
    fn addresses_are_fixed(&self) -> bool {
        self.inherits.contains(&"fixed-addresses")
    }
}

/// A small dynamic program whose interpreter is that one.
fn program_with_interpreter(stage: &Stage, interpreter: &Path) -> PathBuf {
    let placeholder = "/".repeat(200);
    let linker = format!("-Wl,--dynamic-linker={placeholder}");
    let flags = "-nostdlib -pie -fPIE -ffreestanding -fno-stack-protector -Wl,--build-id=none -Wl,--no-as-needed -lc";
    let flags: Vec<&str> = flags.split(' ').chain([linker.as_str()]).collect();
    let mut bytes = fs::read(compile("bss-none", &flags).unwrap()).unwrap();
    let at = bytes
        .windows(200)
        .position(|window| window == placeholder.as_bytes())
        .unwrap();
    bytes[at..at + 200].fill(0);
    let path = interpreter.as_os_str().as_encoded_bytes();
    bytes[at..at + path.len()].copy_from_slice(path);
    let program = stage.path().join("dynamic");
    fs::write(&program, bytes).unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    program
}

// ---- what the probe said

/// The probe's sections, and what is needed to understand the addresses in them.
struct Facts {
    sections: BTreeMap<String, Vec<u8>>,
    in_place: bool,
    variant: Variant,
    program: PathBuf,
    interpreter: Option<PathBuf>,
    image: PathBuf,
}

impl Facts {
    fn parse(output: &[u8], in_place: bool, probed: &Probed) -> Self {
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
        let interpreter = match probed.variant {
            Interpreter => Some(probed.stage.path().join("interpreter")),
            Dynamic => {
                launch::interpreter(&probed.program).map(|path| fs::canonicalize(path).unwrap())
            }
            _ => None,
        };
        Self {
            sections,
            in_place,
            variant: probed.variant,
            program: probed.program.clone(),
            interpreter,
            image: probed.stage.image(),
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
    fn normalized(&self, case: &Case<'_>) -> BTreeMap<String, String> {
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
                "flags" | "vector" if self.variant == Dynamic => continue,
                // The file that the kernel executed is the session's memfd. PR_SET_MM_EXE_FILE could tell the truth only
                // if the image were mounted.
                "/proc/self/exe" if self.in_place => {
                    let path = case.path.map_or(self.program.clone(), PathBuf::from);
                    let mut name = format!("/memfd:xip-run:{}", path.display());
                    // Of a memfd's name 249 bytes are kept.
                    name.truncate("/memfd:".len() + 249);
                    assert_eq!(text(value), format!("{name} (deleted)"));
                    continue;
                }
                "/proc/self/exe" => {
                    assert_eq!(
                        text(value),
                        self.program
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
        let path = case.path.map_or(self.program.clone(), PathBuf::from);
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
                _ if self.variant == Dynamic => {}
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
        self.variant == StaticPie || kind == AT_BASE
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
        let shown = match self.variant {
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
                "" if self.variant == Dynamic => "anonymous".into(),
                "" => match &above {
                    Some((above_end, owner)) if *above_end == start => {
                        format!("anonymous behind {owner}")
                    }
                    _ => "anonymous".into(),
                },
                _ if Path::new(&path) == self.image => object.clone(),
                _ if self.is_file(&path, &self.program, &object) => "program".into(),
                _ if self
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

    fn contradictions(&self) -> Vec<String> {
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
            self.stat_number(28) == self.sp() || self.variant == Dynamic,
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
        if self.variant == Static {
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

fn all_variants(names: &[&str], test: impl Fn(&Probed) -> Vec<String> + Sync) {
    if !have_cc() {
        return;
    }
    let differences =
        in_parallel(&VARIANTS, |&variant| test(&Probed::new(variant, names))).concat();
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}

const ENV: &[(&str, &str)] = &[("A", "1"), ("LONGER", "some value"), ("EMPTY", "")];

#[test]
fn everything_is_as_after_execve() {
    all_variants(&[], |probed| {
        probed.compare(&Case {
            env: ENV,
            args: &["x", "", "a b", "yyyyyyyy"],
            ..Case::default()
        })
    });
}

#[test]
fn without_randomization_the_addresses_are_those_of_execve() {
    all_variants(&[], |probed| {
        let inherits = &["fixed-addresses"];
        probed.compare(&Case {
            inherits,
            env: ENV,
            args: &["x"],
            ..Case::default()
        })
    });
}

#[test]
fn without_environment() {
    all_variants(&[], |probed| {
        probed.compare(&Case {
            args: &["x"],
            ..Case::default()
        })
    });
}

/// The stack pointer is aligned whatever the number and the lengths of the arguments.
#[test]
fn with_any_number_of_arguments() {
    all_variants(&[], |probed| {
        let longest = "x".repeat(21);
        let args: Vec<&str> = (0..=20).map(|len| &longest[..len | 1]).collect();
        let cases = 0..args.len();
        cases
            .flat_map(|count| {
                probed.compare(&Case {
                    env: &ENV[..count % 3],
                    args: &args[..count],
                    ..Case::default()
                })
            })
            .collect()
    });
}

/// `AT_EXECFN` is put on the stack by the stub: lengths around its alignment, and the longest.
#[test]
fn with_paths_of_any_length() {
    let long_name = "n".repeat(251);
    all_variants(&["p", "pp", &long_name], |probed| {
        let path = |len: usize| {
            let name = if len % 2 == 1 { "p" } else { "pp" };
            "./".repeat((len - name.len()) / 2) + name
        };
        let mut paths: Vec<String> = [
            1, 2, 7, 8, 15, 16, 17, 31, 32, 248, 249, 255, 256, 3999, 4000, 4095,
        ]
        .map(path)
        .to_vec();
        paths.push(long_name.clone());
        paths
            .iter()
            .flat_map(|path| {
                probed.compare(&Case {
                    env: ENV,
                    path: Some(path),
                    ..Case::default()
                })
            })
            .collect()
    });
}

/// What execve(2) passes on is passed on, what it resets is reset.
#[test]
fn with_all_that_is_inherited() {
    let cases: &[&[&str]] = &[
        &["signals"],
        &["timers"],
        &["descriptors"],
        &["stdin-closed"],
        &["stdin-and-stderr-closed"],
        &["limits", "session"],
        &["stack-unlimited"],
        &["stack-small"],
        &["attributes"],
        &["no-new-privs"],
        &["compat-layout"],
        &["read-implies-exec"],
        &[
            "signals",
            "timers",
            "descriptors",
            "stdin-closed",
            "limits",
            "attributes",
            "no-new-privs",
        ],
    ];
    all_variants(&[], |probed| {
        cases
            .iter()
            .flat_map(|inherits| {
                probed.compare(&Case {
                    inherits,
                    env: ENV,
                    ..Case::default()
                })
            })
            .collect()
    });
}

#[test]
fn without_privileges() {
    if !rustix::process::geteuid().is_root() {
        return println!("all the other tests run without privileges");
    }
    if !have_cc() {
        return;
    }
    let inherit = compile("inherit", &[]).unwrap();
    let output = Command::new(inherit)
        .args(["nobody", "--", XIP_RUN, "--version"])
        .output()
        .unwrap();
    if !output.status.success() {
        return skip("nobody may not execute what is in this directory");
    }
    all_variants(&[], |probed| {
        probed.compare(&Case {
            inherits: &["nobody"],
            env: ENV,
            args: &["x"],
            ..Case::default()
        })
    });
}
