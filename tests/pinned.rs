//! Images that change beneath running programs: `--pinned` starts only from what nobody can change; without it, what is changed
//! all the same is said.

#[path = "common/launch.rs"]
mod launch;
#[path = "common/mounted.rs"]
mod mounted;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use launch::{Stage, XIP_RUN, compile, finish, have_cc, run, text};
use mounted::can_mount;
use rustix::fs::{MemfdFlags, SealFlags};
use xip_run::backing::Backing;
use xip_run::cramfs::Image;
use xip_run::index::FileIndex;
use xip_run::units::PageSize;

const BUSYBOX: &str = "/bin/busybox";
const SIGBUS: i32 = 7;

fn stage() -> Option<Stage> {
    if !can_mount() || !launch::have("busybox") {
        return None;
    }
    let stage = Stage::new();
    stage.add_at(Path::new(BUSYBOX), Path::new(BUSYBOX));
    for name in ["proc", "dev", "tmp"] {
        fs::create_dir(stage.in_root(Path::new(name))).unwrap();
    }
    Some(stage)
}

fn xip_run(image: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(XIP_RUN);
    command.env_remove("XIP_IMAGE").current_dir("/");
    command.arg("--image").arg(image).args(options);
    command
}

// ---- --pinned

/// Says hello, as one program and as a session; what each printed.
fn hello(image: &Path) -> [Output; 2] {
    [&["--pinned"][..], &["--pinned", "--no-root"]].map(|options| {
        let mut command = xip_run(image, options);
        run(command.args([BUSYBOX, "echo", "hello"]), b"")
    })
}

#[track_caller]
fn assert_pinned(image: &Path) {
    for output in hello(image) {
        assert_eq!(text(&output.stdout), "hello\n", "{output:?}");
    }
}

#[track_caller]
fn assert_not_pinned(image: &Path, why: &str) {
    for output in hello(image) {
        assert_eq!(output.status.code(), Some(123), "{output:?}");
        let said = text(&output.stderr);
        let words = ["--pinned: ", image.to_str().unwrap(), "EOPNOTSUPP", why];
        for word in words {
            assert!(said.contains(word), "no {word:?} in {said}");
        }
    }
}

/// A file that is immutable as long as this is there.
struct Immutable<'a>(&'a Path);

impl<'a> Immutable<'a> {
    fn new(path: &'a Path) -> Option<Self> {
        let mut chattr = Command::new("chattr");
        let output = chattr.arg("+i").arg(path).output().unwrap();
        if output.status.success() {
            return Some(Self(path));
        }
        launch::skip(&format!("chattr +i: {}", text(&output.stderr)));
        None
    }
}

impl Drop for Immutable<'_> {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-i").arg(self.0).status();
    }
}

#[test]
fn a_file_is_pinned_if_it_is_immutable_and_nobody_has_it_open_for_writing() {
    let Some(stage) = stage() else { return };
    stage.build::<&str>(&[]);
    let image = stage.image();
    assert_not_pinned(&image, "can be written to; make it immutable (chattr +i)");
    let writer = File::options().write(true).open(&image).unwrap();
    let Some(immutable) = Immutable::new(&image) else {
        return;
    };
    assert_not_pinned(&image, "somebody has it open for writing");
    drop(writer);
    assert_pinned(&image);
    let mut command = xip_run(&image, &["--probe", "--json"]);
    let probe: serde_json::Value = serde_json::from_slice(&run(&mut command, b"").stdout).unwrap();
    let abilities = probe["image"]["abilities"].as_array().unwrap();
    let pinned = |ability: &&serde_json::Value| ability["name"] == "pinned";
    assert_eq!(abilities.iter().find(pinned).unwrap()["available"], true);
    drop(immutable);
    assert_not_pinned(&image, "can be written to");
}

#[test]
fn a_memfd_is_pinned_with_all_its_seals() {
    let Some(stage) = stage() else { return };
    stage.build::<&str>(&[]);
    let memfd = rustix::fs::memfd_create("image", MemfdFlags::ALLOW_SEALING).unwrap();
    let mut memfd = File::from(memfd);
    memfd.write_all(&fs::read(stage.image()).unwrap()).unwrap();
    let path = PathBuf::from(format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        memfd.as_raw_fd()
    ));
    for seals in [SealFlags::SHRINK, SealFlags::WRITE] {
        assert_not_pinned(&path, "can be written to");
        rustix::fs::fcntl_add_seals(&memfd, seals).unwrap();
    }
    assert_not_pinned(&path, "a sealed memfd");
    rustix::fs::fcntl_add_seals(&memfd, SealFlags::GROW).unwrap();
    assert_pinned(&path);
}

#[test]
fn a_read_only_mount_is_no_promise() {
    let Some(stage) = stage() else { return };
    stage.build::<&str>(&[]);
    let script = format!(
        "mount --bind {0} {0} && mount -o remount,bind,ro {0} && exec {XIP_RUN} --pinned --image {1} {BUSYBOX} true",
        stage.path().display(),
        stage.image().display(),
    );
    let output = run(
        Command::new("unshare").args(["-m", "sh", "-ec", &script]),
        b"",
    );
    assert_eq!(output.status.code(), Some(123), "{output:?}");
    assert!(text(&output.stderr).contains("EOPNOTSUPP"), "{output:?}");
}

