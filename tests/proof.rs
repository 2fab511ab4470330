//! What it is all for, measured: the RAM of a system in an initramfs, in tmpfs, and in flash with xip-run as its first
//! process; and the least RAM with which it works. `tests/rigs/run proof` prints the tables of the README,
//! `tests/rigs/run proof NAME` one board's; `tests/rigs/run proof-cramfs` that of one kernel which can execute from flash
//! itself, for which tests/rigs/kernel builds it.

#[path = "rigs/mod.rs"]
mod boards;
#[path = "common/mod.rs"]
mod common;
#[path = "common/launch.rs"]
mod launch;
#[path = "common/release.rs"]
mod release;

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use boards::board::Board;
use boards::machine::{Machine, TIME_LIMIT};
use boards::possible::{Ground, cache, log};
use boards::rig::Rig;
use boards::system::{System, copy, run};
use boards::{board, newc};

/// The rigs, and the figures of the kernel's own cramfs XIP on their architectures (Linux 6.1, tinyconfig, the same
/// shell): the first shell, each further one, in KiB.
const RIGS: [(&str, &str, &str); 3] = [
    ("armv7-nor", "100-104", "78-79"),
    ("aarch64-dax-nor", "104-136", "104-108"),
    ("x86_64-nor", "140-144", "103-104"),
];
/// What the kernel is called that tests/rigs/kernel builds: tests/rigs/rig.rs.
const ONE_KERNEL: &str = "cramfs";
const APPLETS: [&str; 16] = [
    "cat",
    "cp",
    "echo",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mount",
    "poweroff",
    "seq",
    "sh",
    "sleep",
    "sort",
    "switch_root",
    "umount",
    "wc",
];
/// Typed at the prompt, to find the least RAM: eight pipelines at once.
const WORK: &str =
    "for i in 1 2 3 4 5 6 7 8; do seq 1 3000 | sort -r | md5sum & done; wait; echo WORK \"DONE\"";
/// Typed at the prompt, to see the free memory. It starts nothing.
const ZONES: &str =
    "while read -r line; do echo \"$line\"; done </proc/zoneinfo; echo ZONES \"DONE\"";
/// RAM of the boards.
const BOARD_KIB: u64 = 128 << 10;
/// The least RAM is found to so many KiB.
const STEP_KIB: u64 = 256;
/// So often the shells are measured.
const BOOTS: usize = 5;
const PROMPT: &str = "/ # ";

/// Where the system is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Initramfs,
    Tmpfs,
    /// In flash, mounted by the kernel, which executes from it.
    Cramfs,
    /// In flash, with xip-run.
    Flash,
}

struct Bench {
    ground: Ground,
    kernel: PathBuf,
    flash: PathBuf,
    image: PathBuf,
    meter: PathBuf,
    /// Takes RAM before the first process.
    hog: PathBuf,
}

impl Bench {
    /// With the rig's own kernel, or one that was brought: tests/rigs/rig.rs.
    fn new(name: &str, kernel: Option<&str>) -> Option<Self> {
        let mut rig = Rig::read(name);
        if let Some(kernel) = kernel {
            kernel.clone_into(&mut rig.kernel_suite);
        }
        let ground = Ground::of(rig)?;
        let dir = ground.dir.path();
        let root = dir.join("tree");
        let meter = ground.helper("meter");
        plant(&ground, &meter, &root);
        copy(&ground.programs.join("xip-run"), &root.join("sbin/xip-run"));
        let system = board::make_system(&ground.rig, &cache(), &root, dir);
        Some(Self {
            kernel: system.kernel,
            flash: system.flash,
            image: system.image,
            meter,
            hog: ground.helper("hog"),
            ground,
        })
    }

