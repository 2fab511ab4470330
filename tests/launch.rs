//! xip-run as its user meets it: what it runs, what it refuses, with which words and exit status, and what it costs.

#[path = "common/launch.rs"]
mod launch;

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use launch::{
    Stage, XIP_RUN, busybox_stage, compile, finish, first_line, have_cc, run, text, waiting_shell,
};
use rustix::process::{Pid, Signal, kill_process};

fn in_place(stage: &Stage, args: &[&str]) -> Output {
    run(stage.xip_run().args(args), b"")
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/xip-mmu.cramfs")
}

/// Exit status and standard error of a launch that must fail.
fn refusal(command: &mut Command) -> (Option<i32>, String) {
    let output = run(command, b"");
    assert_eq!(text(&output.stdout), "");
    (output.status.code(), text(&output.stderr))
}

fn xip_run() -> Command {
    let mut command = Command::new(XIP_RUN);
    command.env_remove("XIP_IMAGE");
    command
}

#[track_caller]
fn assert_refused(command: &mut Command, code: i32, words: &[&str]) {
    let (status, message) = refusal(command);
    assert_eq!(status, Some(code), "{command:?}: {message}");
    for word in words {
        assert!(
            message.contains(word),
            "{command:?}: no {word:?} in {message:?}"
        );
    }
    assert!(!message.contains("panicked"), "{message}");
}

// ---- what it runs

