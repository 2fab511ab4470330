//! execve(2) in a session is the kernel's: the drivers of samples/session/ execute whatever can be executed, and what
//! cannot, and print a line for each; they do so natively in a mount of a tree and in a session of the image of the same
//! tree, and the lines must be the same. As root and as nobody, with several C libraries and ways to link.
//!
//! `XIP_EXEC=exec_paths` runs one driver only. Both sides have mounts that are read-only, nosuid and nodev, the host's
//! /dev, a /tmp and a /proc of their own, all of it in namespaces that end with the run. What a program may see of the
//! session is in samples/session/exec.h and in [`KNOWN`], with the reasons; all else is a difference.

#[path = "common/exec_elves.rs"]
mod exec_elves;
#[path = "common/exec_tree.rs"]
mod exec_tree;
#[path = "common/launch.rs"]
mod launch;
#[path = "common/mounted.rs"]
mod mounted;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use exec_tree::{Linked, known_answers, plant};
use launch::{Stage, XIP_RUN, copy_program, finish, have, have_cc, in_parallel, sample_path, text};
use mounted::can_mount;

/// samples/session/NAME and its arguments.
const DRIVERS: [(&str, &[&str]); 8] = [
    ("exec_files", &["/files", "/scripts", "/elf"]),
    ("exec_paths", &[]),
    ("exec_arguments", &[]),
    ("exec_descriptors", &[]),
    ("exec_state", &[]),
    ("exec_processes", &[]),
    ("exec_leaks", &[]),
    ("exec_shell.sh", &[]),
];

/// What differs, and why that is not mended. README.md tells users.
const KNOWN: [(&str, &[&str]); 9] = [
    (
        "A session reads what the kernel need only execute: a file without read permission is nobody's.",
        &[
            "/files/mode-0001",
            "/files/mode-0111",
            "/files/mode-0711",
            "/scripts/interpreter-mode-0711",
            "/scripts/mode-0711",
            "/elf/interp-unreadable",
            "/elf/mode-0711",
            "self-exe-of-unreadable",
            "fd-unreadable",
            "fd-script-unreadable",
            "unreadable",
        ],
    ),
    (
        "The stub and the filter are for one architecture.",
        &["/elf/i386"],
    ),
    (
        "A program starts as /dev/fd/N, which is short: some bytes more of arguments fit.",
        &[
            "limit-by-bytes",
            "limit-by-bytes-small-stack",
            "limit-by-bytes-smallest-stack",
            "limit-by-bytes-unlimited-stack",
            "limit-by-bytes-script",
            "limit-by-count",
            "limit-by-count-script",
        ],
    ),
    (
        "A start takes up to five descriptors for a moment.",
        &[
            "limit-0",
            "limit-0-not-executable",
            "table-full",
            "table-full-cloexec",
            "table-full-script",
        ],
    ),
    (
        "These descriptors stay in a table that another process shares, for only exec unshares it.",
        &[
            "clone-files",
            "clone-files-script",
            "clone-memory-and-files",
        ],
    ),
    (
        "To close any descriptor of a file ends the locks of fcntl(2) that the process has on it, and the program is opened.",
        &["lock-over-failure", "lock-over-failing-script", "lock-kept"],
    ),
    (
        "A trapped call needs room for a signal frame, some KiB, and musl's least stack has 2 KiB.",
        &["thread-of-smallest-stack"],
    ),
    (
        "Without /proc the name of a descriptor's file is not to be had for comm.",
        &["jail-fd-of-outside"],
    ),
    (
        "RLIMIT_NPROC is looked at when the stub is executed, after the path.",
        &["too-many-processes-missing"],
    ),
];

