//! The judge of the layout's rules: the running kernel. Hand-made programs are really executed, and what
//! `/proc/PID/{maps,mem,stat,auxv}` say of them is compared with their plans.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::*;
use crate::elf::Machine;

/// A program that waits for a signal (or spins), to be put at its entry.
const CODE: &[u8] = if cfg!(target_arch = "x86_64") {
    // mov $34, %eax (pause); syscall; jmp back
    &[0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]
} else if cfg!(target_arch = "aarch64") {
    &[0x00, 0x00, 0x00, 0x14]
} else if cfg!(target_arch = "riscv64") {
    &[0x6f, 0x00, 0x00, 0x00]
} else {
    &[0xfe, 0xff, 0xff, 0xea]
};
const CODE_AT: u64 = 0x800;
const FILE_LEN: usize = 0xb234;

/// What Linux made of a program: protection and bytes of each page, and the numbers it keeps.
struct Native {
    pages: BTreeMap<u64, (String, Vec<u8>)>,
    /// `start_code end_code start_data end_data`, fields 26, 27, 45 and 46 of `/proc/PID/stat`.
    stat: [u64; 4],
    auxv: BTreeMap<u64, u64>,
}

/// Ends the process, whatever happens to the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the program. `None` if Linux refuses it or kills it at once.
fn run(path: &Path) -> Option<Running> {
    loop {
        let child = Command::new(path).stdin(Stdio::null()).spawn();
        match child {
            Ok(child) => return Some(Running(child)),
            // Another test's fork still has the file open for writing.
            Err(err) if err.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
            Err(_) => return None,
        }
    }
}

/// Fields of `/proc/PID/stat`, by their numbers in proc(5).
fn stat(proc: &str, fields: [usize; 4]) -> Option<[u64; 4]> {
    let stat = fs::read_to_string(format!("{proc}/stat")).ok()?;
    let all: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    Some(fields.map(|number| all[number - 3].parse().unwrap()))
}

fn look(path: &Path, page: u64) -> Option<Native> {
    let mut running = run(path)?;
    let proc = format!("/proc/{}", running.0.id());
    // The parent of a vfork goes on when the old address space is left, before the new one is complete. The numbers
    // are set last, one after the other; none is zero.
    let stat = loop {
        if running.0.try_wait().ok()?.is_some() {
            return None;
        }
        match stat(&proc, [26, 27, 45, 46])? {
            stat if stat.contains(&0) => std::thread::yield_now(),
            stat => break stat,
        }
    };
    let maps = fs::read_to_string(format!("{proc}/maps")).ok()?;
    let mem = File::open(format!("{proc}/mem")).ok()?;
    let mut pages = BTreeMap::new();
    for line in maps.lines() {
        // Others are the kernel's; anonymous ones have no name.
        let name = line.split_ascii_whitespace().nth(5).unwrap_or_default();
        if !name.is_empty() && Path::new(name) != path {
            continue;
        }
        let (range, rest) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).unwrap());
        for at in (start..end).step_by(page as usize) {
            let mut bytes = vec![0; page as usize];
            mem.read_exact_at(&mut bytes, at).ok()?;
            pages.insert(at, (rest[..3].to_owned(), bytes));
        }
    }
    let auxv = fs::read(format!("{proc}/auxv")).ok()?;
    let words = auxv
        .chunks_exact(size_of::<usize>())
        .map(|word| usize::from_ne_bytes(word.try_into().unwrap()) as u64)
        .collect::<Vec<_>>();
    (!pages.is_empty()).then(|| Native {
        pages,
        stat,
        auxv: words
            .chunks_exact(2)
            .map(|pair| (pair[0], pair[1]))
            .collect(),
    })
}

/// What the plan would show.
fn planned(plan: &LaunchPlan, image: &Image, page: u64) -> BTreeMap<u64, (String, Vec<u8>)> {
    let file = ImageFile::open(image, &plan.program.inode).unwrap();
    let mut pages = BTreeMap::new();
    for mapping in &plan.program.mappings {
        let mut bytes = vec![0; mapping.pages.len_bytes() as usize];
        if let Source::Direct { at } = mapping.source {
            image.read_exact_at(&mut bytes, at.0).unwrap();
        }
        if let Some(copied) = mapping.copied_bytes(&file).unwrap() {
            bytes = copied;
        }
        if let Some(clear) = &mapping.clear {
            bytes[(clear.start - mapping.pages.start()) as usize..].fill(0);
        }
        for (number, bytes) in bytes.chunks(page as usize).enumerate() {
            let at = mapping.pages.start() + number as u64 * page;
            pages.insert(at, (mapping.prot.to_string(), bytes.to_vec()));
        }
    }
    pages
}

