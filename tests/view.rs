//! The root view: what the server answers, what a mount of it shows, and programs that have it as their root.

mod common;
#[path = "common/tree.rs"]
mod tree;

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{GOLDEN, cases, golden, golden_bytes};
use proptest::prelude::*;
use rustix::fs::{Mode, OFlags, RawDir};
use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;
use xip_run::backing::FileBacking;
use xip_run::cramfs::build::BuildOptions;
use xip_run::cramfs::{Image, InodeKind};
use xip_run::view::{MAX_READ_BYTES, Server};

/// A view needs /dev/fuse, and root or user namespaces.
fn can_mount() -> bool {
    let open = File::options().read(true).write(true).open("/dev/fuse");
    let ok = tree::is_root() && open.is_ok();
    if !ok {
        assert!(
            std::env::var_os("CI").is_none(),
            "views need root and /dev/fuse: {open:?}"
        );
        println!("skipped: views are tested as root, with /dev/fuse: {open:?}");
    }
    ok
}

/// A mount of an image, served by a thread.
struct Mounted {
    dir: TempDir,
    server: Option<JoinHandle<std::io::Result<()>>>,
}

impl Mounted {
    fn new(image: Image) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .unwrap();
        let data = format!(
            "fd={},rootmode=40755,user_id=0,group_id=0,default_permissions,allow_other,max_read={MAX_READ_BYTES}",
            device.as_raw_fd()
        );
        let data = CString::new(data).unwrap();
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("test", dir.path(), "fuse.cramfs", flags, data.as_c_str()).unwrap();
        let server = std::thread::spawn(move || Server::new(image).serve(device));
        Self {
            dir,
            server: Some(server),
        }
    }

    fn path(&self, path: impl AsRef<OsStr>) -> PathBuf {
        let path = Path::new(path.as_ref());
        self.dir.path().join(path.strip_prefix("/").unwrap_or(path))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        rustix::mount::unmount(self.dir.path(), UnmountFlags::DETACH).unwrap();
        let served = self.server.take().unwrap().join().unwrap();
        if !std::thread::panicking() {
            served.unwrap();
        }
    }
}

