//! xip-mem --session: the session of a process, its image and the server of its view are found, or it is said why not.

mod common {
    pub mod launch;
    pub mod mounted;
    pub mod session;
}

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::launch::{Stage, XIP_RUN, copy_program, skip, text};
use common::mounted::Mounted;
use common::session::{BUSYBOX, FIVE, Waiting, bytes, launch, session_of, stage, xip_mem};
use serde_json::Value;
use xip_run::backing::FileBacking;
use xip_run::cramfs::Image;

#[test]
fn sessions_of_one_image_have_servers_of_their_own() {
    let Some(stage) = stage(&[]) else { return };
    let start = || Waiting::start(&mut launch(&stage, &[]), "cat <&3 &", 2);
    let (one, other) = (start(), start());
    let (of_one, of_other) = (session_of(one.pid(), &[]), session_of(other.pid(), &[]));
    assert_eq!(of_one["processes"].as_array().unwrap().len(), 2);
    assert_ne!(of_one["device"], of_other["device"]);
    let servers = [&of_one, &of_other].map(|shown| bytes(&shown["server"]["pid"]));
    assert_ne!(servers[0], servers[1]);
    drop(one);
    // It ended with its session: it was the right one.
    let end = Instant::now() + Duration::from_secs(5);
    while Path::new(&format!("/proc/{}", servers[0])).exists() {
        assert!(Instant::now() < end, "{servers:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(Path::new(&format!("/proc/{}", servers[1])).exists());
    assert_eq!(session_of(other.pid(), &[])["server"], of_other["server"]);
}

/// A user's own session is measured by the user as root measures it: image, server and memfd are found without privileges.
#[test]
fn a_users_session_is_measured_by_its_user() {
    let Some(stage) = stage(&[]) else { return };
    let user = "--reuid=65534 --regid=65534 --clear-groups";
    let can = Command::new("sh")
        .args(["-c", &format!("setpriv {user} unshare -U true")])
        .output()
        .unwrap();
    if !can.status.success() {
        return skip("no user namespaces for an unprivileged user");
    }
    // Programs and image where all may read them, and in a namespace of its own a /dev/fuse that all may open.
    let dir = stage.path();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(stage.image(), fs::Permissions::from_mode(0o644)).unwrap();
    let [xip_run, xip_mem] = [XIP_RUN, env!("CARGO_BIN_EXE_xip-mem")].map(|program| {
        let copy = dir.join(Path::new(program).file_name().unwrap());
        copy_program(Path::new(program), &copy);
        copy
    });
    let image = stage.image();
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-ec"])
        .arg(format!(
            "mknod -m 666 fuse c 10 229; mount --bind fuse /dev/fuse; rm fuse; cd /
             exec setpriv {user} {} --image {} /bin/busybox sh \"$@\"",
            xip_run.display(),
            image.display()
        ))
        .arg("sh")
        .current_dir(dir);
    let session = Waiting::start(&mut command, FIVE, 5);
    let pid = session.pid();
    let shown = Command::new("sh")
        .args([
            "-c",
            &format!(
                "setpriv {user} {} --session --json {pid}",
                xip_mem.display()
            ),
        ])
        .output()
        .unwrap();
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    let mut shown: Value = serde_json::from_slice::<Value>(&shown.stdout).unwrap()[0].take();
    let mut by_root = session_of(pid, &[]);
    assert_ne!(shown["server"], Value::Null, "{}", shown["notes"]);
    assert_ne!(shown["image"], Value::Null, "{}", shown["notes"]);
    assert_eq!(shown["processes"].as_array().unwrap().len(), 5);
    for one in [&mut shown, &mut by_root] {
        let notes = one["notes"].take().to_string();
        assert!(!notes.contains("cannot be opened"), "{notes}");
    }
    assert_eq!(shown, by_root);
}

#[test]
fn a_view_that_nobody_known_serves_is_said_to_have_no_server() {
    let Some(stage) = stage(&[]) else { return };
    let image = Image::open(FileBacking::open(&stage.image()).unwrap()).unwrap();
    let mounted = Mounted::new(image);
    let view = mounted.dir.path().to_str().unwrap();
    let mut command = launch(&stage, &["--view", view]);
    let session = Waiting::start(&mut command, "cat <&3 &", 2);
    let image = fs::canonicalize(stage.image()).unwrap();
    let image = image.to_str().unwrap();
    // The image is found by what the first program maps of it, and may be named.
    for options in [&[][..], &["--image", image]] {
        let shown = session_of(session.pid(), options);
        assert_eq!(shown["server"], Value::Null);
        assert_eq!(shown["image"], image);
        assert_eq!(shown["totals"]["server_bytes"], 0);
        let notes = shown["notes"].to_string();
        assert!(
            notes.contains("the server of the view (FUSE connection "),
            "{notes}"
        );
        assert!(notes.contains("is not in the sums"), "{notes}");
        let files = shown["files"].as_array().unwrap();
        assert!(
            files.iter().all(|file| file["file"] == BUSYBOX),
            "{files:?}"
        );
    }
    let printed = text(&xip_mem(&["--session", &session.pid().to_string()]).stdout);
    assert!(printed.contains("server not found)"), "{printed}");
    assert!(!printed.contains("memfds + server)"), "{printed}");
}

#[test]
fn what_is_no_session_is_refused_with_the_way_out() {
    let Some(stage) = stage(&[]) else { return };
    let session = Waiting::start(&mut launch(&stage, &[]), "cat <&3 &", 2);
    let server = session_of(session.pid(), &[])["server"]["pid"].to_string();
    let (own, pid) = (std::process::id().to_string(), session.pid().to_string());
    let other = stage.path().join("other.cramfs");
    let other_stage = Stage::new();
    other_stage.add_at(Path::new(BUSYBOX), Path::new("/bin/other"));
    other_stage.build::<&str>(&[]);
    fs::copy(other_stage.image(), &other).unwrap();
    let other = other.to_str().unwrap();
    let cases: [(&[&str], &str); 8] = [
        (
            &["--session", &own],
            "is in no session: its root directory is not an image",
        ),
        (
            &["--session", &own],
            &format!("`xip-mem {own}` measures the process"),
        ),
        (&["--session", &server], "name a process that runs in it"),
        (
            &["--session", "--image", other, &pid],
            "is not the image of this session, which is ",
        ),
        (
            &["--session", "--image", "/etc/passwd", &pid],
            "/etc/passwd: no cramfs superblock",
        ),
        (
            &["--session", "--image", "/no/such", &pid],
            "/no/such: No such file",
        ),
        (&["--image", other, &pid], "--session"),
        (&["--session", "--compare", &pid], "cannot be used with"),
    ];
    for (args, says) in cases {
        let out = xip_mem(args);
        let err = text(&out.stderr);
        assert_eq!(out.status.code(), Some(125), "{args:?}: {err}");
        assert!(err.contains(says), "{says} is not in {err}");
        assert_eq!(text(&out.stdout), "", "{args:?}");
    }
    // One that cannot be measured hides no other.
    let out = xip_mem(&["--session", &own, &pid]);
    assert_eq!(out.status.code(), Some(125));
    assert!(text(&out.stdout).starts_with(&format!("session of pid {pid}: 2 processes")));
}

#[test]
fn a_chroot_into_an_image_is_no_session() {
    let Some(stage) = stage(&[]) else { return };
    let image = Image::open(FileBacking::open(&stage.image()).unwrap()).unwrap();
    let mounted = Mounted::new(image);
    let mut command = Command::new("chroot");
    command.arg(mounted.dir.path()).args([BUSYBOX, "sh"]);
    let native = Waiting::start(&mut command, "", 1);
    let out = xip_mem(&["--session", &native.pid().to_string()]);
    assert_eq!(out.status.code(), Some(125));
    assert!(
        text(&out.stderr).contains("by chroot(2)"),
        "{}",
        text(&out.stderr)
    );
}
