//! xip-run as the first process of a system: every recipe of samples/boards boots as it is, its init is busybox's, and
//! everything is in place. What goes wrong ends in a message.
//!
//! `tests/rigs/run NAME-init` runs one.

use std::fs;
use std::path::Path;

use super::boards::board::Board;
use super::boards::machine::Machine;
use super::boards::possible::{Ground, cache, log, possible};
use super::boards::rig::Rig;
use super::boards::system::System;
use super::boards::{board, machine, rig};
use super::deny::{self, Deny, NO_PRCTL_SECCOMP, NO_SECCOMP, NO_SET_MM};
use super::launch::skip;

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
    ground: Ground,
    board: Board,
    system: System,
}

impl Ready {
    /// `None`, which is said, if it cannot be.
    fn new(name: &str, end: &str) -> Option<Self> {
        let ground = Ground::new(name)?;
        let dir = ground.dir.path();
        let root = dir.join("image");
        board::plant_system(&ground.userland(), &ground.programs, &root);
        // Text and constants, whatever the architecture, are most of the program.
        let busybox_kib = fs::metadata(root.join("bin/busybox")).unwrap().len() / 1024 * 9 / 10;
        let conf = format!("busybox_kib={busybox_kib}\nend={end}\n");
        fs::write(root.join("rig/init-conf"), conf).unwrap();
        let inittab = root.join("etc/inittab");
        let text = fs::read_to_string(&inittab).unwrap();
        fs::write(&inittab, format!("{text}::once:/rig/init-checks\n")).unwrap();
        Some(Self {
            board: Board::read(name),
            system: board::make_system(&ground.rig, &cache(), &root, dir),
            ground,
        })
    }

    fn path(&self) -> &Path {
        self.ground.dir.path()
    }

