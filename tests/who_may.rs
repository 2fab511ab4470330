//! Who may: no process of a session gets more of the image's device, of the filter or of other files than SECURITY.md says, and
//! nobody gets rights by xip-run. What --pinned refuses is in tests/pinned.rs.

mod common {
    #[allow(dead_code, unreachable_pub)]
    pub mod image_bytes;
    pub mod launch;
    pub mod leftovers;
    pub mod mounted;
    pub mod stored;
}

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::launch::{
    Stage, XIP_RUN, compile, copy_program, finish, first_line, have, have_cc, run, skip, text,
};
use common::leftovers::Traces;
use common::mounted::can_mount;
use common::stored;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

/// Who owns nothing.
const NOBODY: &str = "65534";
const SETPRIV: [&str; 4] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
];

/// An image with the sample.
fn stage() -> Option<Stage> {
    if !can_mount() || !have_cc() || !have("busybox") || !have("setpriv") {
        return None;
    }
    let stage = Stage::new();
    let everybody = fs::Permissions::from_mode(0o755);
    fs::set_permissions(stage.path(), everybody).unwrap();
    let sample = compile("session/who_may", &["-static"]).unwrap();
    stage.add_at(&sample, Path::new("/bin/who_may"));
    stage.add_at(Path::new("/bin/busybox"), Path::new("/bin/busybox"));
    for name in ["proc", "dev", "tmp", "zz"] {
        fs::create_dir(stage.in_root(Path::new(name))).unwrap();
    }
    Some(stage)
}

/// What the sample says in a session of an image, its parent being root and a process of the session too.
fn who_may(image: &Path, args: &str) -> BTreeMap<String, String> {
    let script = format!("/bin/who_may {args}; exit $?");
    let mut command = Command::new(XIP_RUN);
    command.env_remove("XIP_IMAGE").current_dir("/");
    command.arg("--image").arg(image);
    let output = run(command.args(["/bin/busybox", "sh", "-c", &script]), b"");
    assert!(output.status.success(), "{args}: {output:?}");
    let said = text(&output.stdout);
    let line = |line: &str| {
        let (name, answer) = line.split_once(": ").unwrap_or_else(|| panic!("{said}"));
        (name.to_owned(), answer.to_owned())
    };
    said.lines().map(line).collect()
}

fn assert_gone(image: &Path) {
    let traces = Traces {
        image: image.to_owned(),
        ..Traces::default()
    };
    traces.assert_gone();
}

/// A block device that shows a file, as long as this is there.
struct Loop(PathBuf);