/// Does the plan of these segments (after one with the code) show what Linux shows?
fn compare(phdrs: &[Phdr], kind: u16, dir: &Path, page: PageSize) -> Result<bool, TestCaseError> {
    let mut all = vec![Phdr {
        align: page.bytes(),
        ..load(0, 0x40_0000, 0x1000, 0x1000, RX)
    }];
    all.extend_from_slice(phdrs);
    let maker = Maker {
        machine: Machine::HOST,
        kind,
        entry: 0x40_0000 + CODE_AT,
        ..Maker::fixed(FILE_LEN, &all)
    };
    let mut bytes = maker.build();
    bytes[CODE_AT as usize..][..CODE.len()].copy_from_slice(CODE);
    let path = dir.join("native");
    let _ = fs::remove_file(&path);
    fs::write(&path, &bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let native = look(&path, page.bytes());

    let image = image(&[TestFile::program("p", bytes)]);
    let options = PlanOptions {
        machine: Some(Machine::HOST),
        ..PlanOptions::new(page)
    };
    let plan = match LaunchPlan::new(&image, b"/p", &options) {
        Ok(plan) => plan,
        Err(err) => {
            // The rules that are stricter than Linux and that these programs can meet.
            let err = err.to_string();
            let stricter =
                err.contains("beyond the file's end") || err.contains("segments must ascend");
            prop_assert!(
                native.is_none() || stricter,
                "Linux runs what is refused: {}",
                err
            );
            return Ok(false);
        }
    };
    plan.verify(&image).unwrap();
    let Some(native) = native else {
        return Err(TestCaseError::fail("Linux refuses what has a plan"));
    };
    /// `AT_PHDR`, `AT_PHENT`, `AT_PHNUM`, `AT_ENTRY`
    const AUXV: [u64; 4] = [3, 4, 5, 9];
    let program = &plan.program;
    let bias = native.auxv[&9] - program.entry;
    prop_assert_eq!(bias % program.align_bytes, 0);
    let span = program.span.start() + bias..program.span.end() + bias;
    let shown: BTreeMap<u64, (String, Vec<u8>)> = native
        .pages
        .into_iter()
        .filter(|(at, _)| span.contains(at))
        .map(|(at, page)| (at - bias, page))
        .collect();
    let planned = planned(&plan, &image, page.bytes());
    let list = |pages: &BTreeMap<u64, (String, Vec<u8>)>| -> Vec<String> {
        pages
            .iter()
            .map(|(at, (prot, bytes))| {
                format!("{at:x} {prot} {:x}..{:x}", bytes[0], bytes[bytes.len() - 1])
            })
            .collect()
    };
    prop_assert_eq!(list(&shown), list(&planned));
    prop_assert!(shown == planned);
    let numbers = [
        program.start_code,
        program.end_code,
        program.start_data,
        program.end_data,
    ];
    prop_assert_eq!(native.stat, numbers.map(|number| number + bias));
    let auxv = [
        program.phdr_addr + bias,
        u64::from(program.phent_bytes),
        u64::from(program.phnum),
        program.entry + bias,
    ];
    prop_assert_eq!(AUXV.map(|key| native.auxv[&key]), auxv);
    Ok(true)
}

/// Segments after the code's page: overlapping, with and without bss, some of them not congruent.
fn segments() -> impl Strategy<Value = Vec<Phdr>> {
    let one = (
        0u64..3,
        0u64..9,
        prop_oneof![Just(0u64), 0u64..0x1000],
        prop_oneof![1 => Just(0u64), 4 => 1u64..0x3000],
        prop_oneof![1 => Just(0u64), 2 => 0u64..0x2800],
        prop::sample::select(vec![R, RW, RX, 7, 0]),
        prop_oneof![9 => Just(0u64), 1 => 1u64..0x1000],
    );
    vec(one, 0..5).prop_map(|all| {
        let mut next = 0x40_1000;
        all.into_iter()
            .map(|(gap, page, skew, filesz, extra, flags, slip)| {
                let offset = page * 0x1000 + skew;
                let vaddr = next + gap * 0x1000 + skew;
                // Now and then the next one starts on this one's last page, or within it.
                next = (vaddr + (filesz + extra) * (1 + gap) / 3) & !0xfff;
                load(offset ^ slip, vaddr, filesz, filesz + extra, flags)
            })
            .collect()
    })
}

#[test]
fn linux_shows_what_the_plan_shows() {
    let page = PageSize::of_running_kernel().unwrap();
    let dir = tempfile::tempdir().unwrap();
    match compare(&[], 2, dir.path(), page) {
        Ok(true) => {}
        other if std::env::var_os("CI").is_some() => panic!("{other:?}"),
        other => {
            println!("skipped: cannot run or look at a hand-made program here: {other:?}");
            return;
        }
    }
    let mut runner = TestRunner::new(Config {
        cases: 256,
        failure_persistence: None,
        ..Config::default()
    });
    let compared = std::cell::Cell::new(0);
    let result = runner.run(&(segments(), 2u16..4), |(phdrs, kind)| {
        if compare(&phdrs, kind, dir.path(), page)? {
            compared.set(compared.get() + 1);
        }
        Ok(())
    });
    if let Err(err) = result {
        panic!("{err}");
    }
    let compared = compared.get();
    println!("{compared} programs compared");
    assert!(compared > 64, "only {compared} programs had a plan");
}