/// Names and inode numbers as getdents64(2) gives them, with a buffer of that many bytes.
fn listing(dir: &Path, buffer: usize) -> Vec<(Vec<u8>, u64)> {
    let fd = rustix::fs::open(dir, OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut buf = Vec::with_capacity(buffer);
    let mut iter = RawDir::new(fd, buf.spare_capacity_mut());
    let mut out = Vec::new();
    while let Some(entry) = iter.next() {
        let entry = entry.unwrap();
        out.push((entry.file_name().to_bytes().to_vec(), entry.ino()));
    }
    out
}

/// Everything that stat(2), readlink(2), read(2) and readdir(3) show is what the image says.
fn assert_shows(mounted: &Mounted, image: &Image) {
    for found in image.walk() {
        let found = found.unwrap();
        let (inode, path) = (found.inode, mounted.path(OsStr::from_bytes(&found.path)));
        let stat = path.symlink_metadata().unwrap();
        let name = path.display();
        assert_eq!(stat.mode(), u32::from(inode.mode), "{name}");
        assert_eq!(
            (stat.uid(), stat.gid()),
            (u32::from(inode.uid), u32::from(inode.gid)),
            "{name}"
        );
        assert_eq!(
            (stat.size(), stat.ino(), stat.blocks(), stat.nlink()),
            (inode.size, inode.number(), inode.stat_blocks(), 1),
            "{name}"
        );
        let (major, minor) = inode.device();
        assert_eq!(stat.rdev(), rustix::fs::makedev(major, minor), "{name}");
        assert_eq!((stat.mtime(), stat.ctime()), (0, 0), "{name}");
        match inode.kind {
            InodeKind::File => {
                let content = image.read_file(&inode).unwrap();
                assert!(fs::read(&path).unwrap() == content, "{name}");
                // Beside the page cache, at odd places.
                let file = File::open(&path).unwrap();
                for at in [1, 4095, 4097, content.len().saturating_sub(3)] {
                    let mut part = vec![0; 5000];
                    let len = file.read_at(&mut part, at as u64).unwrap();
                    let end = content.len().min(at + 5000);
                    assert!(part[..len] == *content.get(at..end).unwrap_or_default());
                }
            }
            InodeKind::Symlink => {
                let target = fs::read_link(&path).unwrap();
                assert_eq!(
                    target.as_os_str().as_bytes(),
                    image.read_link(&inode).unwrap()
                );
            }
            InodeKind::Directory => {
                let mut expected = vec![(b".".to_vec(), inode.number()), (b"..".to_vec(), 0)];
                for entry in image.entries(&inode).unwrap() {
                    expected.push((entry.name, entry.inode.number()));
                }
                for buffer in [32768, 700, 32768] {
                    let mut seen = listing(&path, buffer);
                    seen[1].1 = 0;
                    assert_eq!(seen, expected, "{name} by {buffer}");
                }
            }
            _ => {}
        }
    }
    let stat = rustix::fs::statvfs(mounted.dir.path()).unwrap();
    let raw = image.superblock();
    let counts = match raw.flags & 1 {
        0 => (0, 0),
        _ => (u64::from(raw.blocks), u64::from(raw.files)),
    };
    assert_eq!((stat.f_blocks, stat.f_files), counts);
    assert_eq!((stat.f_bsize, stat.f_namemax, stat.f_bfree), (4096, 252, 0));
}

#[test]
fn a_view_of_each_golden_image_shows_what_is_in_it() {
    if !can_mount() {
        return;
    }
    for name in GOLDEN {
        println!("{name}");
        assert_shows(&Mounted::new(golden(name)), &golden(name));
    }
}

#[test]
fn a_view_of_a_built_image_is_the_tree_that_it_was_built_from() {
    if !can_mount() {
        return;
    }
    let dir = tree::sample_tree();
    tree::build_in(dir.path(), &BuildOptions::default()).unwrap();
    let image = tree::open(&dir.path().join("image"));
    let mounted = Mounted::new(image.clone());
    assert_shows(&mounted, &image);
    tree::assert_same(&image, mounted.dir.path());

    let error = |path: &str| fs::metadata(mounted.path(path)).unwrap_err().raw_os_error();
    for _ in 0..2 {
        assert_eq!(error("no"), Some(libc::ENOENT));
        assert_eq!(error("data/page/no"), Some(libc::ENOTDIR));
    }
    assert_eq!(error(&"x".repeat(253)), Some(libc::ENAMETOOLONG));
    let write = File::create(mounted.path("new")).unwrap_err();
    assert_eq!(write.raw_os_error(), Some(libc::EROFS));
}

#[test]
fn an_image_damaged_under_way_gives_eio() {
    if !can_mount() {
        return;
    }
    let dir = tree::sample_tree();
    tree::build_in(dir.path(), &BuildOptions::default()).unwrap();
    let path = dir.path().join("image");
    let mounted = Mounted::new(Image::open(FileBacking::open(&path).unwrap()).unwrap());
    fs::metadata(mounted.path("data/noise")).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(200)
        .unwrap();
    for _ in 0..2 {
        let read = fs::read(mounted.path("data/noise")).unwrap_err();
        assert_eq!(read.raw_os_error(), Some(libc::EIO));
    }
    let list = fs::read_dir(mounted.path("many")).map(|list| list.collect::<Vec<_>>());
    assert!(list.is_err() || list.unwrap().iter().any(Result::is_err));
}

/// A request as the kernel writes it.
fn request(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = (40 + body.len() as u32).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&opcode.to_ne_bytes());
    for word in [7_u64, node, 0, 0] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(body);
    bytes
}

/// fh, offset, size.
fn range(at: u64, len: u32) -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend_from_slice(&at.to_ne_bytes());
    body.extend_from_slice(&len.to_ne_bytes());
    body
}