    /// The initramfs, and the words of the command line, for a system whose first process is `init` of the tree.
    fn prepare(&self, place: Place, init: &str) -> (PathBuf, String) {
        let Ground { rig, programs, dir } = &self.ground;
        let to = dir.path().join("initramfs");
        let root = dir.path().join("initramfs-root");
        let _ = fs::remove_dir_all(&root);
        let mut board = Board::read(&rig.name);
        if place == Place::Flash {
            if rig.kernel_suite == ONE_KERNEL {
                // A recipe of a kernel that has all built in.
                board = Board {
                    cmdline: board.cmdline,
                    ..Board::read("x86_64-nor")
                };
            }
            let modules = self.kernel.with_file_name("modules");
            let more = format!("\nfile /hog {} 0755 0 0\n", self.hog.display());
            board.initramfs(&more, programs, &modules, &to);
            return (
                to,
                format!("{} {} xip.init={init}", board.cmdline, board::SHORT),
            );
        }
        if place == Place::Initramfs {
            plant(&self.ground, &self.meter, &root);
            symlink(init.trim_start_matches('/'), root.join("init")).unwrap();
            copy(&self.hog, &root.join("hog"));
        } else {
            fs::create_dir_all(root.join("root")).unwrap();
            plant(&self.ground, &self.meter, &root.join("tree"));
            let fill = match place {
                Place::Cramfs => "mount -t cramfs mtd0 /root",
                _ => "mount -t tmpfs tmpfs /root\ncp -a /tree/. /root",
            };
            let script =
                format!("#!/tree/bin/sh\nPATH=/tree/bin\n{fill}\nexec switch_root /root {init}\n");
            fs::write(root.join("init"), script).unwrap();
            fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).unwrap();
        }
        newc::archive(&root, &mut File::create(&to).unwrap()).unwrap();
        let console = rig.arch.console;
        (to, format!("console={console} {}", board::SHORT))
    }

    /// Boots it with `taken_kib` of its RAM taken; what it said, if it came to its end.
    fn boot(
        &self,
        place: Place,
        init: &str,
        taken_kib: u64,
        answers: &[(&str, &str)],
    ) -> Option<String> {
        let (initramfs, mut append) = self.prepare(place, init);
        if taken_kib > 0 {
            // A machine that ran out of memory would do nothing more until its time is over.
            append += &format!(" sysctl.vm.panic_on_oom=1 rdinit=/hog hog={taken_kib}");
        }
        let Ground { rig, dir, .. } = &self.ground;
        let tree = match place {
            Place::Flash => Board::read(&rig.name).tree(rig, dir.path()),
            _ => None,
        };
        let machine = Machine {
            tree: tree.as_deref(),
            append,
            memory_kib: BOARD_KIB,
            limit: TIME_LIMIT,
        };
        let system = System {
            kernel: self.kernel.clone(),
            initramfs,
            flash: self.flash.clone(),
            image: self.image.clone(),
        };
        let log = log(&format!("{}-proof", rig.name));
        let (said, ended) = machine.run(rig, &system, &log, answers);
        ended.ok().map(|()| said)
    }

    /// Seconds to the prompt, and KiB that are free then.
    fn prompt(&self, place: Place) -> (f64, u64) {
        let answers = [(PROMPT, ZONES), ("ZONES DONE", "poweroff -f")];
        let said = self.boot(place, "/sbin/init", 0, &answers).unwrap();
        let seconds = said
            .lines()
            .find_map(|line| line.strip_prefix("UPTIME "))
            .unwrap();
        let pages = said.lines().map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["pages", "free", number] | ["count:", number] => number.parse::<u64>().unwrap(),
                _ => 0,
            }
        });
        (seconds.parse().unwrap(), pages.sum::<u64>() * 4)
    }

    /// KiB of the first shell, and of each further one: the medians of some boots. Where a stack begins, and so how many pages
    /// it touches, is random, and the kernel may start a thread of its own meanwhile: that boot counts for nothing.
    fn shells(&self, place: Place) -> (f64, f64) {
        let (mut first, mut further) = (Vec::new(), Vec::new());
        for _ in 0..4 * BOOTS {
            let said = self.boot(place, "/rig/meter", 0, &[]).unwrap();
            let line = said
                .lines()
                .find_map(|line| Some(line.split_once("METER: ")?.1));
            let line = line.unwrap_or_else(|| panic!("{said}"));
            let numbers: Vec<f64> = line.split(' ').map(|word| word.parse().unwrap()).collect();
            if numbers[2] == 0.0 {
                first.push(numbers[0]);
                further.push(numbers[1]);
            }
            if first.len() == BOOTS {
                break;
            }
        }
        assert_eq!(first.len(), BOOTS, "other threads come all the time");
        eprintln!("first {first:?}, further {further:?}");
        let median = |mut values: Vec<f64>| {
            values.sort_unstable_by(f64::total_cmp);
            values[values.len() / 2]
        };
        (median(first), median(further))
    }

    /// The least KiB with which the prompt comes and the work is done. How much is needed at once depends on how the
    /// processes take turns, which is not the same twice: what fails is tried again.
    fn least(&self, place: Place) -> u64 {
        let works = |taken_kib: u64| {
            let answers = [(PROMPT, WORK), ("WORK DONE", "poweroff -f")];
            let said = self.boot(place, "/sbin/init", taken_kib, &answers);
            let done = said.is_some_and(|said| said.contains("WORK DONE\n"));
            eprintln!("{taken_kib} KiB taken: {done}");
            done
        };
        let (mut good, mut fails) = (0, BOARD_KIB);
        while fails - good > STEP_KIB {
            let between = (good + fails) / 2;
            match works(between) || works(between) {
                true => good = between,
                false => fails = between,
            }
        }
        BOARD_KIB - good
    }
}

