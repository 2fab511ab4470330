//! Every command of the README's console blocks runs, in their order, in one directory. (`samples/quickstart` and
//! `tests/run` are run by CI: tests/run calls the one, and is the other.)

#[path = "common/mounted.rs"]
mod mounted;

use std::path::Path;
use std::process::Command;

const README: &str = include_str!("../README.md");

fn console_commands() -> Vec<&'static str> {
    let mut in_console = false;
    let mut commands = Vec::new();
    for line in README.lines() {
        match line {
            "```console" => in_console = true,
            "```" => in_console = false,
            _ if in_console => commands.extend(line.strip_prefix("$ ")),
            _ => {}
        }
    }
    commands
}

#[test]
fn the_commands_of_the_readme_work() {
    if !Path::new("/bin/busybox").exists() {
        assert!(
            std::env::var_os("CI").is_none(),
            "busybox-static is missing"
        );
        println!("skipped: /bin/busybox (Debian's busybox-static) is missing");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("root/bin")).unwrap();
    std::fs::copy("/bin/busybox", dir.path().join("root/bin/busybox")).unwrap();
    let bin = Path::new(env!("CARGO_BIN_EXE_xip-run")).parent().unwrap();
    let path = std::env::join_paths(std::iter::once(bin.to_owned()).chain(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    )))
    .unwrap();

    let commands = console_commands();
    assert!(commands.len() > 8, "{commands:?}");
    for command in commands {
        let needs_view = command.contains("--session") || command.contains("--trace");
        if needs_view && !mounted::can_mount() {
            continue;
        }
        // `set -e` and pipefail do not reach into a background job; the last command's status counts then.
        let output = Command::new("bash")
            .args(["-o", "pipefail", "-ec", command])
            .env("PATH", &path)
            .current_dir(dir.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "$ {command}\n{text}");
        if command.contains("echo hello") {
            assert!(
                text.starts_with("hello\n") && text.contains("cmdline"),
                "{text}"
            );
        }
        if command.ends_with("xip-mem $!") {
            assert!(text.contains("/bin/busybox text"), "{text}");
        }
        if command.contains("--trace") {
            assert!(text.contains("how many of 1 runs touched it"), "{text}");
        }
        if command.contains("xip-mem --why") {
            assert!(text.contains("written: the program writes to it"), "{text}");
        }
        if command.contains("--session") {
            let title = "4 processes, root ";
            assert!(
                text.contains(title) && text.contains("RAM this session costs"),
                "{text}"
            );
        }
    }
}

#[test]
fn the_plan_that_the_readme_shows_has_the_form_that_is_printed() {
    for needed in [
        "r-x direct        image@",
        "copy-on-write image@",
        "rw- zero",
    ] {
        assert!(README.contains(needed), "{needed}");
    }
}