/// What root does without its capabilities: the kernel lets nobody set /proc/self/exe who has not CAP_CHECKPOINT_RESTORE.
const WITHOUT_CAPABILITIES: [&str; 13] = [
    "private-cwd-absolute",
    "fd-in-private",
    "ids-groups",
    "secure",
    "secure-script",
    "keep-capabilities",
    "ambient-capabilities",
    "no-root-bits",
    "parent-death-signal-of-nobody",
    "new-user-namespace",
    "su",
    "su-private",
    "start-as-nobody",
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Native,
    Session,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum User {
    Root,
    Nobody,
}

/// Sets up the mounts and starts the driver in them: `SIDE USER DIR XIP_RUN COMMAND…`, process 1 of a PID namespace.
/// DIR has `root`, the image, and empty `mnt` and `tmp`.
const ENTER: &str = r#"
side=$1 user=$2 dir=$3 xip_run=$4
shift 4
mount -t tmpfs -o mode=1777 exec-test "$dir/tmp"
mkdir "$dir/tmp/noexec"
mount -t tmpfs -o noexec,mode=755 exec-test "$dir/tmp/noexec"
cp "$dir/root/bin/show" "$dir/root/scripts/plain" "$dir/tmp/noexec"
mv "$dir/tmp/noexec/plain" "$dir/tmp/noexec/script"
# A /dev/fuse that may be opened by all, for the view of nobody.
mknod -m 666 "$dir/tmp/fuse" c 10 229
mount --bind "$dir/tmp/fuse" /dev/fuse
rm "$dir/tmp/fuse"
become=
case $side in
Native)
    root=$dir/mnt
    mount --bind "$dir/root" "$root"
    mount -o remount,bind,ro,nosuid,nodev "$root"
    for name in proc dev sys; do mount --rbind "/$name" "$root/$name"; done
    mount --rbind "$dir/tmp" "$root/tmp"
    mkdir "$root/tmp/host"
    cd "$root"
    pivot_root . tmp/host
    cd /
    /bin/busybox umount -l /tmp/host
    /bin/busybox rmdir /tmp/host
    [ "$user" = Root ] || become="/bin/inherit nobody --"
    $become /bin/busybox env -i PATH=/bin /bin/busybox sh -c 'exec "$@"' sh "$@"
    ;;
Session)
    cd /
    [ "$user" = Root ] || become="setpriv --reuid=65534 --regid=65534 --clear-groups"
    $become env -i PATH=/bin "$xip_run" --image "$dir/image.cramfs" --bind "$dir/tmp:/tmp" --workdir / \
        /bin/busybox sh -c 'exec "$@"' sh "$@"
    ;;
esac
"#;

/// How a session gets at the headers of programs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Headers {
    Read,
    /// As it does where the image is flash.
    Mapped,
}

/// A stage whose image has the drivers.
struct Theatre {
    stage: Stage,
    xip_run: PathBuf,
    headers: Headers,
}

impl Theatre {
    fn new(linked: Linked, headers: Headers, drivers: &[&str]) -> Self {
        let stage = Stage::new();
        // For those who are nobody.
        fs::set_permissions(stage.path(), fs::Permissions::from_mode(0o755)).unwrap();
        plant(&stage, linked, &busybox().unwrap(), drivers);
        stage.build::<&str>(&[]);
        fs::set_permissions(stage.image(), fs::Permissions::from_mode(0o644)).unwrap();
        for dir in ["mnt", "tmp"] {
            fs::create_dir(stage.path().join(dir)).unwrap();
        }
        let xip_run = stage.path().join("xip-run");
        copy_program(Path::new(XIP_RUN), &xip_run);
        fs::set_permissions(&xip_run, fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            stage,
            xip_run,
            headers,
        }
    }

    /// The lines that a driver prints.
    fn lines(
        &self,
        side: Side,
        user: User,
        driver: &str,
        args: &[&str],
    ) -> Result<Vec<String>, String> {
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-ec",
            ENTER,
            "sh",
        ]);
        command.args([format!("{side:?}"), format!("{user:?}")]);
        command.arg(self.stage.path()).arg(&self.xip_run);
        if driver.ends_with(".sh") {
            command.arg("/bin/sh");
        }
        command.arg(format!("/drivers/{driver}")).args(args);
        if self.headers == Headers::Mapped {
            command.env("XIP_AS_FLASH", "1");
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = finish(command.spawn().unwrap());
        // What says nothing on standard error and ends well has printed all its lines.
        if !output.status.success() || !output.stderr.is_empty() {
            let (said, complained) = (text(&output.stdout), text(&output.stderr));
            return Err(format!("{}: {complained}\n{said}", output.status));
        }
        Ok(text(&output.stdout).lines().map(str::to_owned).collect())
    }
}