/// A small system: busybox, its init's files, and what measures.
fn plant(ground: &Ground, meter: &Path, root: &Path) {
    for name in [
        "bin", "sbin", "etc", "proc", "sys", "dev", "tmp", "run", "rig",
    ] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    let busybox = ground.userland().join("bin/busybox");
    copy(&busybox, &root.join("bin/busybox"));
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    symlink("../bin/busybox", root.join("sbin/init")).unwrap();
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/boards/root/.");
    run(Command::new("cp").arg("-a").args([&samples, root]));
    fs::write(
        root.join("etc/profile"),
        "read up rest </proc/uptime; echo UPTIME $up\n",
    )
    .unwrap();
    copy(meter, &root.join("rig/meter"));
}

#[test]
#[ignore = "takes minutes: tests/rigs/run proof"]
fn proof() {
    let only = std::env::var("XIP_PROOF_BOARD").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || name == only;
    assert!(
        RIGS.iter().any(|(name, ..)| wanted(name)),
        "no board {only}"
    );
    let benches: Vec<_> = RIGS
        .iter()
        .filter(|(name, ..)| wanted(name))
        .filter_map(|(name, first, further)| Some((Bench::new(name, None)?, first, further)))
        .collect();
    println!(
        "| board of 128 MiB | busybox in | free at the prompt, KiB | first shell, KiB | each further, KiB | prompt after, s |"
    );
    println!("|---|---|---|---|---|---|");
    for (bench, kernel_first, kernel_further) in &benches {
        let arch = bench.ground.rig.arch.name;
        for (place, title) in [
            (Place::Initramfs, "initramfs"),
            (Place::Tmpfs, "tmpfs"),
            (Place::Flash, "flash, xip-run"),
        ] {
            let (seconds, free) = bench.prompt(place);
            let (first, further) = bench.shells(place);
            println!("| {arch} | {title} | {free} | {first} | {further:.1} | {seconds:.1} |");
        }
        println!("| {arch} | the kernel's cramfs XIP | | {kernel_first} | {kernel_further} | |");
    }
    println!("\n| least RAM, KiB | initramfs | flash, xip-run |\n|---|---|---|");
    for (bench, ..) in &benches {
        let (ram, flash) = (bench.least(Place::Initramfs), bench.least(Place::Flash));
        println!("| {} | {ram} | {flash} |", bench.ground.rig.arch.name);
    }
}

#[test]
#[ignore = "it needs a kernel of its own: tests/rigs/run proof-cramfs"]
fn proof_on_one_kernel() {
    println!("| board, Linux 6.1 | busybox in | first shell, KiB | each further, KiB |");
    println!("|---|---|---|---|");
    for name in ["armv7-nor", "x86_64-nor"] {
        let Some(bench) = Bench::new(name, Some(ONE_KERNEL)) else {
            return;
        };
        for (place, title) in [
            (Place::Tmpfs, "tmpfs"),
            (Place::Cramfs, "flash, the kernel's cramfs XIP"),
            (Place::Flash, "flash, xip-run"),
        ] {
            let (first, further) = bench.shells(place);
            println!(
                "| {} | {title} | {first} | {further:.1} |",
                bench.ground.rig.arch.name
            );
        }
    }
}
