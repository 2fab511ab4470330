//! execve(2) in a session is the kernel's: the drivers of samples/session/ execute whatever can be executed, and what
//! cannot, and print a line for each; they do so natively in a mount of a tree and in a session of the image of the same
//! tree, and the lines must be the same. As root and as nobody, with several C libraries and ways to link.
//!
//! `XIP_EXEC=exec_paths` runs one driver only. Both sides have mounts that are read-only, nosuid and nodev, the host's
//! /dev, a /tmp and a /proc of their own, all of it in namespaces that end with the run. What a program may see of the
//! session is in samples/session/exec.h; all else is a difference.

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

/// A stage whose image has the drivers.
struct Theatre {
    stage: Stage,
    xip_run: PathBuf,
}

impl Theatre {
    fn new(linked: Linked, drivers: &[&str]) -> Self {
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
        Self { stage, xip_run }
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

/// What differs between two runs, a paragraph for each line.
fn differences(native: &[String], session: &[String]) -> Vec<String> {
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
        .filter(|(_, native, session)| native != session)
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

fn programs_of(linked: Linked) {
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
    let theatre = Theatre::new(linked, &names);
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
            let mut all = differences(&native, &session);
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
        differences(&native, &session),
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
    programs_of(Linked::Static);
}

#[test]
fn dynamic_programs_execute_and_fail_as_natively() {
    programs_of(Linked::Dynamic);
}

#[test]
fn programs_of_musl_execute_and_fail_as_natively() {
    programs_of(Linked::Musl);
}