    /// Boots it with more words on the command line, more lines in the initramfs' list, and answers to what it says.
    /// Returns what it said; the flash must be as it was.
    #[track_caller]
    fn boot(&self, name: &str, words: &str, files: &str, answers: &[(&str, &str)]) -> String {
        let Ground { rig, programs, dir } = &self.ground;
        let modules = self.system.kernel.with_file_name("modules");
        self.board
            .initramfs(files, programs, &modules, &self.system.initramfs);
        let tree = self.board.tree(rig, dir.path());
        let machine = Machine {
            tree: tree.as_deref(),
            append: format!("{} {} {words}", self.board.cmdline, board::SHORT),
            memory_kib: MEMORY_KIB,
            limit: machine::TIME_LIMIT,
        };
        let flash = fs::read(&self.system.flash).unwrap();
        let (said, ended) = machine.run(rig, &self.system, &log(name), answers);
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
    let files = ballast(&ready);
    let said = ready.boot(&format!("{name}-init"), "xip.log=debug", &files, &[]);
    assert_passes(&said, name, 20, end);
}

/// Files of the initramfs that are to be freed: so much that it is seen.
fn ballast(ready: &Ready) -> String {
    let ballast = ready.path().join("ballast");
    fs::write(&ballast, vec![0x5a; 8 << 20]).unwrap();
    format!("file /ballast {} 0644 0 0\n", ballast.display())
}

/// Its checks have passed, so many, and it has ended as it should.
#[track_caller]
fn assert_passes(said: &str, name: &str, checks: usize, end: &str) {
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
    assert_eq!((passed, ours.last()), (checks, Some(&"end")), "{said}");
    assert!(!said.contains("job control turned off"), "{said}");
    let last_word = match end {
        "reboot" => "reboot: Restarting system",
        _ => "reboot: Power down",
    };
    assert!(said.contains(last_word), "{said}");
}

#[test]
fn without_seccomp_the_system_starts_with_what_is_possible() {
    let lost = [
        "no seccomp filter: seccomp(2)",
        "CONFIG_SECCOMP_FILTER",
        "only the init itself is in place, and it can end the view's server",
    ];
    boots_without("seccomp", &[NO_SECCOMP, NO_PRCTL_SECCOMP], 11, &lost);
}

#[test]
fn without_set_mm_the_system_starts_with_what_is_possible() {
    let lost = [
        "/proc/self/exe cannot be set: prctl(2) PR_SET_MM_MAP",
        "CONFIG_CHECKPOINT_RESTORE",
        "going on: in a session /proc/self/exe is the stub",
    ];
    boots_without("set-mm", &[NO_SET_MM], 20, &lost);
}

/// What the kernel lacks it is made to lack, from before the first process on: then so many checks pass, and it is said what
/// is lost.
#[track_caller]
fn boots_without(what: &str, deny: &[Deny], checks: usize, lost: &[&str]) {
    if cfg!(not(target_arch = "x86_64")) {
        return skip("the filters are of this machine's system calls, not of the board's");
    }
    let Some(ready) = Ready::new(FAILING, "poweroff") else {
        return;
    };
    let lacks = ready.ground.helper("lacks");
    let filter = ready.path().join("filter");
    fs::write(&filter, deny::filter(deny).concat()).unwrap();
    let files = format!(
        "file /lacks {} 0755 0 0\nfile /filter {} 0644 0 0\n{}",
        lacks.display(),
        filter.display(),
        ballast(&ready)
    );
    let words = format!("rdinit=/lacks lacks={what}");
    let name = format!("{FAILING}-init-without-{what}");
    let said = ready.boot(&name, &words, &files, &[]);
    assert_passes(&said, &name, checks, "poweroff");
    let lines = said.lines().filter(|line| line.starts_with("xip-run: "));
    let lines: Vec<&str> = lines.collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    for what in lost {
        assert!(lines[0].contains(what), "{what}: {}", lines[0]);
    }
    println!("{}", lines[0]);
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
    let Some(mut ready) = Ready::new(FAILING, "poweroff") else {
        return;
    };
    let name = format!("{FAILING}-init-no-such-image");
    assert_fails(
        &ready.boot(&name, "xip.image=/dev/mtd7", "", &[]),
        &["/dev/mtd7"],
    );

    // One boot for the others: in place of the shell for rescue a script gets the next one ready.
    let own = "xip.image=/dev/mem@0x10000000";
    ready.board.cmdline = ready.board.cmdline.replace(own, "");
    let flash = own.trim_start_matches("xip.");
    let damage = |at: usize, len: usize| {
        let (at, words) = ((0x1000_0000 + at) / 4, len / 4);
        format!(
            "tr '\\0' '\\245' </dev/zero | dd of=/dev/mem bs=4 seek={at} count={words} conv=notrunc"
        )
    };
    // What the configuration says, what happens to the flash, and why it fails.
    let tries: [(&str, String, &[&str]); 8] = [
        ("image=auto", String::new(), &["auto: no image found"]),
        ("init=/sbin/nothing", String::new(), &["/sbin/nothing"]),
        ("bind=/nothing:/mnt", String::new(), &["bind=/nothing"]),
        (
            "mount=/dev/ram77:/x:ext4",
            String::new(),
            &["mount=/dev/ram77:/x:ext4", "no such device"],
        ),
        // Somewhere in a program.
        ("verify", damage(2 << 20, 64), &["CRC"]),
        // The root directory.
        ("", damage(76, 4000), &["/proc"]),
        // Its magic.
        ("", damage(0, 4), &["/dev/mem@0x10000000", "superblock"]),
        ("wrong", String::new(), &["unknown key"]),
    ];
    let conf = |words: &str| {
        let image = if words.starts_with("image=") {
            ""
        } else {
            flash
        };
        format!("module=/modules/fuse.ko\n{image}\n{words}\n")
    };
    let mut script =
        "read -r try </try || try=0\necho $((try + 1)) >/try\ncase $try in\n".to_owned();
    for (number, (words, damage, _)) in tries.iter().enumerate().skip(1) {
        let conf = conf(words);
        script += &format!(
            "{}) echo '{conf}' >/etc/xip-run.conf\n{damage}\n;;\n",
            number - 1
        );
    }
    script += "*) exec reboot -f\nesac\n";
    let file = |name: &str, text: &str| {
        let path = ready.system.flash.with_file_name(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let files = format!(
        "{}file /etc/xip-run.conf {} 0644 0 0\nfile /next {} 0755 0 0\n",
        shell_files(),
        file("conf", &conf(tries[0].0)),
        file("next", &script)
    );
    let words = "xip.wrong=1 xip.rescue=\"/bin/sh /next\"";
    let said = ready.boot(&format!("{FAILING}-init-fails"), words, &files, &[]);
    let failures: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("xip-run: the system cannot be started: "))
        .collect();
    assert_eq!(failures.len(), tries.len(), "{said}");
    for (line, (_, _, why)) in failures.iter().zip(tries) {
        for why in why {
            assert!(line.contains(why), "{line}");
        }
        println!("{line}");
    }
    assert!(said.contains("xip.wrong=1 on the kernel's command line: unknown"));
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
    let conf = ready.path().join("conf");
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
    let script = ready.path().join("init.sh");
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
