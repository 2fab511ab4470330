//! Sessions: programs that have the image as their root directory.

#[path = "common/launch.rs"]
mod launch;
#[path = "common/leftovers.rs"]
mod leftovers;
#[path = "common/mounted.rs"]
mod mounted;
#[path = "common/tree.rs"]
mod tree;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use launch::first_line;
use leftovers::Traces;
use mounted::{Mounted, can_mount};
use tempfile::TempDir;
use xip_run::cramfs::build::BuildOptions;
use xip_run::cramfs::xip::XipPolicy;

/// A directory with an image of a small busybox system, `image`, and the tree, `root`.
struct System {
    dir: TempDir,
    /// Held so that only one session test counts processes and mounts at a time.
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

impl System {
    fn new() -> Option<Self> {
        if !can_mount() || !tree::have(tree::BUSYBOX) {
            return None;
        }
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        // Not below /tmp's own mode: an unprivileged user has to get there.
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = dir.path().join("root");
        for name in [
            "bin",
            "etc/deep/er",
            "proc",
            "dev",
            "sys",
            "tmp",
            "srv",
            "no-such-host-dir",
        ] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::copy(tree::BUSYBOX, root.join("bin/busybox")).unwrap();
        symlink("busybox", root.join("bin/cat")).unwrap();
        symlink("/etc/deep", root.join("link")).unwrap();
        fs::write(root.join("etc/x"), "the image's\n").unwrap();
        fs::write(root.join("etc/big"), tree::text(3_000_000)).unwrap();
        let options = BuildOptions {
            xip: XipPolicy::new(&[], false).unwrap(),
            ..BuildOptions::default()
        };
        tree::build_in(dir.path(), &options).unwrap();
        Some(Self { dir, _alone: alone })
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// `xip-run --image IMAGE OPTIONS /bin/busybox ARGS`
    fn command(&self, options: &[&str], args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xip-run"));
        command.arg("--image").arg(self.image()).args(options);
        command.arg("/bin/busybox").args(args).current_dir("/");
        command
    }

    fn sh(&self, options: &[&str], script: &str) -> String {
        let output = self
            .command(options, &["sh", "-c", script])
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Servers of this image.
    fn servers(&self) -> Vec<PathBuf> {
        leftovers::servers(&self.image())
    }

    /// Within a second or two no server of the image is left.
    fn assert_no_server_stays(&self) {
        let image = self.image();
        let traces = Traces {
            image,
            ..Traces::default()
        };
        traces.assert_gone();
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_session_has_the_image_as_its_root_and_the_hosts_directories_in_it() {
    let Some(system) = System::new() else { return };
    let names = "bin\ndev\netc\nlink\nno-such-host-dir\nproc\nsrv\nsys\ntmp\n";
    assert_eq!(system.sh(&[], "ls /"), names);
    assert_eq!(
        system.sh(&[], "cat /etc/x; /bin/cat /etc/x; pwd"),
        "the image's\nthe image's\n/\n"
    );
    assert_eq!(
        system.sh(&[], "ls /link/; cd /link/er/..; pwd -P; ls /.. | head -1"),
        "er\n/etc/deep\nbin\n"
    );
    assert_eq!(system.sh(&[], "ls /no-such-host-dir"), "");
    assert_eq!(
        system.sh(&[], "echo gone > /dev/null; head -c 3 /dev/zero | wc -c"),
        "3\n"
    );
    assert!(system.sh(&[], "ls /proc/self").contains("cmdline"));
    assert_eq!(system.sh(&[], "md5sum < /etc/big"), {
        let host = Command::new(tree::BUSYBOX)
            .args(["md5sum", "/dev/stdin"])
            .stdin(File::open(system.dir.path().join("root/etc/big")).unwrap())
            .output()
            .unwrap();
        String::from_utf8(host.stdout)
            .unwrap()
            .replace("/dev/stdin", "-")
    });
    // The session's /tmp is the host's; its root is the only mount of it, and the host's is not below.
    let shown = system.sh(&[], "cat /proc/mounts");
    let (source, rest) = shown.split_once(' ').unwrap();
    let server = xip_run::view::server_of(source);
    assert!(server.is_some(), "{source}");
    assert!(rest.starts_with("/ fuse.cramfs ro,nosuid,nodev"), "{shown}");
    assert_eq!(shown.matches(" / ").count(), 1, "{shown}");
    let file = system.dir.path().join("written");
    system.sh(&[], &format!("echo here > {}", file.display()));
    assert_eq!(fs::read(file).unwrap(), b"here\n");
    system.assert_no_server_stays();
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    assert!(
        !mounts.lines().any(|line| line.starts_with("xip-view:")),
        "{mounts}"
    );
}

#[test]
fn binds_and_the_working_directory() {
    let Some(system) = System::new() else { return };
    let data = system.dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("f"), "host's\n").unwrap();
    symlink(&data, system.dir.path().join("to-data")).unwrap();
    let data = data.to_str().unwrap();
    let bind = |target: &str| format!("{data}{target}");
    assert_eq!(
        system.sh(&["--bind", &bind(":/link/er:ro")], "cat /etc/deep/er/f"),
        "host's\n"
    );
    let denied = system.sh(
        &["--bind", &bind(":/srv:ro")],
        "echo x 2>&1 > /srv/f || cat /srv/f",
    );
    assert!(
        denied.ends_with("Read-only file system\nhost's\n"),
        "{denied}"
    );
    let link = format!("{}/to-data:/srv", system.dir.path().display());
    assert_eq!(
        system.sh(&["--bind", &link], "echo new > /srv/g; cat /srv/g"),
        "new\n"
    );
    assert_eq!(
        system.sh(&["--bind", &format!("{data}/f:/etc/x")], "cat /etc/x"),
        "host's\n"
    );
    assert_eq!(
        system.sh(&["--workdir", "/link/er"], "pwd -P"),
        "/etc/deep/er\n"
    );
    let mut command = system.command(&[], &["pwd"]);
    let output = command.current_dir(data).output().unwrap();
    assert_eq!(output.stdout, format!("{data}\n").as_bytes());

    for (options, what) in [
        (
            ["--bind", &bind(":/nope")],
            "nothing can be bound where the image has nothing",
        ),
        (
            ["--bind", &bind(":/etc/x")],
            "a directory goes over a directory",
        ),
        (
            ["--bind", "/nope:/srv"],
            "--bind /nope: on the host: No such file",
        ),
        (["--bind", "/srv:srv"], "must be absolute"),
        (
            ["--workdir", "/nope"],
            "--workdir /nope: in the view: No such file",
        ),
    ] {
        let output = system.command(&options, &["true"]).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        assert!(stderr(&output).contains(what), "{output:?}");
    }
    system.assert_no_server_stays();
}

#[test]
fn status_signals_and_input_are_the_programs_own() {
    let Some(system) = System::new() else { return };
    let status = |script: &str| system.command(&[], &["sh", "-c", script]).status().unwrap();
    assert_eq!(status("exit 42").code(), Some(42));
    assert_eq!(status("kill -TERM $$").signal(), Some(libc::SIGTERM));
    let mut child = system
        .command(&[], &["cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"through\n").unwrap();
    let mut text = String::new();
    // The end of the output is seen as soon as the program ends: the server does not hold the pipe.
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "through\n");
    assert!(child.wait().unwrap().success());
    // Same process; no child but its own to wait for, no signal from one.
    let mut child = system
        .command(&[], &["sh", "-c", "echo $$; grep -E '^(ShdPnd|SigPnd)' /proc/$$/status; cat /proc/$$/task/$$/children"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    child.wait().unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], child.id().to_string());
    assert!(lines[1].ends_with("\t0000000000000000") && lines[2].ends_with("\t0000000000000000"));
    assert!(
        lines
            .get(3)
            .is_none_or(|children| children.split_whitespace().count() <= 1),
        "{text}"
    );
}

/// A session that has said something, and waits.
fn waiting(system: &System) -> Child {
    let mut child = system
        .command(
            &[],
            &[
                "sh",
                "-c",
                "cat /etc/big > /dev/null; echo ready; read line",
            ],
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(first_line(&mut child), "ready\n");
    child
}

#[test]
fn the_server_is_small_alone_and_ends_with_its_session() {
    let Some(system) = System::new() else { return };
    let (mut one, mut two) = (waiting(&system), waiting(&system));
    let servers = system.servers();
    assert_eq!(servers.len(), 2);
    for server in &servers {
        let status = fs::read_to_string(server.join("status")).unwrap();
        let kib = |field: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(field)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        println!(
            "server: resident {} KiB, anonymous {} KiB, page tables {} KiB",
            kib("VmRSS:"),
            kib("RssAnon:"),
            kib("VmPTE:")
        );
        // Relocations of a debug build's code, which a static release build has none of, are anonymous too.
        let limit = if cfg!(debug_assertions) { 768 } else { 512 };
        assert!(kib("RssAnon:") <= limit, "{status}");
        assert!(cfg!(debug_assertions) || kib("VmRSS:") <= 1536, "{status}");
        assert_eq!(kib("Threads:"), 1);
        assert_eq!(kib("CapEff:"), 0);
        let fds: Vec<OsString> = fs::read_dir(server.join("fd"))
            .unwrap()
            .map(|fd| fs::read_link(fd.unwrap().path()).unwrap().into_os_string())
            .filter(|to| to != "/dev/null")
            .collect();
        assert_eq!(fds.len(), 3, "{fds:?}");
        assert_eq!(fs::read_link(server.join("cwd")).unwrap(), Path::new("/"));
        assert_eq!(
            fs::read_link(server.join("ns/mnt")).unwrap(),
            fs::read_link("/proc/self/ns/mnt").unwrap()
        );
    }
    one.kill().unwrap();
    one.wait().unwrap();
    while system.servers().len() > 1 {
        std::thread::sleep(Duration::from_millis(5));
    }
    // The other one goes on.
    drop(two.stdin.take());
    assert_eq!(two.wait().unwrap().code(), Some(1));
    system.assert_no_server_stays();

    // A launch that fails half-way leaves none either, nor does a program that cannot be run.
    for args in [["--workdir", "/nope"], ["--bind", "/etc:/nope"]] {
        assert!(
            !system
                .command(&args, &[])
                .output()
                .unwrap()
                .status
                .success()
        );
    }
    system.assert_no_server_stays();
    // One that the program leaves behind keeps the view, and loses it with its end.
    assert_eq!(
        system.sh(
            &[],
            "(sleep 0.4; cat /etc/x > /dev/null) > /dev/null 2>&1 & echo on"
        ),
        "on\n"
    );
    assert_eq!(system.servers().len(), 1);
    std::thread::sleep(Duration::from_millis(450));
    system.assert_no_server_stays();
}

#[test]
fn a_mount_of_the_same_tree_serves_instead() {
    let Some(system) = System::new() else { return };
    let mounted = Mounted::new(tree::open(&system.image()));
    let view = mounted.dir.path().to_str().unwrap();
    assert_eq!(
        system.sh(&["--view", view], "cat /etc/x; test -d /proc/self"),
        "the image's\n"
    );
    assert!(system.servers().is_empty());
    let root = system.dir.path().join("root");
    let output = system
        .command(&["--view", root.to_str().unwrap()], &["true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(
        stderr(&output).contains("not the tree of this image"),
        "{output:?}"
    );
}

#[test]
fn an_unprivileged_user_gets_a_view_in_a_user_namespace() {
    let Some(system) = System::new() else { return };
    let can = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "unshare",
            "-U",
            "true",
        ])
        .output();
    if !can.as_ref().is_ok_and(|output| output.status.success()) {
        return launch::skip(&format!(
            "no user namespaces for an unprivileged user: {can:?}"
        ));
    }
    // A copy that may be executed by all, and in a namespace of its own a /dev/fuse that may be opened by all.
    let copy = system.dir.path().join("xip-run");
    launch::copy_program(Path::new(launch::XIP_RUN), &copy);
    fs::set_permissions(system.image(), fs::Permissions::from_mode(0o644)).unwrap();
    let run = |script: &str| {
        let output = Command::new("unshare")
            .args(["-m", "sh", "-ec"])
            .arg(format!(
                "mknod -m 666 fuse c 10 229; mount --bind fuse /dev/fuse; rm fuse; cd /tmp
                 exec setpriv --reuid=65534 --regid=65534 --clear-groups {} --image {} /bin/busybox sh -c '{script}'",
                copy.display(),
                system.image().display()
            ))
            .current_dir(system.dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(
        run("id -u; id -g; cat /etc/x; pwd"),
        "65534\n65534\nthe image's\n/tmp\n"
    );
    // CAP_CHECKPOINT_RESTORE of that namespace, and nothing else.
    for set in ["CapPrm", "CapEff", "CapAmb"] {
        let line = run(&format!("grep {set} /proc/self/status"));
        assert!(line.ends_with("\t0000010000000000\n"), "{line}");
    }
    assert_eq!(run("readlink /proc/self/exe"), "/bin/busybox\n");
    assert_eq!(
        run("/bin/cat /etc/x; echo > /dev/null && echo ok"),
        "the image's\nok\n"
    );
    system.assert_no_server_stays();
}

#[test]
fn children_are_in_place() {
    let Some(system) = System::new() else { return };
    // cat is a link to busybox, started by a shell; its text is the image's, and so is the shell's own.
    let shown = system.sh(
        &[],
        "/bin/cat /proc/self/maps; exec /bin/busybox cat /proc/self/maps",
    );
    let image = fs::canonicalize(system.image()).unwrap();
    let image = image.to_str().unwrap();
    let executable: Vec<&str> = shown
        .lines()
        .filter(|line| line.split_whitespace().nth(1) == Some("r-xp"))
        .filter(|line| !line.ends_with("[vdso]"))
        .collect();
    let in_place = executable
        .iter()
        .filter(|line| line.ends_with(image))
        .count();
    let handler = executable
        .iter()
        .filter(|line| line.contains("/memfd:xip-run:session"));
    assert_eq!(
        (in_place, handler.count(), executable.len()),
        (2, 2, 4),
        "{shown}"
    );
}

/// What is wrong is said before the session begins, with the exit status of its kind.
#[test]
fn what_cannot_be_is_said_at_once() {
    let Some(system) = System::new() else { return };
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("root");
    for name in ["bin", "lib", "lib64", "usr", "srv", "tmp"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy(tree::BUSYBOX, root.join("bin/busybox")).unwrap();
    let lost = root.join("bin/lost");
    fs::write(&lost, "#! /no/such/interpreter -x\n").unwrap();
    fs::set_permissions(&lost, fs::Permissions::from_mode(0o755)).unwrap();
    // Nothing in it is direct.
    tree::build_in(dir.path(), &BuildOptions::default()).unwrap();
    let image = dir.path().join("image");
    let binaries = Path::new(env!("CARGO_BIN_EXE_xip-run")).parent().unwrap();
    let bind = format!("{}:/srv", binaries.display());
    let nested = [
        "--bind",
        &bind,
        "/srv/xip-run",
        "--image",
        "/etc/passwd",
        "/bin/busybox",
        "true",
    ];
    let direct = system.image();
    for (image, args, status, said) in [
        (
            &image,
            &["/bin/lost"][..],
            127,
            "/bin/lost: its interpreter /no/such/interpreter is not in the view",
        ),
        (
            &image,
            &["--require", "in-place", "/bin/busybox", "true"],
            123,
            "/bin/busybox: its text: compressed",
        ),
        (
            &image,
            &["--require", "in-place", "/bin/lost"],
            123,
            "no page of it is direct",
        ),
        (
            &direct,
            &["--bind", "/etc:/.", "/bin/busybox"],
            125,
            "root of the view",
        ),
        (&image, &nested, 125, ""),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xip-run"));
        let output = command
            .arg("--image")
            .arg(image)
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(status), "{args:?}: {output:?}");
        assert!(stderr(&output).contains(said), "{args:?}: {output:?}");
    }
    // A session in a session: its image is really one.
    let mut command = Command::new(env!("CARGO_BIN_EXE_xip-run"));
    command.arg("--image").arg(&image).args(["--bind", &bind]);
    let place = format!("{}:/tmp", dir.path().display());
    command.args([
        "--bind",
        &place,
        "/srv/xip-run",
        "--image",
        "/tmp/image",
        "/bin/busybox",
    ]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(123), "{output:?}");
    assert!(
        stderr(&output).contains("a session of xip-run already"),
        "{output:?}"
    );

    let mut command = Command::new(env!("CARGO_BIN_EXE_xip-run"));
    command
        .arg("--image")
        .arg(&direct)
        .args(["--explain", "/bin/busybox"]);
    command.stdout(File::options().write(true).open("/dev/full").unwrap());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(stderr(&output).contains("standard output: "), "{output:?}");
    system.assert_no_server_stays();
}

/// Nobody but root can open the memfds for writing, which would keep all others from starting programs; and the server has
/// neither the program's limits nor its command line.
#[test]
fn neither_the_memfds_nor_the_server_can_be_taken_away() {
    let Some(system) = System::new() else { return };
    let modes = system.sh(
        &[],
        r#"for fd in /proc/self/fd/*; do
            case $(readlink "$fd") in /memfd:xip-run:*) stat -Lc %a "$fd" ;; esac
        done"#,
    );
    let modes: Vec<&str> = modes.lines().collect();
    assert!(
        modes.len() >= 2 && modes.iter().all(|mode| *mode == "555"),
        "{modes:?}"
    );

    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "ulimit -S -t 9; exec \"$@\"",
        "sh",
        env!("CARGO_BIN_EXE_xip-run"),
        "--image",
    ]);
    shell
        .arg(system.image())
        .args(["/bin/busybox", "sh", "-c", "echo; read line"]);
    let mut child = shell
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    first_line(&mut child);
    let servers = system.servers();
    assert_eq!(servers.len(), 1, "{servers:?}");
    let limits = fs::read_to_string(servers[0].join("limits")).unwrap();
    let cpu = limits
        .lines()
        .find(|line| line.starts_with("Max cpu time"))
        .unwrap();
    assert!(cpu.contains("unlimited"), "{cpu}");
    let title = fs::read(servers[0].join("cmdline")).unwrap();
    assert!(title.starts_with(b"xip-view\0") && title[9..].iter().all(|byte| *byte == 0));
    drop(child.stdin.take());
    child.wait().unwrap();
    system.assert_no_server_stays();
}