proptest! {
    #![proptest_config(cases(400))]

    // Invariant: whatever the image holds and whatever is asked, the server answers with one well-formed message of
    // bounded length, an error of errno(3) or no more than was asked for.
    #[test]
    fn the_server_answers_hostile_images(
        which in 0..GOLDEN.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
        requests in prop::collection::vec(
            (0_u32..55, any::<prop::sample::Index>(), any::<u64>(), 0_u32..200_000, any::<u8>()),
            1..40,
        ),
    ) {
        let mut bytes = golden_bytes(GOLDEN[which]);
        let metadata = bytes.len().min(4096);
        for (at, byte) in damage {
            let at = at.index(metadata);
            bytes[at] = byte;
        }
        let Ok(image) = Image::open(bytes) else { return Ok(()) };
        let mut nodes = vec![1];
        nodes.extend(image.walk().filter_map(Result::ok).take(200).map(|found| found.inode.at.0 + 1));
        let mut server = Server::new(image);
        for (opcode, node, at, len, style) in requests {
            let node = match style % 8 {
                0 => at,
                1 => at % 4096,
                _ => nodes[node.index(nodes.len())],
            };
            let at = if style < 200 { at % 100_000 } else { at };
            let body = if opcode == 1 { b"bin\0".to_vec() } else { range(at, len) };
            let answer = server.answer(&request(opcode, node, &body));
            prop_assert!(answer.len() <= 16 + MAX_READ_BYTES as usize);
            if !answer.is_empty() {
                let word = |at: usize| i32::from_ne_bytes(answer[at..at + 4].try_into().unwrap());
                prop_assert_eq!(word(0) as usize, answer.len());
                prop_assert!((-133..=0).contains(&word(4)));
                prop_assert_eq!(word(8), 7);
                if matches!(opcode, 15 | 28 | 44) {
                    prop_assert!(answer.len() <= 16 + len as usize);
                }
            }
        }
    }
}

#[test]
fn a_request_that_is_cut_off_is_no_panic() {
    let mut server = Server::new(golden("ext"));
    for opcode in 0..60 {
        let whole = request(opcode, 1, &range(0, 4096));
        for len in 0..whole.len() {
            server.answer(&whole[..len]);
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Sessions

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
        tree::build_in(dir.path(), &BuildOptions::default()).unwrap();
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

    /// Servers of this image: processes of that name that have it open.
    fn servers(&self) -> Vec<PathBuf> {
        let image = self.image();
        fs::read_dir("/proc")
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|proc| fs::read(proc.join("comm")).is_ok_and(|comm| comm == b"xip-view\n"))
            .filter(|proc| {
                fs::read_dir(proc.join("fd")).is_ok_and(|fds| {
                    fds.filter_map(Result::ok)
                        .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == image))
                })
            })
            .collect()
    }

    /// Within a second no server of the image is left.
    fn assert_no_server_stays(&self) {
        let end = Instant::now() + Duration::from_secs(1);
        while !self.servers().is_empty() {
            assert!(Instant::now() < end, "{:?} linger", self.servers());
            std::thread::sleep(Duration::from_millis(10));
        }
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
    assert!(
        shown.starts_with("xip-run / fuse.cramfs ro,nosuid,nodev"),
        "{shown}"
    );
    assert_eq!(shown.matches(" / ").count(), 1, "{shown}");
    let file = system.dir.path().join("written");
    system.sh(&[], &format!("echo here > {}", file.display()));
    assert_eq!(fs::read(file).unwrap(), b"here\n");
    system.assert_no_server_stays();
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    assert!(
        !mounts.lines().any(|line| line.starts_with("xip-run ")),
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
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
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
        assert!(kib("RssAnon:") <= 512, "{status}");
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
        println!("skipped: no user namespaces for an unprivileged user: {can:?}");
        return;
    }
    // A copy that may be executed by all, and in a namespace of its own a /dev/fuse that may be opened by all.
    let copy = system.dir.path().join("xip-run");
    fs::copy(env!("CARGO_BIN_EXE_xip-run"), &copy).unwrap();
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
    assert!(run("grep CapEff /proc/self/status").ends_with("\t0000000000000000\n"));
    assert_eq!(
        run("/bin/cat /etc/x; echo > /dev/null && echo ok"),
        "the image's\nok\n"
    );
    system.assert_no_server_stays();
}
