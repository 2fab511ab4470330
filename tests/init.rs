//! xip-run as the first process of a system: every recipe of samples/boards boots as it is, its init is busybox's, and
//! everything is in place. What goes wrong ends in a message.
//!
//! `tests/rigs/run NAME-init` fetches what is needed and runs one. What the machine said is kept in target/tmp/rigs/logs.

#[path = "rigs/mod.rs"]
mod boards;
#[path = "common/mod.rs"]
mod common;
#[path = "common/launch.rs"]
mod launch;
#[path = "common/release.rs"]
mod release;

use std::fs;
use std::path::PathBuf;

use boards::board::Board;
use boards::machine::Machine;
use boards::possible::{cache, possible};
use boards::rig::Rig;
use boards::system::System;
use boards::{board, machine, rig};

/// Memory of a machine, unless its rig has its own.
const MEMORY_KIB: u64 = 512 << 10;

macro_rules! boards {
    ($($test:ident: $name:literal, $end:literal;)*) => {
        const BOARDS: &[&str] = &[$($name),*];
        $(
            #[test]
            fn $test() {
                boots($name, $end);
            }
        )*
    };
}

boards! {
    aarch64_dax_nor_init: "aarch64-dax-nor", "poweroff";
    armv7_nor_init: "armv7-nor", "reboot";
    riscv64_ram_init: "riscv64-ram", "poweroff";
    x86_64_dax_init: "x86_64-dax", "poweroff";
    x86_64_nor_init: "x86_64-nor", "poweroff";
    x86_64_ram_init: "x86_64-ram", "reboot";
    x86_64_virtio_pmem_init: "x86_64-virtio-pmem", "poweroff";
}

/// Rigs that are variants of others.
const WITHOUT_RECIPE: [&str; 4] = [
    "aarch64-16k-dax",
    "aarch64-64k",
    "armv7-a9-nor",
    "x86_64-devices",
];

#[test]
fn every_rig_has_a_recipe() {
    let mut names = rig::names();
    names.retain(|name| !WITHOUT_RECIPE.contains(&name.as_str()));
    assert_eq!(names, BOARDS);
    for name in BOARDS {
        let (rig, board) = (Rig::read(name), Board::read(name));
        // They are of the same machine.
        for word in rig.append.split_whitespace() {
            assert!(board.cmdline.contains(word), "{name}: {word}");
        }
        assert!(
            board
                .cmdline
                .contains(&format!("console={}", rig.arch.console))
        );
        // Where there is a filesystem too, the image is a file of that.
        if let (Some(window), None) = (&rig.window, &rig.mount) {
            assert!(
                board
                    .cmdline
                    .contains(&format!("xip.image=/dev/mem@{window}")),
                "{name}"
            );
        }
        let layout = fs::read_to_string(board.directory.join("flash.layout")).unwrap();
        let (start, bytes, content) = board::layout(&rig);
        let row = layout.lines().find(|line| !line.starts_with('#')).unwrap();
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words[0], format!("{start:#010x}"), "{name}");
        assert_eq!(words[1], format!("{}M", bytes >> 20), "{name}");
        assert_eq!(words[2], content, "{name}");
        assert_eq!(
            !rig.nodes.is_empty(),
            board.directory.join("flash.dtso").exists()
        );
    }
}

#[test]
fn the_kernels_have_what_the_recipes_name() {
    for name in BOARDS {
        let rig = Rig::read(name);
        if !possible(&rig) {
            return;
        }
        let kernel = format!("{}-{}", rig.arch.debian, rig.kernel_suite);
        let config =
            fs::read_to_string(cache().join("kernels").join(kernel).join("config")).unwrap();
        let board = Board::read(name);
        let wanted = fs::read_to_string(board.directory.join("kernel.config")).unwrap();
        let mut options = 0;
        for option in wanted.lines().filter(|line| !line.starts_with('#')) {
            assert!(
                config.lines().any(|line| line == option),
                "{name}: {option}"
            );
            options += 1;
        }
        assert!(options > 8, "{name}");
    }
}

/// A board that is ready to boot.
struct Ready {
    rig: Rig,
    board: Board,
    system: System,
    programs: PathBuf,
    modules: PathBuf,
    dir: tempfile::TempDir,
}

impl Ready {
    /// `None`, which is said, if it cannot be.
    fn new(name: &str, end: &str) -> Option<Self> {
        let rig = Rig::read(name);
        if !possible(&rig) {
            return None;
        }
        let programs = release::programs(rig.arch.target)?;
        let dir = tempfile::Builder::new()
            .prefix(name)
            .tempdir_in(cache())
            .unwrap();
        let root = dir.path().join("image");
        board::plant_system(
            &cache().join("userland").join(rig.arch.debian),
            &programs,
            &root,
        );
        // Text and constants, whatever the architecture, are most of the program.
        let busybox_kib = fs::metadata(root.join("bin/busybox")).unwrap().len() / 1024 * 9 / 10;
        let conf = format!("busybox_kib={busybox_kib}\nend={end}\n");
        fs::write(root.join("rig/init-conf"), conf).unwrap();
        let inittab = root.join("etc/inittab");
        let text = fs::read_to_string(&inittab).unwrap();
        fs::write(&inittab, format!("{text}::once:/rig/init-checks\n")).unwrap();
        let system = board::make_system(&rig, &cache(), &root, dir.path());
        let modules = system.kernel.with_file_name("modules");
        Some(Self {
            board: Board::read(name),
            rig,
            system,
            programs,
            modules,
            dir,
        })
    }