impl Loop {
    fn new(file: &Path) -> Option<Self> {
        let mut losetup = Command::new("losetup");
        let output = losetup
            .args(["--find", "--show", "--read-only"])
            .arg(file)
            .output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(Self(text(&output.stdout).trim().into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .arg("--detach")
            .arg(&self.0)
            .status();
    }
}

#[test]
fn nobody_gets_to_a_device_by_what_is_inherited() {
    let Some(stage) = stage() else { return };
    stage.build::<&str>(&[]);
    let image = stage.image();
    // A file that others may not read is like a device; where there are loop devices it is held against one.
    fs::set_permissions(&image, fs::Permissions::from_mode(0o600)).unwrap();
    let device = Loop::new(&image);
    println!("a device: {:?}", device.as_ref().map(|device| &device.0));
    for image in [Some(&image), device.as_ref().map(|device| &device.0)]
        .into_iter()
        .flatten()
    {
        let ways = who_may(image, &format!("as {NOBODY} device"));
        assert!(ways.len() > 60, "{ways:#?}");
        for (way, answer) in &ways {
            let refused = ["EBADF", "EACCES", "EPERM", "EXDEV", "ENOENT"];
            assert!(refused.contains(&answer.as_str()), "{way}: {answer}");
        }
        for way in ["inherited mmap", "dup read", "passed pread"] {
            assert_eq!(ways[way], "EBADF", "{way}");
        }
        for way in ["inherited open again", "passed open again", "the parent's"] {
            assert_eq!(ways[way], "EACCES", "{way}");
        }
        assert_gone(image);
    }
}

#[test]
fn an_image_that_all_may_read_can_be_read_and_no_more() {
    let Some(stage) = stage() else { return };
    stage.build::<&str>(&[]);
    let before = fs::read(stage.image()).unwrap();
    fs::set_permissions(stage.image(), fs::Permissions::from_mode(0o644)).unwrap();
    let ways = who_may(&stage.image(), &format!("as {NOBODY} device"));
    for fd in ["inherited", "dup", "passed"] {
        let of = |way: &str| ways[&format!("{fd} {way}")].as_str();
        assert_eq!((of("pread"), of("mmap")), ("1", "0"), "{ways:#?}");
        for (way, answer) in [
            ("pwrite", "EBADF"),
            ("mmap to write", "EACCES"),
            ("ftruncate", "EINVAL"),
            ("fchmod", "EPERM"),
            ("fchown", "EPERM"),
            ("open again to write", "EACCES"),
            ("chmod again", "EPERM"),
            ("execveat", "EACCES"),
        ] {
            assert_eq!(of(way), answer, "{fd} {way}: {ways:#?}");
        }
    }
    assert!(fs::read(stage.image()).unwrap() == before);
    assert_gone(&stage.image());
}

#[test]
fn the_filter_and_its_handler_stay() {
    let Some(stage) = stage() else { return };
    stage.build::<&str>(&[]);
    fs::set_permissions(stage.image(), fs::Permissions::from_mode(0o644)).unwrap();
    let image = stage.image().display().to_string();
    for user in ["0", NOBODY] {
        let ways = who_may(&stage.image(), &format!("as {user} filter /bin/busybox"));
        for (way, answer) in [
            ("disable", "EINVAL"),
            ("strict", "EINVAL"),
            ("suspend", "EPERM"),
            ("close", "EBADF"),
            ("dup2", "EBADF"),
            // These are granted, and change nothing.
            ("allow all", "0"),
            ("default action", "0"),
            ("ignore", "0"),
            ("block", "0"),
            ("close_range", "0"),
            ("mapped", &image),
            ("mode", "2"),
        ] {
            assert_eq!(ways[way], answer, "{user}: {way}: {ways:#?}");
        }
    }
    assert_gone(&stage.image());
}

#[test]
fn no_byte_of_another_file_is_behind_a_files_end() {
    let Some(stage) = stage() else { return };
    let root = stage.path().join("root");
    stored::write_files(&root);
    fs::write(stage.image(), stored::image_of(&root)).unwrap();
    let files = stage.in_root(Path::new(stored::FILES_DIR));
    let mut tails = 0;
    for entry in fs::read_dir(files).unwrap() {
        let entry = entry.unwrap();
        let len = entry.metadata().unwrap().len();
        let behind = len.next_multiple_of(4096) - len;
        let name = entry.file_name().into_string().unwrap();
        let path = format!("tail /{}/{name}", stored::FILES_DIR);
        let ways = if len == 0 {
            continue;
        } else {
            who_may(&stage.image(), &path)
        };
        for way in ["private", "shared", "writable", "executable"] {
            assert_eq!(ways[way], format!("0 of {behind}"), "{name}: {way}");
        }
        tails += u32::from(behind > 0);
    }
    assert!(tails > 10, "{tails}");
    assert_gone(&stage.image());
}

#[test]
fn modes_hold_and_set_user_id_bits_and_devices_of_the_image_have_no_effect() {
    let Some(stage) = stage() else { return };
    let suid = stage.in_root(Path::new("/bin/suid"));
    copy_program(&stage.in_root(Path::new("/bin/who_may")), &suid);
    fs::set_permissions(&suid, fs::Permissions::from_mode(0o6755)).unwrap();
    let (null, secret) = (
        stage.in_root(Path::new("/zz/null")),
        stage.in_root(Path::new("/zz/secret")),
    );
    let device = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(
        CWD,
        &null,
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        device,
    )
    .unwrap();
    fs::set_permissions(&null, fs::Permissions::from_mode(0o666)).unwrap();
    fs::write(&secret, "for root\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&secret, Some(0), Some(0)).unwrap();
    stage.build::<&str>(&[]);
    // Others may not read the image: else they could read all of it, by its descriptor.
    fs::set_permissions(stage.image(), fs::Permissions::from_mode(0o600)).unwrap();
    for (args, opened, uid) in [
        ("open /zz/secret", "0", "0 0"),
        ("open /zz/null", "EACCES", "0 0"),
        ("open /dev/null", "0", "0 0"),
        ("as 65534 open /zz/secret", "EACCES", "65534 65534"),
        ("as 65534 open /zz/null", "EACCES", "65534 65534"),
        (
            "as 65534 run /bin/suid open /zz/secret",
            "EACCES",
            "65534 65534",
        ),
    ] {
        let ways = who_may(&stage.image(), args);
        assert_eq!((&*ways["open"], &*ways["uid"]), (opened, uid), "{args}");
    }
    assert_gone(&stage.image());
}

/// Looks at a file in the root directory of a process, as a user.
fn look(as_user: &[&str], pid: u32) -> Output {
    let path = format!("/proc/{pid}/root/bin/busybox");
    let args = [as_user, &["stat", &path]].concat();
    Command::new(args[0]).args(&args[1..]).output().unwrap()
}

#[test]
fn a_view_is_for_the_users_of_its_session() {
    let Some(stage) = stage() else { return };
    stage.build::<&str>(&[]);
    fs::set_permissions(stage.image(), fs::Permissions::from_mode(0o644)).unwrap();
    let xip_run = stage.path().join("xip-run");
    copy_program(Path::new(XIP_RUN), &xip_run);
    let session = format!(
        "exec $as {} --image {} /bin/busybox sh -c 'echo ready; read x'",
        xip_run.display(),
        stage.image().display()
    );
    let start = |as_user: &[&str]| {
        let script = format!(
            "mount -t tmpfs none /mnt; mknod -m 666 /mnt/fuse c 10 229; mount --bind /mnt/fuse /dev/fuse; {session}"
        );
        let mut command = Command::new("unshare");
        command
            .args(["-m", "sh", "-ec", &script])
            .env("as", as_user.join(" "));
        command.current_dir("/").env_remove("XIP_IMAGE");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let line = first_line(&mut child);
        (child, line)
    };
    let (roots, line) = start(&[]);
    assert_eq!(line, "ready\n", "{:?}", finish(roots));
    assert!(look(&[], roots.id()).status.success());
    let refused = look(&SETPRIV, roots.id());
    assert!(
        text(&refused.stderr).contains("Permission denied"),
        "{refused:?}"
    );
    drop(finish(roots));
    // A user's server could let root wait for ever.
    let can = [&SETPRIV[..], &["unshare", "-U", "true"]].concat();
    if !Command::new(can[0])
        .args(&can[1..])
        .status()
        .unwrap()
        .success()
    {
        return skip("no user namespaces for an unprivileged user");
    }
    let (users, line) = start(&SETPRIV);
    assert_eq!(line, "ready\n", "{:?}", finish(users));
    let refused = look(&[], users.id());
    assert!(
        text(&refused.stderr).contains("Permission denied"),
        "{refused:?}"
    );
    drop(finish(users));
    assert_gone(&stage.image());
}

#[test]
fn nobody_gets_rights_by_xip_run() {
    let Some(stage) = stage() else { return };
    stage.build::<&str>(&[]);
    fs::set_permissions(stage.image(), fs::Permissions::from_mode(0o644)).unwrap();
    let xip_run = stage.path().join("xip-run");
    copy_program(Path::new(XIP_RUN), &xip_run);
    let run_as_nobody = |args: &[&str]| {
        let mut command = Command::new(SETPRIV[0]);
        command.args(&SETPRIV[1..]).arg(&xip_run).args(args);
        command
            .current_dir("/")
            .env_remove("XIP_IMAGE")
            .output()
            .unwrap()
    };
    let image = stage.image();
    let program = [
        "--no-root",
        "--image",
        image.to_str().unwrap(),
        "/bin/busybox",
        "true",
    ];
    let refuses = |what: &str| {
        for args in [&program[..], &["--version"], &["--probe"], &["--init"]] {
            let output = run_as_nobody(args);
            assert_eq!(output.status.code(), Some(125), "{what}: {output:?}");
            assert!(
                text(&output.stderr).starts_with("xip-run: installed set-user-ID"),
                "{output:?}"
            );
            assert!(output.stdout.is_empty(), "{what}: {output:?}");
        }
    };
    let mode = |mode| fs::set_permissions(&xip_run, fs::Permissions::from_mode(mode)).unwrap();
    assert!(run_as_nobody(&program).status.success());
    mode(0o4755);
    refuses("set-user-ID");
    mode(0o2755);
    refuses("set-group-ID");
    mode(0o755);
    // capabilities(7): version 2, effective; CAP_SYS_ADMIN is permitted.
    let words = [0x0200_0001_u32, 1 << 21, 0, 0, 0];
    let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    rustix::fs::setxattr(&xip_run, "security.capability", &value, XattrFlags::empty()).unwrap();
    refuses("capabilities");
    // Root has no more by that than it had.
    let output = Command::new(&xip_run).arg("--version").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    rustix::fs::removexattr(&xip_run, "security.capability").unwrap();
    assert!(run_as_nobody(&program).status.success());
}
