//! What somebody meets who tries it for the first time: names without a path, help on a small terminal, directories that an
//! image has not, programs that may not be executed, an image that cannot be opened.

#[path = "common/launch.rs"]
mod launch;
#[path = "common/mounted.rs"]
mod mounted;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use launch::{Stage, XIP_RUN, run, text};
use mounted::can_mount;

const BUSYBOX: &str = "/bin/busybox";
/// Nobody in particular.
const USER: &str = "1234";

/// An image with busybox as sh and ls, and whatever else `add` puts into its root.
fn stage(add: impl FnOnce(&Stage)) -> Option<Stage> {
    if !can_mount() || !launch::have("busybox") || !launch::have("setpriv") {
        return None;
    }
    let stage = Stage::new();
    stage.add_at(Path::new(BUSYBOX), Path::new(BUSYBOX));
    symlink("busybox", stage.in_root(Path::new("/bin/sh"))).unwrap();
    add(&stage);
    stage.build::<&str>(&[]);
    for path in [stage.path(), &stage.image()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    Some(stage)
}

fn with_directories(names: &'static [&'static str]) -> impl FnOnce(&Stage) {
    move |stage: &Stage| {
        for name in names {
            fs::create_dir(stage.in_root(Path::new(name))).unwrap();
        }
    }
}

/// `xip-run --image IMAGE ARGS`, with this PATH.
fn xip_run(stage: &Stage, path: &str, args: &[&str]) -> Output {
    let mut command = Command::new(XIP_RUN);
    command.env_remove("XIP_IMAGE").current_dir("/");
    command.env("PATH", path).arg("--image").arg(stage.image());
    run(command.args(args), b"")
}

#[track_caller]
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
}

#[test]
fn a_name_is_found_in_the_path_as_by_env_and_chroot() {
    let Some(stage) = stage(with_directories(&["proc", "dev", "tmp", "srv"])) else {
        return;
    };
    let script = "echo $0 $(/bin/busybox readlink /proc/self/exe)";
    for options in [&["--no-root"][..], &[]] {
        let args = [options, &["sh", "-c", script]].concat();
        let output = xip_run(&stage, "/nowhere::/bin", &args);
        let said = text(&output.stdout);
        assert!(said.starts_with("sh "), "{said}{}", text(&output.stderr));
        // Nobody else's PATH than the caller's.
        let args = [options, &["sh", "-c", "exit 3"]].concat();
        let words = ["sh: not in", "PATH (/usr/bin:/sbin)", "/bin/sh"];
        assert_refused(&xip_run(&stage, "/usr/bin:/sbin", &args), 127, &words);
        let output = xip_run(&stage, "/bin", &args);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        // What is there but cannot be executed says why.
        let args = [options, &["srv"]].concat();
        assert_refused(&xip_run(&stage, "/", &args), 126, &["/srv", "directory"]);
    }
    // In the view there is more than in the image.
    let host = tempfile::tempdir().unwrap();
    launch::copy_program(Path::new(BUSYBOX), &host.path().join("echo"));
    let bind = format!("{}:/srv", host.path().display());
    let args = ["--bind", &bind, "echo", "from the host"];
    let output = xip_run(&stage, "/bin:/srv", &args);
    assert_eq!(text(&output.stdout), "from the host\n", "{output:?}");
}

#[test]
fn a_directory_that_the_image_has_not_is_said_once() {
    let Some(stage) = stage(with_directories(&["tmp"])) else {
        return;
    };
    let shell = ["/bin/sh", "-c", "echo here"];
    let output = xip_run(&stage, "/bin", &shell);
    assert_eq!(text(&output.stdout), "here\n");
    let said = text(&output.stderr);
    assert!(
        said.contains("no /proc and no /dev") && said.lines().count() == 1,
        "{said}"
    );
    let output = xip_run(&stage, "/bin", &[&["--quiet"], &shell[..]].concat());
    assert_eq!(text(&output.stderr), "");

    let build = |root: &Path| {
        let to = stage.path().join("again.cramfs");
        let mut command = Command::new(env!("CARGO_BIN_EXE_xip-image"));
        text(&run(command.arg("build").arg(root).arg(to), b"").stdout)
    };
    let said = build(&stage.path().join("root"));
    assert!(said.contains("empty directories: proc, dev ("), "{said}");
    for name in ["/proc", "/dev"] {
        fs::create_dir(stage.in_root(Path::new(name))).unwrap();
    }
    let said = build(&stage.path().join("root"));
    assert!(!said.contains("directories:"), "{said}");
}