    /// Boots it with more words on the command line, more lines in the initramfs' list, and answers to what it says. Returns
    /// what it said; the flash must be as it was.
    #[track_caller]
    fn boot(&self, log: &str, words: &str, files: &str, answers: &[(&str, &str)]) -> String {
        self.board
            .initramfs(files, &self.programs, &self.modules, &self.system.initramfs);
        let tree = self.board.tree(&self.rig, self.dir.path());
        let machine = Machine {
            tree: tree.as_deref(),
            append: format!("{} {} {words}", self.board.cmdline, board::SHORT),
            memory_kib: MEMORY_KIB,
            limit: machine::TIME_LIMIT,
        };
        let logs = cache().join("logs");
        fs::create_dir_all(&logs).unwrap();
        let flash = fs::read(&self.system.flash).unwrap();
        let path = logs.join(format!("{log}.log"));
        let (said, ended) = machine.run(&self.rig, &self.system, &path, answers);
        assert_eq!(ended, Ok(()), "{said}");
        assert!(
            fs::read(&self.system.flash).unwrap() == flash,
            "the flash has been written to"
        );
        let complaints = machine::complaints_of(&said);
        assert!(complaints.is_empty(), "{said}\n{complaints:#?}");
        said
    }
}

#[track_caller]
fn boots(name: &str, end: &str) {
    let Some(ready) = Ready::new(name, end) else {
        return;
    };
    // What is to be freed: so much that it is seen.
    let ballast = ready.dir.path().join("ballast");
    fs::write(&ballast, vec![0x5a; 8 << 20]).unwrap();
    let files = format!("file /ballast {} 0644 0 0\n", ballast.display());
    let said = ready.boot(&format!("{name}-init"), "xip.log=debug", &files, &[]);
    // A shell's prompt may stand before them.
    let ours: Vec<&str> = said
        .lines()
        .filter_map(|line| Some(line.split_once("RIG: ")?.1))
        .collect();
    for line in &ours {
        println!("{name}: {line}");
    }
    assert!(!said.contains("RIG: FAILED"), "{said}");
    let passed = ours.iter().filter(|line| line.starts_with("ok ")).count();
    assert_eq!((passed, ours.last()), (19, Some(&"end")), "{said}");
    assert!(!said.contains("job control turned off"), "{said}");
    let last_word = match end {
        "reboot" => "reboot: Restarting system",
        _ => "reboot: Power down",
    };
    assert!(said.contains(last_word), "{said}");
}

/// The board that fails in every way: the fastest one.
const FAILING: &str = "x86_64-ram";

/// Says that it cannot be started, and why; then the machine is restarted, as panic= says. The kernel does not panic.
#[track_caller]
fn assert_fails(said: &str, why: &[&str]) {
    let line = said
        .lines()
        .find(|line| line.starts_with("xip-run: the system cannot be started: "))
        .unwrap_or_else(|| panic!("{said}"));
    for why in why {
        assert!(line.contains(why), "{line}");
    }
    assert!(
        said.contains("xip-run: restarting in 0 seconds (panic=-1)"),
        "{said}"
    );
    assert!(said.contains("reboot: Restarting system"), "{said}");
    println!("{line}");
}

#[test]
fn what_cannot_be_started_says_why() {
    let Some(ready) = Ready::new(FAILING, "poweroff") else {
        return;
    };
    let boot = |name: &str, words: &str| {
        let said = ready.boot(&format!("{FAILING}-init-{name}"), words, "", &[]);
        println!("{name}: ");
        said
    };
    // The flash as it should be.
    assert_fails(
        &boot("no-such-image", "xip.image=/dev/mtd7"),
        &["/dev/mtd7"],
    );
    assert_fails(&boot("auto", "xip.image=auto"), &["auto: no image found"]);
    assert_fails(
        &boot("no-init", "xip.init=/sbin/nothing"),
        &["/sbin/nothing"],
    );
    assert_fails(&boot("bind", "xip.bind=/nothing:/mnt"), &["bind=/nothing"]);
    let said = boot("mount", "xip.mount=/dev/ram77:/x:ext4 xip.wrong=1");
    assert_fails(&said, &["mount=/dev/ram77:/x:ext4", "no such device"]);
    assert!(said.contains("xip.wrong=1 on the kernel's command line: unknown"));

    let image = fs::read(&ready.system.flash).unwrap();
    let damaged = |at: usize, len: usize| {
        let mut bytes = image.clone();
        bytes[at..at + len].fill(0xa5);
        fs::write(&ready.system.flash, bytes).unwrap();
    };
    // Its magic.
    damaged(0, 4);
    assert_fails(&boot("magic", ""), &["/dev/mem@0x10000000", "superblock"]);
    // Somewhere in a program.
    damaged(2 << 20, 64);
    assert_fails(&boot("crc", "xip.verify"), &["CRC"]);
    // The root directory.
    damaged(76, 4000);
    let said = boot("metadata", "");
    assert_fails(&said, &["/proc"]);
    assert!(said.contains("xip-run: the image is damaged: "), "{said}");
}

