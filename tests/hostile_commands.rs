//! Attacks on whoever reads images, each with every command and with a session: nothing panics, nothing takes longer than a
//! second nor more memory than [`address_space_kib`] says.
//!
//! Each image has, besides the attack, a program that works: a session of it starts, looks at all of the attack through the
//! view, and goes on.

#[allow(
    dead_code,
    unreachable_pub,
    reason = "each test crate uses its own part"
)]
#[path = "common/image_bytes.rs"]
mod image_bytes;

#[path = "common/launch.rs"]
mod launch;

#[path = "common/mounted.rs"]
mod mounted;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use image_bytes::*;
use launch::{XIP_RUN, have, in_parallel, run, text};
use mounted::can_mount;
use xip_run::cramfs::Endian;

const XIP_IMAGE: &str = env!("CARGO_BIN_EXE_xip-image");
const BUSYBOX: &str = "/bin/busybox";

/// What a command may take of memory, as its whole address space: the program itself, libraries and all, and this many
/// times the image.
fn address_space_kib(image_bytes: usize) -> usize {
    (64 << 10) + 8 * image_bytes / 1024
}

/// Seconds of processor time that a process may take; unoptimized.
const TIME_LIMIT: u64 = if cfg!(debug_assertions) { 5 } else { 1 };

/// An attack: its name, and what is in the image as `/attack`. Its data comes first in the image: at byte 0x4c + 2 * 0x14.
struct Attack {
    name: &'static str,
    node: Node,
    /// check finds an error.
    bad: bool,
}

/// Where the data of `/attack` lies: behind the superblock and the root's entries, see [`image`].
const ATTACK_AT: u32 = 76 + (12 + 8) + (12 + 8) + (12 + 4) + (12 + 4);

fn image(attack: &Node, program: &[u8]) -> Vec<u8> {
    let image = ImageBytes::new(dir([
        ("attack", attack.clone()),
        (
            "busybox",
            direct_file(program, 4096)
                .mode(0o100_755)
                .then(vec![0; 4096]),
        ),
        ("dev", empty_dir()),
        ("proc", empty_dir()),
    ]));
    image.build()
}