#[test]
fn a_program_of_the_host_that_may_not_be_executed_is_refused_with_the_reason() {
    let Some(stage) = stage(with_directories(&["proc", "dev", "tmp", "srv"])) else {
        return;
    };
    let host = tempfile::tempdir().unwrap();
    fs::set_permissions(host.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let add = |name: &str, mode: u32| {
        let path = host.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        launch::copy_program(Path::new(BUSYBOX), &path);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    // Where users find it, wherever it was built.
    let beside = tempfile::tempdir().unwrap();
    fs::set_permissions(beside.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let launcher = beside.path().join("xip-run");
    launch::copy_program(Path::new(XIP_RUN), &launcher);
    add("data", 0o644);
    add("mine", 0o700);
    add("unreadable", 0o111);
    add("closed/true", 0o755);
    fs::set_permissions(host.path().join("closed"), PermissionsExt::from_mode(0o700)).unwrap();
    // `mount`: what of the host is mounted first, in a namespace of its own; `user`: who runs it.
    let refused = |mount: &str, user: &str, path: &str, words: &[&str]| {
        let script = format!(
            "{mount}; exec setpriv --reuid={user} --regid={user} --clear-groups {} --image {} --bind {}:/srv {path} true",
            launcher.display(),
            stage.image().display(),
            host.path().display(),
        );
        let output = in_mounts_of_its_own(&script);
        let words = [words, &[path, "permission denied (EACCES)"]].concat();
        assert_refused(&output, 126, &words);
    };
    refused(":", "0", "/srv/data", &["nobody may execute it: mode 0644"]);
    refused(":", "0", "/srv", &["it is a directory"]);
    refused(":", "0", "/dev/null", &["not a regular file"]);
    let noexec = format!(
        "mount --bind {0} {0}; mount -o remount,bind,noexec {0}",
        host.path().display()
    );
    add("fine", 0o755);
    refused(&noexec, "0", "/srv/fine", &["mounted noexec"]);
    // Whatever this machine lets users do with it, here they may use FUSE.
    let fuse = beside.path().join("fuse");
    let fuse = format!(
        "mknod -m 666 {0} c 10 229; mount --bind {0} /dev/fuse",
        fuse.display()
    );
    let begins = format!(
        "{fuse}; exec setpriv --reuid={USER} --regid={USER} --clear-groups {} --probe --json",
        launcher.display()
    );
    let probe = in_mounts_of_its_own(&begins);
    let _ = fs::remove_file(beside.path().join("fuse"));
    let probe: Option<serde_json::Value> = serde_json::from_slice(&probe.stdout).ok();
    if probe.is_none_or(|probe| probe["session_in_place"] != true) {
        // There is no package for it.
        println!("skipped: this machine does not let users have sessions");
        return;
    }
    let refused = |path: &str, words: &[&str]| {
        refused(&fuse, USER, path, words);
        let _ = fs::remove_file(beside.path().join("fuse"));
    };
    refused("/srv/mine", &["user 1234 may not execute it: mode 0700"]);
    refused("/srv/unreadable", &["not read"]);
    let closed = ["may not search the directory /srv/closed: mode 0700"];
    refused("/srv/closed/true", &closed);
}

/// Runs a shell's script where what it mounts is seen by nobody else.
fn in_mounts_of_its_own(script: &str) -> std::process::Output {
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-ec", script]).current_dir("/");
    run(command.env_remove("XIP_IMAGE"), b"")
}

#[test]
fn help_fits_a_terminal_of_80_columns() {
    for (program, args) in [
        (XIP_RUN, &["--help"][..]),
        (XIP_RUN, &["-h"]),
        (env!("CARGO_BIN_EXE_xip-image"), &["--help"]),
        (env!("CARGO_BIN_EXE_xip-image"), &["build", "--help"]),
        (env!("CARGO_BIN_EXE_xip-image"), &["map", "--help"]),
        (env!("CARGO_BIN_EXE_xip-mem"), &["--help"]),
    ] {
        let output = run(Command::new(program).args(args), b"");
        let shown = text(&output.stdout);
        assert!(shown.lines().count() > 15, "{shown}");
        for line in shown.lines() {
            let width = line.chars().count();
            assert!(width <= 80, "{program} {args:?}: {width}: {line}");
        }
        // Nothing that was laid out by hand is broken up: a lone word would be left.
        let by_hand = shown.split("\nExamples:\n").nth(1).unwrap_or_default();
        for line in by_hand.lines().filter(|line| !line.is_empty()) {
            assert!(line.chars().count() > 4, "{program} {args:?}: {line:?}");
        }
    }
}

#[test]
fn the_table_of_features_is_printed_although_the_image_cannot_be_opened() {
    let probe = |image: &Path, args: &[&str]| {
        let mut command = Command::new(XIP_RUN);
        command.args(["--probe", "--image"]).arg(image).args(args);
        run(&mut command, b"")
    };
    let not_there = Path::new("/no/such.cramfs");
    let output = probe(not_there, &[]);
    let table = text(&output.stdout);
    for line in [
        "memfd_create",
        "A session in place, with the image as its root directory: NO",
    ] {
        assert!(table.contains(line), "no {line:?} in {table}");
    }
    assert_refused(&output, 125, &["/no/such.cramfs: open: No such file"]);

    let no_image = tempfile::NamedTempFile::new().unwrap();
    let output = probe(no_image.path(), &["--json"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let why = found["image_failure"].as_str().unwrap();
    assert!(found["features"].as_array().unwrap().len() > 10);
    assert_eq!(found["image"], serde_json::Value::Null);
    assert_refused(&output, 125, &[why]);
}