// ---- what changes all the same

/// A file of the image of which a program maps every page.
const DATA: &str = "/zz/data";

/// Where the pages of a file are in the image.
fn image_offset(image: &Path, path: &str) -> u64 {
    let image = Image::open(Backing::open(image).unwrap()).unwrap();
    let inode = image.lookup(path.as_bytes()).unwrap();
    let page = PageSize::of_running_kernel().unwrap();
    let index = FileIndex::new(&image, &inode, page).unwrap();
    assert_eq!(index.runs().len(), 1, "all of it is direct, in one piece");
    index.page(0).unwrap().0
}

/// An image with the sample that wants something done at SIGBUS, and its data behind that.
fn with_sample() -> Option<Stage> {
    if !have_cc() {
        return None;
    }
    let stage = stage()?;
    let sample = compile("session/buserror", &["-static"]).unwrap();
    stage.add_at(&sample, Path::new("/bin/sample"));
    fs::create_dir(stage.in_root(Path::new("/zz"))).unwrap();
    fs::write(stage.in_root(Path::new(DATA)), [b'x'; 8192]).unwrap();
    stage.build(&["--xip=auto", "--xip=/zz/data"]);
    let sample_at = Image::open(Backing::open(&stage.image()).unwrap());
    let sample_at = sample_at.unwrap().lookup(b"/bin/sample").unwrap();
    assert!(sample_at.data.0 < image_offset(&stage.image(), DATA));
    Some(stage)
}

/// Starts the sample, does `meanwhile` once it has mapped its data, and lets it read that.
fn sample(stage: &Stage, way: &str, meanwhile: impl FnOnce()) -> Output {
    let mut command = xip_run(&stage.image(), &["/bin/sample", way, DATA]);
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    assert_eq!(&line, b"ready\n");
    meanwhile();
    drop(child.stdin.take());
    finish(child)
}

#[test]
fn a_page_that_was_cut_off_is_named_before_sigbus_does_what_it_does() {
    let Some(stage) = with_sample() else { return };
    let whole = fs::read(stage.image()).unwrap();
    let data_at = image_offset(&stage.image(), DATA);
    let cut_off = || {
        let image = File::options().write(true).open(stage.image()).unwrap();
        image.set_len(data_at).unwrap();
    };
    let output = sample(&stage, "default", || {});
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // The default, of which the program asked nothing: named, and it dies of it.
    let output = sample(&stage, "default", cut_off);
    assert_eq!(output.status.signal(), Some(SIGBUS), "{output:?}");
    let said = text(&output.stderr);
    let name = stage.image().display().to_string();
    let page = format!("(image offset={:#x})\n", data_at + 4096);
    for word in [
        "xip-run: sample: the image ",
        &name,
        " was truncated",
        &page,
    ] {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    assert_eq!(said.lines().count(), 1, "{said}");
    // Whoever has said what shall be done has it done, and nothing else.
    for (way, signal, code, stdout) in [
        ("catch", None, Some(7), "caught\n"),
        ("ignore", Some(SIGBUS), None, ""),
        ("again", Some(SIGBUS), None, ""),
    ] {
        fs::write(stage.image(), &whole).unwrap();
        let output = sample(&stage, way, cut_off);
        assert_eq!(output.status.signal(), signal, "{way}: {output:?}");
        assert_eq!(output.status.code(), code, "{way}: {output:?}");
        assert_eq!(text(&output.stdout), stdout, "{way}");
        assert_eq!(text(&output.stderr), "", "{way}");
    }
    // One that somebody sends is no page.
    fs::write(stage.image(), &whole).unwrap();
    let output = sample(&stage, "sent", cut_off);
    assert_eq!(output.status.signal(), Some(SIGBUS), "{output:?}");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn an_image_that_was_written_to_starts_nothing_any_more() {
    let Some(stage) = stage() else { return };
    stage.build::<&str>(&[]);
    let script = "echo ready; read x; /bin/busybox true; echo $?; read y; echo here";
    let mut command = xip_run(&stage.image(), &[BUSYBOX, "sh", "-c", script]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = move || {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line
    };
    assert_eq!(line(), "ready\n");
    // The same bytes again: that nobody can see.
    let bytes = fs::read(stage.image()).unwrap();
    let image = File::options().write(true).open(stage.image()).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&image, &bytes[..4096], 0).unwrap();
    input.write_all(b"\n").unwrap();
    assert_eq!(line(), "126\n");
    // What runs goes on.
    input.write_all(b"\n").unwrap();
    assert_eq!(line(), "here\n");
    drop(input);
    let said = text(&finish(child).stderr);
    let name = stage.image().display().to_string();
    for word in [
        "xip-run: busybox: the image ",
        &name,
        " was changed",
        "Stale",
    ] {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    // The next session has the image as it is now; a new one in its place harms nobody.
    let mut command = xip_run(&stage.image(), &[BUSYBOX, "sh", "-c"]);
    let script = "echo ready; read x; /bin/busybox echo still";
    let mut child = command
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(launch::first_line(&mut child), "ready\n");
    stage.build::<&str>(&[]);
    drop(child.stdin.take());
    let output = finish(child);
    assert_eq!(text(&output.stdout), "still\n");
}