fn busybox() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join("busybox"))
        .find(|path| path.is_file())
}

/// The answers that a driver's source says are known.
fn known_of(driver: &str) -> Vec<String> {
    let (file, mark) = match driver.ends_with(".sh") {
        true => (driver.to_owned(), "#% "),
        false => (format!("{driver}.c"), "//# "),
    };
    let source = fs::read_to_string(sample_path(&format!("session/{file}"))).unwrap();
    let mut known: Vec<String> = source
        .lines()
        .filter_map(|line| line.strip_prefix(mark).map(str::to_owned))
        .collect();
    if driver == "exec_files" {
        known.extend(known_answers());
    }
    assert!(!known.is_empty(), "{driver}");
    known
}

fn name_of(line: &str) -> &str {
    line.split_once(": ").map_or(line, |(name, _)| name)
}

/// A line without its user: what root does as nobody.
fn case_of(name: &str) -> &str {
    let name = name.strip_prefix("nobody-").unwrap_or(name);
    name.strip_suffix(" as nobody").unwrap_or(name)
}

/// Two lines differ by nothing that a session says: why a program cannot be loaded, before it ends as it would; and, to
/// those who have not the capability for more, what /proc/self/exe is.
fn is_same(name: &str, native: &str, session: &str, user: User) -> bool {
    let mut session = session.to_owned();
    if let Some((before, message)) = session.split_once("xip-run: ") {
        let end = ["; killed by SIGSEGV", "Segmentation fault"].map(|end| message.find(end));
        if let Some(end) = end.into_iter().flatten().min() {
            session = format!("{before}{}", &message[end..]);
        }
    }
    if user == User::Nobody {
        // CAP_CHECKPOINT_RESTORE in the session's user namespace.
        session = session.replace("\"0000010000000000\"", "\"0000000000000000\"");
    }
    let case = case_of(name);
    let may_set_exe = case == name && !WITHOUT_CAPABILITIES.contains(&case);
    let (mut native, mut session) = (native, session.as_str());
    while !may_set_exe
        && let (Some(one), Some(other)) = (split_exe(native), split_exe(session))
        && one.0 == other.0
        && (one.1 == other.1 || other.1.starts_with(BOOT))
    {
        (native, session) = (one.2, other.2);
    }
    native == session
}

/// /proc/self/exe of those who cannot set it.
const BOOT: &str = "\"/memfd:xip-run:boot (deleted)\"";

/// What a line says first of /proc/self/exe, `"PATH"` or `"PATH" (MODE, SIZE bytes)`, what it says before, and what after.
fn split_exe(line: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = line.split_once("exe=")?;
    let mut end = rest.get(1..)?.find('"')? + 2;
    if rest[end..].starts_with(" (1") {
        end += rest[end..].find(')')? + 1;
    }
    Some((before, &rest[..end], &rest[end..]))
}

/// What differs between two runs, a paragraph for each line.
fn differences(native: &[String], session: &[String], user: User) -> Vec<String> {
    let find = |lines: &[String], name: &str| -> String {
        let found = lines.iter().find(|line| name_of(line) == name);
        found.map_or("(nothing)".to_owned(), |line| line[name.len()..].to_owned())
    };
    let mut names: Vec<&str> = native.iter().map(|line| name_of(line)).collect();
    let more: Vec<&str> = session
        .iter()
        .map(|line| name_of(line))
        .filter(|name| !names.contains(name))
        .collect();
    names.extend(more);
    names
        .into_iter()
        .map(|name| (name, find(native, name), find(session, name)))
        .filter(|(name, native, session)| !is_same(name, native, session, user))
        .filter(|(name, ..)| {
            KNOWN
                .iter()
                .all(|(_, names)| !names.contains(&case_of(name)))
        })
        .map(|(name, native, session)| format!("{name}\n    native {native}\n    session{session}"))
        .collect()
}