/// What the initramfs needs for a shell.
fn shell_files() -> String {
    let busybox = cache().join("userland/amd64/bin/busybox");
    format!(
        "dir /bin 0755 0 0\nfile /bin/busybox {} 0755 0 0\nslink /bin/sh busybox 0777 0 0\n",
        busybox.display()
    )
}

#[test]
fn a_shell_for_rescue_and_a_second_try() {
    let Some(ready) = Ready::new(FAILING, "poweroff") else {
        return;
    };
    // No shell is there: as without xip.rescue.
    let said = ready.boot(
        "x86_64-ram-init-no-shell",
        "xip.rescue xip.init=/no",
        "",
        &[],
    );
    assert_fails(&said, &["/no"]);
    assert!(
        said.contains("xip.rescue: there is no /bin/sh in the initramfs"),
        "{said}"
    );

    // The configuration lacks the module, and the shell loads it: the second try succeeds.
    let conf = ready.dir.path().join("conf");
    fs::write(&conf, "rescue\n").unwrap();
    let files = format!(
        "{}file /etc/xip-run.conf {} 0644 0 0\n",
        shell_files(),
        conf.display()
    );
    let answers = [
        // In a terminal of its own: ^C ends what runs, not the shell. What it ends says when it has the terminal.
        ("/ # ", "tty; sh -c 'echo $((6 * 7)); sleep 1000'"),
        ("\n42\n", "\x03"),
        ("/ # ", "insmod /modules/fuse.ko; exit"),
        ("RIG: end", ""),
    ];
    let said = ready.boot("x86_64-ram-init-rescue", "", &files, &answers);
    assert!(
        said.contains("the system cannot be started: the root view: open /dev/fuse"),
        "{said}"
    );
    assert!(
        said.contains("xip-run: /bin/sh: when it ends, the start is tried again"),
        "{said}"
    );
    assert!(!said.contains("job control turned off"), "{said}");
    assert!(
        said.contains("RIG: end") && !said.contains("RIG: FAILED"),
        "{said}"
    );
}

#[test]
fn a_shell_or_a_script_as_process_1_and_other_roots() {
    let Some(ready) = Ready::new(FAILING, "poweroff") else {
        return;
    };
    // A shell has the console as its controlling terminal. Its end is the system's: it must not end.
    let answers = [
        ("/ # ", "tty; echo $$; sh -c 'echo $((6 * 7)); sleep 1000'"),
        ("\n42\n", "\x03"),
        ("/ # ", "echo status $?; exec poweroff -f"),
    ];
    let said = ready.boot("x86_64-ram-init-shell", "xip.init=/bin/sh", "", &answers);
    assert!(
        said.contains("/dev/console\n1\n42\n") && said.contains("status 130"),
        "{said}"
    );
    assert!(!said.contains("job control turned off"), "{said}");

    // A script in the initramfs that mounts another root, on which xip-run is /sbin/init, and calls switch_root. That root
    // is no initramfs: it stays.
    let script = ready.dir.path().join("init.sh");
    fs::write(
        &script,
        "#!/bin/sh\nbusybox mkdir /root\nbusybox mount -t tmpfs tmpfs /root\n\
         busybox mkdir -p /root/sbin /root/dev /root/etc /root/modules /root/mnt\n\
         busybox cp /xip-run /root/sbin/init; busybox cp /modules/* /root/modules\n\
         busybox cp /etc/xip-run.conf /root/etc; echo kept >/root/mnt/kept\n\
         exec busybox switch_root /root /sbin/init\n",
    )
    .unwrap();
    let files = format!(
        "{}file /init {} 0755 0 0\nfile /xip-run ${{XIP_RUN}} 0755 0 0\n",
        shell_files(),
        script.display()
    );
    let answers = [("/ # ", "cat /mnt/kept; exec poweroff -f")];
    let said = ready.boot(
        "x86_64-ram-init-switch-root",
        "xip.init=/bin/sh xip.log=debug",
        &files,
        &answers,
    );
    assert!(said.contains("\nkept\n"), "{said}");
    assert!(!said.contains("files of the initramfs deleted"), "{said}");
}