/// The twelve bytes of an inode and its name, as an entry of a directory.
fn entry(node: &Node, at: u32, size: u32, name: &[u8]) -> Vec<u8> {
    let mut bytes = node.inode(Endian::Little, at, size, name).to_vec();
    bytes.extend(name);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn attacks() -> Vec<Attack> {
    let attack = |name, node| Attack {
        name,
        node,
        bad: true,
    };
    let lawful = |name, node| Attack {
        name,
        node,
        bad: false,
    };
    let names = |names: &[&'static str]| {
        let entries = names.iter().map(|name| (*name, zlib_file(b"x")));
        dir(entries.collect::<Vec<_>>())
    };
    let at = ATTACK_AT;
    let empty = empty_dir();

    // Directories, each with the next twice: 2^40 paths. The bytes lie one behind the other.
    let twice: Vec<u8> = (1..=40_u32)
        .flat_map(|level| {
            let (next, size) = if level == 40 {
                (0, 0)
            } else {
                (at + 32 * level, 32)
            };
            [
                entry(&empty, next, size, b"a"),
                entry(&empty, next, size, b"b"),
            ]
            .concat()
        })
        .collect();
    // A directory in a directory, with names as short as they can be.
    let deep: Vec<u8> = (1..=3000_u32)
        .flat_map(|level| entry(&empty, at + 16 * level, 16, b"d"))
        .collect();
    // Thousands of entries in the deepest that a path reaches.
    let deepest = at + 16 * 2000;
    let fan = |name: &str, inode: &Node| {
        let mut bytes: Vec<u8> = (1..2000_u32)
            .flat_map(|level| entry(&empty, at + 16 * level, 16, b"d"))
            .collect();
        let leaves: Vec<u8> = (0..4000_u32)
            .flat_map(|number| entry(inode, 0, 0, format!("{name}{number:05}").as_bytes()))
            .collect();
        bytes.extend(entry(&empty, deepest, leaves.len() as u32, b"d"));
        bytes.extend(leaves);
        dir_of_bytes(bytes).size(16)
    };
    // Files of 16 MiB whose block pointers overlap, all of them to direct pages.
    let pointers: Vec<u8> = (0..8_000_u32)
        .flat_map(|number| ((3 << 30) | (1024 * (1 + number % 2))).to_le_bytes())
        .collect();
    let pointers_at = at + 16 * 5_000;
    let overlapping: Vec<u8> = (0..5_000_u32)
        .flat_map(|number| {
            entry(
                &zlib_file(b"").mode(0o100_755),
                pointers_at + 4 * number,
                0xff_f000,
                b"f",
            )
        })
        .chain(pointers)
        .collect();
    // A directory, and others that begin at each of its entries; the last entry is damaged.
    let nested: Vec<u8> = (0..8_000_u32)
        .flat_map(|number| entry(&empty, at + 16 * number, 16 * (8_000 - number) + 4, b"n"))
        .chain([0xff; 4])
        .collect();
    vec![
        attack(
            "a directory that is its own",
            dir([("self", again(0)), ("up", again(1))]),
        ),
        attack("two of each", dir_of_bytes(twice).size(32)),
        attack("deeper than any path", dir_of_bytes(deep).size(16)),
        lawful("many at the end of a long path", fan("e", &empty)),
        lawful("many devices there", fan("n", &char_device(1, 3))),
        attack("half an entry further on", {
            dir_of_bytes(
                [
                    entry(&empty, at + 4, 28, b"aaaa"),
                    entry(&empty, at + 8, 24, b"bbbb"),
                ]
                .concat(),
            )
        }),
        attack(
            "directories in one another's entries",
            dir_of_bytes(nested).size(16 * 8_000 + 4),
        ),
        attack(
            "the largest of everything",
            dir([
                ("dir", empty_dir().offset(0x3ff_ffff).size(0xff_ffff)),
                ("file", zlib_file(b"x").offset(0x3ff_ffff).size(0xff_ffff)),
                ("link", symlink("x").offset(0x3ff_ffff).size(0xff_ffff)),
                ("node", char_device(1, 3).size(0xff_ffff).offset(0x3ff_ffff)),
                ("name", zlib_file(b"x").namelen(63)),
            ]),
        ),
        attack(
            "files in each other's block pointers",
            dir_of_bytes(overlapping).size(16 * 5_000),
        ),
        attack(
            "pointers backwards, in circles and out",
            dir([
                (
                    "back",
                    file([raw_direct([7; 4096]), pointer(100), pointer(50)]).size(12_288),
                ),
                ("super", file([pointer(3 << 30)]).size(4096)),
                (
                    "out",
                    file([pointer(0xffff_ffff), pointer(0x7fff_ffff)]).size(8192),
                ),
            ]),
        ),
        attack("a name that leads out", names(&["../../etc/passwd"])),
        attack("the name .", names(&["a", "."])),
        attack("the name ..", names(&["a", ".."])),
        attack("a slash", names(&["a", "/"])),
        attack("a NUL in a name", names(&["a", "a\0b"])),
        attack("no name", names(&["a", ""])),
        attack("one name many times", names(&["same"; 5000])),
        attack(
            "a link and what is behind it by one name",
            dir([
                ("evil", symlink("/tmp")),
                ("evil", dir([("xip-run-was-here", zlib_file(b"x"))])),
            ]),
        ),
        lawful("holes of 16 MiB, a hundred times", {
            let holes = file(vec![hole(); 4096]).size(0xff_ffff);
            let numbers = (0..100).map(|number| format!("{number:02}"));
            dir(numbers
                .map(|number| (number, holes.clone()))
                .collect::<Vec<_>>())
        }),
        attack("bombs", {
            let bomb = || stream(deflate(&vec![0; 8_000_000]));
            dir([
                ("block", file([bomb()])),
                ("link", file([bomb()]).size(100).mode(0o120_777)),
                ("program", file([bomb(), bomb()]).mode(0o100_755)),
            ])
        }),
        lawful(
            "devices and privileges",
            dir([
                ("kmem", block_device(1, 1)),
                ("null", char_device(1, 3)),
                ("setgid", zlib_file(b"x").mode(0o102_755)),
                ("setuid", zlib_file(b"x").mode(0o104_755).owner(0, 0)),
            ]),
        ),
        lawful("links to links to nowhere", {
            let links = (0..100).map(|number| {
                (
                    format!("{number:03}"),
                    symlink(format!("{:03}", number + 1)),
                )
            });
            let mut links: Vec<_> = links.collect();
            links.push(("100".to_owned(), symlink("000")));
            dir(links)
        }),
        attack(
            "types that there are not",
            dir([("a", fifo().mode(0o070_644)), ("b", fifo().mode(0))]),
        ),
    ]
}

/// Runs a command under the limits.
fn bounded(what: &str, image_bytes: usize, command: &mut Command) -> Output {
    let limit = address_space_kib(image_bytes);
    let mut limited = Command::new("sh");
    let script = format!("ulimit -v {limit}; ulimit -t {TIME_LIMIT}; exec \"$0\" \"$@\"");
    limited
        .args(["-c", &script])
        .arg(command.get_program())
        .args(command.get_args());
    limited.env_remove("XIP_IMAGE").current_dir("/");
    let output = run(&mut limited, b"");
    let stderr = text(&output.stderr);
    println!("{what}: {}", output.status);
    let code = output.status.code();
    assert!(
        code.is_some_and(|code| code < 128 && code != 101) && !stderr.contains("panicked"),
        "{what}: {:?}: {stderr}",
        output.status
    );
    output
}

fn path_of(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn no_command_is_overcome() {
    if !have("busybox") {
        return;
    }
    let program = fs::read(BUSYBOX).unwrap();
    in_parallel(&attacks(), |attack| {
        let dir = tempfile::tempdir().unwrap();
        let bytes = image(&attack.node, &program);
        let path = dir.path().join("image");
        fs::write(&path, &bytes).unwrap();
        let image = path_of(&path);
        let tool = |args: &[&str]| {
            let what = format!("{}: xip-image {args:?}", attack.name);
            bounded(&what, bytes.len(), Command::new(XIP_IMAGE).args(args))
        };
        let sound = tool(&["check", image]).status.success();
        assert_eq!(sound, !attack.bad, "{}", attack.name);
        tool(&["info", image]);
        tool(&["map", "--strip", image]);
        tool(&["ls", "-lR", image]);
        tool(&["cat", image, "/attack/f"]);
        let out = dir.path().join("out");
        let unpacked = tool(&["extract", image, path_of(&out)]);
        assert!(!Path::new("/tmp/xip-run-was-here").exists());
        // Before anything that is not the attack's, more than 4 GiB may have been asked for.
        let too_much = text(&unpacked.stderr).contains("unpacks to more than");
        assert!(too_much || out.join("busybox").exists(), "{}", attack.name);
        for program in ["/busybox", "/attack/program"] {
            let what = format!("{}: --explain {program}", attack.name);
            bounded(
                &what,
                bytes.len(),
                Command::new(XIP_RUN).args(["--image", image, "--explain", program]),
            );
        }
    });
}

#[test]
fn a_session_starts_and_goes_on() {
    if !have("busybox") || !can_mount() {
        return;
    }
    let program = fs::read(BUSYBOX).unwrap();
    in_parallel(&attacks(), |attack| {
        let dir = tempfile::tempdir().unwrap();
        let bytes = image(&attack.node, &program);
        let path = dir.path().join("image");
        fs::write(&path, &bytes).unwrap();
        let script = "cd /attack; ls -l >/dev/null; n=0
            for file in *; do
                [ $((n += 1)) -gt 40 ] || head -c 100000 \"$file\" >/dev/null
            done
            ./file; ./program; ./setuid; ./000; /busybox echo it goes on";
        let output = bounded(
            attack.name,
            bytes.len(),
            Command::new(XIP_RUN)
                .args(["--image", path_of(&path), "/busybox", "sh", "-c"])
                .arg(script),
        );
        assert_eq!(
            text(&output.stdout),
            "it goes on\n",
            "{}: {}",
            attack.name,
            text(&output.stderr)
        );
    });
}

/// Somebody without privileges unpacks devices and set-user-ID programs: not even when asked to.
#[test]
fn privileges_need_privileges() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: to become somebody else one must be root");
        return;
    }
    let attacks = attacks();
    let attack = attacks
        .iter()
        .find(|attack| attack.name == "devices and privileges")
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let path = dir.path().join("image");
    fs::write(&path, image(&attack.node, b"no program")).unwrap();
    let tool = dir.path().join("xip-image");
    launch::copy_program(Path::new(XIP_IMAGE), &tool);
    for special in [false, true] {
        let out = dir.path().join(format!("out{special}"));
        let mut command = Command::new(&tool);
        command
            .uid(65534)
            .gid(65534)
            .arg("extract")
            .args([&path, &out]);
        if special {
            command.arg("--special");
        }
        let output = run(&mut command, b"");
        assert_eq!(
            output.status.code(),
            Some(if special { 125 } else { 0 }),
            "{output:?}"
        );
        for node in ["kmem", "null"] {
            assert!(!out.join("attack").join(node).exists());
        }
        for program in ["setgid", "setuid"] {
            if let Ok(meta) = fs::metadata(out.join("attack").join(program)) {
                assert_eq!(meta.permissions().mode() & 0o6000, 0, "{program}");
            }
        }
    }
}