/// What is known of execve(2) and was not natively so: the driver or the test is wrong, or this kernel.
fn contradictions(native: &[String], known: &[String]) -> Vec<String> {
    known
        .iter()
        .filter(|known| !native.iter().any(|line| line.starts_with(known.as_str())))
        .map(|known| {
            let is = native.iter().find(|line| name_of(line) == name_of(known));
            format!("known: {known}\n    but is {is:?}")
        })
        .collect()
}

fn programs_of(linked: Linked, headers: Headers) {
    if !have_cc()
        || !can_mount()
        || !["musl-gcc", "busybox", "ldd", "setpriv"]
            .iter()
            .all(|tool| have(tool))
    {
        return;
    }
    let only = std::env::var("XIP_EXEC").ok();
    let wanted = |driver: &str| only.as_ref().is_none_or(|name| name == driver);
    // The shell's driver is the same however the others are linked.
    let runs: Vec<_> = DRIVERS
        .into_iter()
        .filter(|(driver, _)| {
            wanted(driver) && (linked == Linked::Dynamic || !driver.ends_with(".sh"))
        })
        .flat_map(|(driver, args)| [(driver, args, User::Root), (driver, args, User::Nobody)])
        .collect();
    let names: Vec<&str> = runs.iter().step_by(2).map(|(driver, ..)| *driver).collect();
    let theatre = Theatre::new(linked, headers, &names);
    let failures = in_parallel(&runs, |&(driver, args, user)| {
        let run = |side| {
            theatre
                .lines(side, user, driver, args)
                .map_err(|why| vec![format!("{side:?}: {why}")])
        };
        let compare = || {
            let (native, session) = (run(Side::Native)?, run(Side::Session)?);
            println!("{linked:?}, {user:?}, {driver}: {} lines", native.len());
            if std::env::var_os("XIP_EXEC_LINES").is_some() {
                println!("{}", native.join("\n"));
            }
            let mut all = differences(&native, &session, user);
            // Nobody is told EACCES where root is told more.
            if user == User::Root {
                all.extend(contradictions(&native, &known_of(driver)));
            }
            Ok(all)
        };
        let failures: Result<_, Vec<String>> = compare();
        let named = failures.unwrap_or_else(|why| why).into_iter();
        named
            .map(|what| format!("{linked:?}, {user:?}, {driver}: {what}"))
            .collect::<Vec<_>>()
    })
    .concat();
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn a_difference_is_shown_once_and_with_both_sides() {
    let lines =
        |lines: &[&str]| -> Vec<String> { lines.iter().map(|&line| line.to_owned()).collect() };
    let native = lines(&["same: a: b", "other: ENOENT", "native-only: x"]);
    let session = lines(&["other: EACCES", "same: a: b", "session-only: y"]);
    assert_eq!(
        differences(&native, &session, User::Root),
        [
            "other\n    native : ENOENT\n    session: EACCES",
            "native-only\n    native : x\n    session(nothing)",
            "session-only\n    native (nothing)\n    session: y",
        ]
    );
    assert_eq!(
        contradictions(&native, &lines(&["other: ENO", "same: a"])),
        [""; 0]
    );
    assert_eq!(
        contradictions(&native, &lines(&["other: EA", "missing: x"])).len(),
        2
    );
}

#[test]
fn static_programs_execute_and_fail_as_natively() {
    programs_of(Linked::Static, Headers::Read);
}

#[test]
fn dynamic_programs_execute_and_fail_as_natively() {
    programs_of(Linked::Dynamic, Headers::Read);
}

#[test]
fn programs_of_musl_execute_and_fail_as_natively() {
    programs_of(Linked::Musl, Headers::Read);
}

/// Children of posix_spawn(3) have 5 KiB of stack there.
#[test]
fn programs_of_musl_execute_and_fail_so_from_flash_too() {
    programs_of(Linked::Musl, Headers::Mapped);
}

#[test]
fn dynamic_programs_execute_and_fail_so_from_flash_too() {
    programs_of(Linked::Dynamic, Headers::Mapped);
}