#[test]
fn busybox_runs_unmodified() {
    let Some(stage) = busybox_stage() else { return };
    let output = in_place(
        &stage,
        &["/bin/busybox", "sh", "-c", "echo hello; ls /proc/self"],
    );
    let stdout = text(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(stdout.starts_with("hello\n"), "{stdout}");
    assert!(stdout.lines().any(|line| line == "cmdline"), "{stdout}");
    assert_eq!(text(&output.stderr), "");
}

/// The applets of a shell script are started through /proc/self/exe, pipes and background jobs included.
#[test]
fn busybox_starts_its_applets_through_proc_self_exe() {
    let Some(stage) = busybox_stage() else { return };
    let script = "printf 'c\\nb\\na\\n' | sort | tr '\\n' ' '; (sleep 0.1; echo late) & wait; \
                  echo \"$(busybox echo inner)\"; busybox_false() { false; }; busybox_false || echo $?; \
                  seq 1 300 | while read n; do echo $n; done | tail -n 1; exec cat /proc/self/comm";
    let native = run(
        Command::new(stage.path().join("busybox")).args(["sh", "-c", script]),
        b"",
    );
    let in_place = in_place(&stage, &["/bin/busybox", "sh", "-c", script]);
    assert_eq!(text(&in_place.stderr), text(&native.stderr));
    assert_eq!(text(&in_place.stdout), text(&native.stdout));
    assert!(text(&native.stdout).starts_with("a b c late\ninner\n1\n300\n"));
    assert_eq!(in_place.status, native.status);
}

#[test]
fn options_after_the_program_are_the_programs() {
    let Some(stage) = busybox_stage() else { return };
    let echo = |args: &[&str]| {
        let output = in_place(&stage, &[&["/bin/busybox", "echo"], args].concat());
        text(&output.stdout)
    };
    assert_eq!(
        echo(&["--explain", "--image", "x"]),
        "--explain --image x\n"
    );
    assert_eq!(echo(&["--", "--help"]), "-- --help\n");
    assert_eq!(echo(&["-n", "x"]), "x");
    let output = in_place(&stage, &["--", "/bin/busybox", "echo", "--version"]);
    assert_eq!(text(&output.stdout), "--version\n");
}

#[test]
fn arguments_need_not_be_utf_8() {
    let Some(stage) = busybox_stage() else { return };
    let bytes = b"\xff\xfe a\n\x80";
    let output = run(
        stage
            .xip_run()
            .args(["/bin/busybox", "printf", "%s"])
            .arg(OsStr::from_bytes(bytes)),
        b"",
    );
    assert_eq!(output.stdout, bytes);
}

#[test]
fn a_path_need_not_be_utf_8() {
    if !have_cc() {
        return;
    }
    let stage = Stage::new();
    let program = compile("args", &["-static"]).unwrap();
    let path = Path::new(OsStr::from_bytes(b"/\xff\xfe/program"));
    stage.add_at(&program, path);
    stage.build::<&str>(&[]);
    assert_eq!(run(stage.xip_run().arg(path), b"").status.code(), Some(42));
}

#[test]
fn argv0_is_what_it_is_told() {
    let Some(stage) = busybox_stage() else { return };
    // busybox looks at argv[0] for the applet.
    let output = in_place(
        &stage,
        &["--argv0", "/sbin/echo", "/bin/busybox", "an", "applet"],
    );
    assert_eq!(text(&output.stdout), "an applet\n", "{output:?}");
    let output = in_place(&stage, &["--argv0", "", "/bin/busybox", "x"]);
    assert_eq!(
        output.status.code(),
        Some(127),
        "no applet has the empty name: {output:?}"
    );
}

#[test]
fn symbolic_links_are_followed_inside_the_image() {
    let Some(stage) = busybox_stage() else { return };
    symlink("busybox", stage.in_root(Path::new("/bin/relative"))).unwrap();
    symlink("/bin/relative", stage.in_root(Path::new("/absolute"))).unwrap();
    fs::remove_file(stage.image()).unwrap();
    stage.build::<&str>(&[]);
    for path in [
        "/bin/relative",
        "/absolute",
        "/bin/../bin/./busybox",
        "../../bin/busybox",
    ] {
        let output = in_place(&stage, &["--argv0", "busybox", path, "echo", "x"]);
        assert_eq!(text(&output.stdout), "x\n", "{path}: {output:?}");
    }
}

#[test]
fn the_image_can_be_named_by_the_environment() {
    let Some(stage) = busybox_stage() else { return };
    let mut command = xip_run();
    command.env("XIP_IMAGE", stage.image());
    let output = run(
        command.args(["--no-root", "/bin/busybox", "sh", "-c", "echo $XIP_IMAGE"]),
        b"",
    );
    assert_eq!(
        text(&output.stdout),
        format!("{}\n", stage.image().display())
    );
    // The option counts more.
    let mut command = stage.xip_run();
    let output = run(
        command
            .env("XIP_IMAGE", "/nowhere")
            .args(["/bin/busybox", "true"]),
        b"",
    );
    assert!(output.status.success(), "{output:?}");
    // A relative path, from any directory.
    let mut command = xip_run();
    command
        .current_dir(stage.path())
        .env("XIP_IMAGE", "image.cramfs");
    let output = run(
        command.args([
            "--no-root",
            "/bin/busybox",
            "sh",
            "-c",
            "cd / && pwd && exec ls -d .",
        ]),
        b"",
    );
    assert_eq!(text(&output.stdout), "/\n.\n", "{output:?}");
}

#[test]
fn standard_streams_are_the_callers() {
    let Some(stage) = busybox_stage() else { return };
    let input = vec![b'x'; 300_000];
    let output = run(stage.xip_run().args(["/bin/busybox", "cat"]), &input);
    assert_eq!(output.stdout, input);
    let output = in_place(&stage, &["/bin/busybox", "sh", "-c", "echo to stderr >&2"]);
    assert_eq!(text(&output.stderr), "to stderr\n");
    // A reader that goes away ends a writer by SIGPIPE, which nobody has ignored.
    let mut child = stage
        .xip_run()
        .args(["/bin/busybox", "yes"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    first_line(&mut child);
    drop(child.stdout.take());
    assert_eq!(finish(child).status.signal(), Some(libc::SIGPIPE));
}

#[test]
fn xip_run_becomes_the_program() {
    let Some(stage) = busybox_stage() else { return };
    let mut child = waiting_shell(stage.xip_run().arg("/bin/busybox"), "echo $$");
    assert_eq!(child.line.trim(), child.child.id().to_string());
    let pid = Pid::from_child(&child.child);
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(child.child.wait().unwrap().signal(), Some(libc::SIGTERM));
    for status in [0, 1, 125, 255] {
        let output = in_place(
            &stage,
            &["/bin/busybox", "sh", "-c", &format!("exit {status}")],
        );
        assert_eq!(output.status.code(), Some(status));
    }
    let output = in_place(&stage, &["/bin/busybox", "sh", "-c", "kill -SEGV $$"]);
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV));
}

// ---- what it refuses

#[test]
fn what_is_not_there_is_127() {
    let golden = golden();
    for path in ["/nope", "/bin/nope", "nope"] {
        assert_refused(
            xip_run()
                .arg("--no-root")
                .arg("--image")
                .arg(&golden)
                .arg(path),
            127,
            &["xip-mmu.cramfs", "not in the image"],
        );
    }
}

#[test]
fn what_cannot_be_run_is_126() {
    let refused = |path: &str, words: &[&str]| {
        assert_refused(
            xip_run()
                .arg("--no-root")
                .arg("--image")
                .arg(golden())
                .arg(path),
            126,
            words,
        );
    };
    refused("/bin", &["/bin", "directory"]);
    refused("/bin/prog32", &["/bin/prog32", "32-bit x86"]);
    refused("/bin/prog-arm", &["32-bit ARM"]);
    // Its own path, not the link's.
    refused("/bin/p", &["/bin/prog32"]);
    refused("/data/page.bin", &["/data/page.bin", "EACCES"]);
    refused("/bin/prog32/x", &["/bin/prog32/x", "not a directory"]);
}

#[test]
fn files_that_are_no_programs_are_126() {
    let stage = Stage::new();
    let add = |name: &str, content: &[u8], mode: u32| {
        let path = stage.in_root(Path::new(name));
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    };
    add("/script", b"#!/bin/sh -e\necho\n", 0o755);
    add("/not-executable", b"\x7fELF", 0o644);
    add("/empty", b"", 0o755);
    add("/text", b"no program", 0o755);
    add("/cut-off", b"\x7fELF\x02\x01\x01", 0o755);
    stage.build::<&str>(&[]);
    let refused =
        |path: &str, words: &[&str]| assert_refused(stage.xip_run().arg(path), 126, words);
    refused("/script", &["script", "/bin/sh -e /script"]);
    refused("/not-executable", &["EACCES", "0644"]);
    refused("/empty", &["/empty"]);
    refused("/text", &["/text"]);
    refused("/cut-off", &["/cut-off"]);
}

#[test]
fn an_interpreter_that_is_not_in_the_image_is_127() {
    if !have_cc() {
        return;
    }
    let stage = Stage::new();
    let program = compile("args", &["-pie", "-fPIE"]).unwrap();
    stage.add_at(&program, Path::new("/program"));
    stage.build::<&str>(&[]);
    assert_refused(
        stage.xip_run().arg("/program"),
        127,
        &["/program", "interpreter", "/lib64/ld-linux-x86-64.so.2"],
    );
}

#[test]
fn what_xip_run_cannot_do_is_125() {
    let golden = golden();
    let image = |path: &Path| {
        let mut command = xip_run();
        command
            .arg("--no-root")
            .arg("--image")
            .arg(path)
            .arg("/bin/prog64");
        command
    };
    assert_refused(
        &mut image(Path::new("/nowhere/at-all")),
        125,
        &["/nowhere/at-all", "No such file"],
    );
    assert_refused(&mut image(Path::new("/")), 125, &["not a regular file"]);
    assert_refused(&mut image(Path::new("/dev/null")), 125, &["/dev/null"]);
    assert_refused(&mut image(Path::new(XIP_RUN)), 125, &["cramfs"]);
    assert_refused(
        xip_run().args(["--no-root", "/bin/prog64"]),
        125,
        &["--image", "XIP_IMAGE"],
    );
    assert_refused(xip_run().arg("--image").arg(&golden), 125, &["PROGRAM"]);
    assert_refused(xip_run().args(["--bogus", "/x"]), 125, &["--bogus"]);
    assert_refused(xip_run().args(["--json", "/x"]), 125, &["--explain"]);
    assert_refused(
        xip_run().args(["--explain", "--page-size", "5000", "/x"]),
        125,
        &["4096, 16384 or 65536"],
    );
}

#[test]
fn damaged_images_are_125() {
    let Some(stage) = busybox_stage() else { return };
    let whole = fs::read(stage.image()).unwrap();
    for len in [0, 1, 75, 76, 100, 4096, whole.len() / 2, whole.len() - 1] {
        fs::write(stage.image(), &whole[..len]).unwrap();
        assert_refused(
            stage.xip_run().args(["/bin/busybox", "true"]),
            125,
            &["image.cramfs"],
        );
    }
    // A bit of the program is wrong: nobody looks, unless asked to.
    let mut damaged = whole;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(stage.image(), &damaged).unwrap();
    assert_refused(
        stage.xip_run().args(["--verify", "/bin/busybox", "true"]),
        125,
        &["CRC"],
    );
}

/// Does something to the image at that path.
type Change = fn(&Path);

/// The program is mapped by the stub, which must find the very file that was planned with. When a program starts itself
/// once more, there is time to change it.
#[test]
fn an_image_that_changed_after_the_plan_is_refused() {
    let Some(stage) = busybox_stage() else { return };
    let changes: [(&str, Change); 4] = [
        ("replaced", |image| {
            let fresh = image.with_extension("fresh");
            fs::copy(image, &fresh).unwrap();
            fs::rename(fresh, image).unwrap();
        }),
        ("truncated", |image| {
            fs::OpenOptions::new()
                .write(true)
                .open(image)
                .unwrap()
                .set_len(4096)
                .unwrap();
        }),
        ("written to", |image| {
            let file = fs::OpenOptions::new().write(true).open(image).unwrap();
            // The same byte; not by truncating it first, which takes the running program's pages away.
            file.write_all_at(b"C", 16).unwrap();
        }),
        ("gone", |image| fs::remove_file(image).unwrap()),
    ];
    for (what, change) in changes {
        fs::remove_file(stage.image()).ok();
        stage.build::<&str>(&[]);
        let mut child = stage
            .xip_run()
            .args([
                "/bin/busybox",
                "sh",
                "-c",
                "echo ready; read x; exec /proc/self/exe echo wrong",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        first_line(&mut child);
        change(&stage.image());
        let _ = child.stdin.take().unwrap().write_all(b"\n");
        let output = finish(child);
        assert_ne!(text(&output.stdout), "wrong\n", "{what}");
        if what == "truncated" {
            // The running program has lost its pages as well, as any program whose file is cut off: SIGBUS perhaps.
            assert!(!output.status.success(), "{what}: {output:?}");
        } else {
            assert_eq!(output.status.code(), Some(126), "{what}: {output:?}");
            assert!(
                text(&output.stderr).starts_with("xip-run: "),
                "{what}: {output:?}"
            );
        }
    }
}

// ---- what it explains

#[test]
fn explain_shows_the_plan_and_runs_nothing() {
    let Some(stage) = busybox_stage() else { return };
    let shown = in_place(&stage, &["--explain", "/bin/busybox", "echo", "run"]);
    assert!(shown.status.success(), "{shown:?}");
    let shown = text(&shown.stdout);
    assert!(
        shown.contains("/bin/busybox") && shown.contains("r-x") && shown.contains("totals"),
        "{shown}"
    );
    assert!(!shown.contains("\nrun\n"));
    // The view is not needed for that; nothing of busybox would be taken from it.
    let output = run(
        xip_run()
            .arg("--image")
            .arg(stage.image())
            .args(["--explain", "/bin/busybox"]),
        b"",
    );
    let in_session = shown.replace(", with --no-root", ", in a session");
    let in_session = in_session.replace(
        "  RAM up front",
        "  page cache, view            0 KiB\n  RAM up front",
    );
    assert_eq!(text(&output.stdout), in_session);

    let plan = stage.explain(Path::new("/bin/busybox"));
    assert_eq!(plan["program"]["path"], "/bin/busybox");
    assert_eq!(plan["interpreter"], serde_json::Value::Null);
    let mappings = plan["program"]["mappings"].as_array().unwrap();
    let copied = mappings
        .iter()
        .filter(|mapping| mapping["source"] == "copied");
    assert_eq!(
        copied.count(),
        0,
        "xip-image lays busybox out so that nothing is copied: {plan:#}"
    );
    for mapping in mappings.iter().filter(|mapping| mapping["prot"] != "rw-") {
        assert_eq!(mapping["source"], "direct", "{mapping}");
    }
    assert!(plan["totals"]["in_place_bytes"].as_u64().unwrap() > 1 << 20);

    let output = in_place(
        &stage,
        &["--explain", "--page-size", "65536", "/bin/busybox"],
    );
    assert_eq!(
        output.status.code(),
        Some(126),
        "Debian links for pages of 4 KiB: {output:?}"
    );
    assert!(text(&output.stderr).contains("max-page-size"), "{output:?}");
}
