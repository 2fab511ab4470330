//! Where the kernel, or the user, lacks a feature: `--probe` says so, sessions go on with what is possible and say what is
//! lost, `--require in-place` fails. Each feature is really taken away: by a seccomp filter that answers as a kernel without
//! it does, a limit of 0, a /dev without the device.

#[path = "common/deny.rs"]
mod deny;
#[path = "common/leftovers.rs"]
mod leftovers;
#[path = "common/mounted.rs"]
mod mounted;
#[path = "common/tree.rs"]
mod tree;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use deny::{Deny, NO_SECCOMP, NO_SET_MM, NO_USER_NAMESPACE, filter};
use leftovers::Traces;
use mounted::can_mount;
use serde_json::Value;
use tempfile::TempDir;
use xip_run::cramfs::build::BuildOptions;
use xip_run::cramfs::xip::XipPolicy;
use xip_run::{feature, sys};

const XIP_RUN: &str = env!("CARGO_BIN_EXE_xip-run");
/// Exit status for what cannot be done without a feature.
const LACKING: i32 = 123;

/// A directory with `image`, a busybox system, and `xip-run`, all for everybody.
struct System(TempDir);

impl System {
    fn new() -> Option<Self> {
        if !can_mount() || !tree::have(tree::BUSYBOX) || !tree::have("setpriv") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = dir.path().join("root");
        for name in ["bin", "proc", "dev", "tmp"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::copy(tree::BUSYBOX, root.join("bin/busybox")).unwrap();
        symlink("busybox", root.join("bin/cat")).unwrap();
        let options = BuildOptions {
            xip: XipPolicy::new(&[], false).unwrap(),
            ..BuildOptions::default()
        };
        tree::build_in(dir.path(), &options).unwrap();
        let system = Self(dir);
        fs::set_permissions(system.image(), fs::Permissions::from_mode(0o644)).unwrap();
        let copied = Command::new("cp")
            .arg(XIP_RUN)
            .arg(system.xip_run())
            .status();
        assert!(copied.unwrap().success());
        Some(system)
    }

    fn image(&self) -> PathBuf {
        self.0.path().join("image")
    }

    fn xip_run(&self) -> PathBuf {
        self.0.path().join("xip-run")
    }

    /// Runs a script of the host, in a mount namespace of its own with this directory as the current one, in which
    /// `$xip` is xip-run; the filter is there from its start.
    fn run(&self, deny: &[Deny], script: &str) -> Said {
        let mut command = Command::new("unshare");
        command
            .args(["-m", "sh", "-ec"])
            .arg(script)
            .current_dir(self.0.path())
            .env("xip", self.xip_run())
            .env_remove("XIP_IMAGE");
        if !deny.is_empty() {
            let filter = filter(deny);
            // SAFETY: it makes one system call, and no memory.
            unsafe { command.pre_exec(move || sys::install_seccomp_filter(&filter)) };
        }
        let Output {
            status,
            stdout,
            stderr,
        } = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said {
            status: status.code(),
            stdout: text(stdout),
            stderr: text(stderr),
        }
    }

    /// What is executable of a process of which this is /proc/PID/maps: how many mappings are the image's, how many are
    /// not, without those of the kernel and the stub.
    fn executable(&self, maps: &str) -> (usize, usize) {
        let image = fs::canonicalize(self.image()).unwrap();
        let files = maps.lines().filter(|line| line.contains(" r-xp "));
        let (ours, others): (Vec<_>, Vec<_>) = files
            .filter(|line| !line.ends_with("[vdso]") && !line.contains("/memfd:xip-run:"))
            .partition(|line| line.ends_with(image.to_str().unwrap()));
        (ours.len(), others.len())
    }

    /// Nothing of any session is left.
    fn assert_gone(&self) {
        let traces = Traces {
            image: self.image(),
            ..Traces::default()
        };
        traces.assert_gone();
    }
}

struct Said {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Said {
    /// It has ended well and said one line, which has all these.
    #[track_caller]
    fn goes_on(&self, lost: &[&str]) -> &str {
        assert_eq!(self.status, Some(0), "{}{}", self.stdout, self.stderr);
        let line = self.stderr.strip_suffix('\n').unwrap_or_default();
        assert!(
            line.starts_with("xip-run: ") && !line.contains('\n'),
            "{}",
            self.stderr
        );
        for what in lost {
            assert!(line.contains(what), "{what}: {line}");
        }
        &self.stdout
    }

    /// It has ended well, and nothing is lost.
    #[track_caller]
    fn goes_on_silently(&self) -> &str {
        let all = (self.status, self.stderr.as_str());
        assert_eq!(all, (Some(0), ""), "{}", self.stdout);
        &self.stdout
    }

    /// It has not begun, for want of this.
    #[track_caller]
    fn fails(&self, lacking: &[&str]) {
        assert_eq!(
            (self.status, self.stdout.as_str()),
            (Some(LACKING), ""),
            "{}",
            self.stderr
        );
        for what in lacking {
            assert!(self.stderr.contains(what), "{what}: {}", self.stderr);
        }
    }

    /// `--probe --json`, with the names of the features that are not there.
    #[track_caller]
    fn probed(&self) -> (Value, Vec<String>) {
        let json: Value = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|err| panic!("{err}: {}{}", self.stdout, self.stderr));
        let complete = json["session_in_place"].as_bool().unwrap();
        let status = if complete { 0 } else { LACKING };
        assert_eq!(self.status, Some(status), "{json:#}");
        let missing = json["features"].as_array().unwrap().iter();
        let missing = missing.filter(|finding| finding["available"] == false);
        let missing = missing.map(|finding| {
            assert!(finding["detail"].is_string(), "{finding}");
            finding["name"].as_str().unwrap().to_owned()
        });
        let missing = missing.collect();
        (json, missing)
    }
}

/// Puts a /dev/fuse there that everybody may open.
const FUSE_FOR_ALL: &str =
    "mknod -m 666 fuse c 10 229; mount --bind fuse /dev/fuse; rm fuse; cd /tmp\n";
const NO_FUSE: &str = "mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; cd /tmp\n";
const NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups";

#[test]
fn without_seccomp_the_first_program_is_in_place() {
    let Some(system) = System::new() else { return };
    let image = system.image().display().to_string();
    for errno in [libc::ENOSYS, libc::EINVAL, libc::EPERM] {
        let deny = [Deny(libc::SYS_seccomp, None, errno)];
        let run = |options: &str, script: &str| {
            let script = format!("exec $xip --image {image} {options} /bin/busybox {script}");
            system.run(&deny, &script)
        };
        let lost = ["no seccomp filter", "only the first program is in place"];
        let first = run("", "cat /proc/self/maps");
        assert_eq!(system.executable(first.goes_on(&lost)), (1, 0));
        // What it starts is from the view, and it can start itself.
        let second = run("", "sh -c '/bin/cat /proc/self/maps; exit $?'");
        assert_eq!(system.executable(second.goes_on(&lost)), (0, 1));
        assert_eq!(
            run("", "sh -c 'ls /'").goes_on(&lost),
            "bin\ndev\nproc\ntmp\n"
        );
        let exe = run("", "readlink /proc/self/exe");
        assert_eq!(exe.goes_on(&lost), "/bin/busybox\n");
        // None of the session's descriptors is left open.
        let native = system.run(&[], "exec busybox ls /proc/self/fd").stdout;
        assert_eq!(run("", "ls /proc/self/fd").goes_on(&lost), native);
        assert_eq!(run("", "sh -c 'exit 42'").status, Some(42));
        let quiet = run("--quiet", "echo on");
        assert_eq!((&*quiet.stdout, &*quiet.stderr), ("on\n", ""));
        run("--require in-place", "echo on").fails(&[
            "--require in-place: no seccomp filter: seccomp(2)",
            "CONFIG_SECCOMP_FILTER",
        ]);
    }
    system.assert_gone();
}

#[test]
fn without_fuse_one_program_is_in_place() {
    let Some(system) = System::new() else { return };
    let image = system.image().display().to_string();
    let run = |options: &str, script: &str| {
        let script = format!("{NO_FUSE} exec $xip --image {image} {options} /bin/busybox {script}");
        system.run(&[], &script)
    };
    let lost = [
        "open /dev/fuse: No such file",
        "one program is in place, with the host's root directory",
    ];
    let maps = run("", "cat /proc/self/maps");
    assert_eq!(system.executable(maps.goes_on(&lost)), (1, 0));
    let hosts = run("", &format!("ls {image}"));
    assert_eq!(hosts.goes_on(&lost), format!("{image}\n"));
    // Another root directory is nothing to be quiet about.
    assert_eq!(run("--quiet", "echo on").goes_on(&lost), "on\n");
    assert_eq!(run("--no-root", "echo on").stderr, "");
    // Nothing else would do.
    run("--require in-place", "echo on")
        .fails(&["--require in-place: the root view: open /dev/fuse"]);
    run("--bind /srv:/tmp", "echo on").fails(&["open /dev/fuse", "--view"]);
    run("--workdir /bin", "echo on").fails(&["open /dev/fuse", "--view"]);
    // What is wrong with the program is worse.
    let script = format!("{NO_FUSE} exec $xip --image {image} /nope");
    let missing = system.run(&[], &script);
    assert_eq!(missing.status, Some(127));
    assert!(!missing.stderr.contains("going on"), "{}", missing.stderr);
    // A device that is not FUSE's.
    let script =
        format!("mount --bind /dev/null /dev/fuse; exec $xip --image {image} /bin/busybox echo on");
    let other = system.run(&[], &script);
    assert_eq!(
        other.goes_on(&["mount fuse.cramfs over /", lost[1]]),
        "on\n"
    );
    system.assert_gone();
}

#[test]
fn without_user_namespaces_users_have_one_program_in_place() {
    let Some(system) = System::new() else { return };
    let image = system.image().display().to_string();
    let as_nobody = |deny: &[Deny], options: &str, script: &str| {
        system.run(
            deny,
            &format!(
                "{FUSE_FOR_ALL} exec {NOBODY} $xip --image {image} {options} /bin/busybox {script}"
            ),
        )
    };
    if as_nobody(&[], "--require in-place", "true").status != Some(0) {
        println!("skipped: no user namespaces here that could be taken away");
        return;
    }
    let lost = [
        "unshare(CLONE_NEWUSER)",
        "user.max_user_namespaces",
        "one program is in place, with the host's root directory",
    ];
    let deny = [NO_USER_NAMESPACE];
    let maps = as_nobody(&deny, "", "cat /proc/self/maps");
    assert_eq!(system.executable(maps.goes_on(&lost)), (1, 0));
    assert_eq!(as_nobody(&deny, "", "id -u").goes_on(&lost), "65534\n");
    as_nobody(&deny, "--require in-place", "true").fails(&["--require in-place", lost[0]]);

    // Without /proc nobody can be somebody in one.
    let script = format!(
        "{FUSE_FOR_ALL} mount -t tmpfs none /proc; exec {NOBODY} $xip --image {image} /bin/busybox echo on"
    );
    let lost_proc = ["a user namespace needs /proc", lost[2]];
    assert_eq!(system.run(&[], &script).goes_on(&lost_proc), "on\n");
    // Root does not need it.
    let script = format!(
        "mount -t tmpfs none /proc; exec $xip --require in-place --image {image} /bin/busybox sh -c 'ls / | head -1'"
    );
    let said = system.run(&[], &script);
    assert_eq!((&*said.stdout, &*said.stderr), ("bin\n", ""));

    // A limit of 0, in a user namespace whose root may not mount.
    let limited = |options: &str, script: &str| {
        let script = format!(
            "exec unshare -Ur sh -ec 'echo 0 > /proc/sys/user/max_user_namespaces
             exec setpriv --bounding-set -sys_admin $xip --image {image} {options} /bin/busybox {script}'"
        );
        system.run(&[], &script)
    };
    assert_eq!(limited("", "echo on").goes_on(&lost), "on\n");
    limited("--require in-place", "true").fails(&["No space left", lost[1]]);
    system.assert_gone();
}

/// Linux before 6.4 has no PR_GET_AUXV; what it would tell is not looked for in /proc.
#[test]
fn without_proc_programs_run() {
    let Some(system) = System::new() else { return };
    let image = system.image().display().to_string();
    let deny = [Deny(libc::SYS_prctl, Some(0x4155_5856), libc::EINVAL)];
    for options in ["", "--no-root"] {
        let script =
            format!("umount -l /proc; exec $xip --image {image} {options} /bin/busybox echo on");
        let said = system.run(&deny, &script);
        assert_eq!(said.goes_on_silently(), "on\n", "{options}");
    }
    system.assert_gone();
}

#[test]
fn without_checkpoint_restore_the_stub_is_proc_self_exe() {
    let Some(system) = System::new() else { return };
    let image = system.image().display().to_string();
    let run = |deny: &[Deny], options: &str, script: &str| {
        let script = format!("exec $xip --image {image} {options} /bin/busybox {script}");
        system.run(deny, &script)
    };
    let lost = [
        "/proc/self/exe cannot be set: prctl(2) PR_SET_MM_MAP",
        "/proc/self/exe is the stub",
    ];
    let deny = [NO_SET_MM];
    let exe = run(&deny, "", "readlink /proc/self/exe");
    assert!(exe.goes_on(&lost).starts_with("/memfd:xip-run:boot"));
    // All is in place, and the shell starts itself by it.
    let maps = run(
        &deny,
        "",
        "sh -c 'cat /proc/self/maps; /bin/cat /proc/self/maps'",
    );
    assert_eq!(system.executable(maps.goes_on(&lost)), (2, 0));
    // The break is where no program is, but for what the kernel adds at random: arch_randomize_brk(), 1 GiB at most.
    let stub = xip_run::session::RESERVED.unwrap().start();
    for wrapper in ["", "setarch -R"] {
        let script =
            format!("exec {wrapper} $xip --image {image} /bin/busybox cat /proc/self/maps");
        let ended = system.run(&deny, &script);
        let heap = ended
            .goes_on(&lost)
            .lines()
            .find(|line| line.ends_with("[heap]"))
            .unwrap();
        let start = u64::from_str_radix(heap.split('-').next().unwrap(), 16).unwrap();
        assert!((stub..stub + (2 << 30)).contains(&start), "{heap}");
    }
    run(&deny, "--require in-place", "true").fails(&[lost[0], "CONFIG_CHECKPOINT_RESTORE"]);
    assert_eq!(run(&deny, "--no-root", "echo on").stderr, "");
    // Both at once are one line.
    let both = run(&[NO_SET_MM, NO_SECCOMP], "", "echo on");
    both.goes_on(&[lost[0], lost[1], "only the first program is in place"]);

    // Who may not do it outside may do it in a namespace.
    let dropped = format!(
        "exec setpriv --bounding-set -checkpoint_restore,-sys_admin $xip --require in-place --image {image} \
         /bin/busybox readlink /proc/self/exe"
    );
    let dropped = system.run(&[], &dropped);
    assert_eq!((&*dropped.stdout, &*dropped.stderr), ("/bin/busybox\n", ""));
    system.assert_gone();
}

#[test]
fn a_capability_that_a_program_drops_is_not_missed() {
    let Some(system) = System::new() else { return };
    let image = system.image().display().to_string();
    // An unprivileged session, and in it a program without even the session's one capability.
    let run = |script: &str| {
        let script = format!(
            "{FUSE_FOR_ALL} exec {NOBODY} $xip --require in-place --image {image} /bin/busybox sh -c '{script}'"
        );
        let said = system.run(&[], &script);
        assert_eq!(
            (said.status, &*said.stderr),
            (Some(0), ""),
            "{}",
            said.stdout
        );
        said.stdout
    };
    let shown = run("grep -h Cap /proc/self/status; readlink /proc/self/exe");
    assert!(
        shown.contains("CapEff:\t0000010000000000") && shown.ends_with("\n/bin/busybox\n"),
        "{shown}"
    );
    let shown = run(
        "exec setpriv --ambient-caps=-cap_40 --inh-caps=-cap_40 /bin/busybox sh -c \
         \"grep CapEff /proc/self/status; readlink /proc/self/exe; cat /proc/self/maps\"",
    );
    let (caps, rest) = shown.split_once('\n').unwrap();
    let (exe, maps) = rest.split_once('\n').unwrap();
    assert_eq!(caps, "CapEff:\t0000000000000000");
    assert!(exe.starts_with("/memfd:xip-run:boot"), "{exe}");
    assert_eq!(system.executable(maps), (1, 0), "{maps}");
    system.assert_gone();
}

#[test]
fn memfds_that_may_not_be_executed_are_named() {
    let Some(system) = System::new() else { return };
    let image = system.image().display().to_string();
    let run = |command: &str| {
        let script = format!(
            "exec unshare -pf --mount-proc sh -ec 'echo 2 > /proc/sys/vm/memfd_noexec; {command}'"
        );
        system.run(&[], &script)
    };
    if run("exit 0").status != Some(0) {
        println!("skipped: no vm.memfd_noexec (Linux 6.3)");
        return;
    }
    for options in ["", "--no-root"] {
        let said = run(&format!("$xip --image {image} {options} /bin/busybox true"));
        said.fails(&["memfd_create", "vm.memfd_noexec=2"]);
    }
    let (json, missing) = run("$xip --probe --json").probed();
    assert_eq!(missing, ["memfd-exec", "execveat"]);
    assert_eq!(json["one_program_in_place"], false);
    system.assert_gone();
}

#[test]
fn the_probe_tells_what_is_missing() {
    let Some(system) = System::new() else { return };
    let image = system.image().display().to_string();
    let probe = |deny: &[Deny], before: &str, user: &str| {
        let script = format!("{before} exec {user} $xip --probe --json --image {image}");
        system.run(deny, &script).probed()
    };
    let (json, missing) = probe(&[], "", "");
    assert_eq!(missing, [""; 0], "{json:#}");
    assert_eq!(
        (&json["uid"], &json["image"]["mapped_from"]),
        (&0.into(), &"page-cache".into())
    );
    assert_eq!(json["image"]["executable"], true);
    let lacks = |deny: &[Deny], before: &str, user: &str, expected: &[&str]| {
        let (json, missing) = probe(deny, before, user);
        assert_eq!(missing, expected, "{json:#}");
        assert_eq!(json["one_program_in_place"], true);
    };
    lacks(&[NO_SECCOMP], "", "", &["seccomp"]);
    lacks(&[NO_SET_MM], "", "", &["mm-map", "set-exe"]);
    lacks(&[], NO_FUSE, "", &["fuse", "fuse-mount"]);
    // Root needs no user namespace.
    lacks(&[NO_USER_NAMESPACE], "", "", &["user-namespace"]);
    let deny = |number, errno| [Deny(number, None, errno)];
    lacks(&deny(libc::SYS_statx, libc::ENOSYS), "", "", &["statx"]);
    lacks(&deny(439, libc::ENOSYS), "", "", &["faccessat2"]);
    lacks(
        &deny(libc::SYS_mount_setattr, libc::ENOSYS),
        "",
        "",
        &["mount-setattr"],
    );
    lacks(&[], "mount -t tmpfs none /proc;", "", &["proc"]);

    if probe(&[], FUSE_FOR_ALL, NOBODY).1.is_empty() {
        let namespaces = [
            "mount-namespace",
            "fuse-mount",
            "set-exe",
            "user-namespace",
            "mount-setattr",
        ];
        lacks(&[NO_USER_NAMESPACE], FUSE_FOR_ALL, NOBODY, &namespaces);
    } else {
        println!("skipped: no user namespaces here that could be taken away");
    }

    // An image that cannot be executed.
    let script = format!("mount --bind . .; mount -o remount,bind,noexec .; cp $xip /tmp/xip-run.$$
        status=0; /tmp/xip-run.$$ --probe --json --image {image} || status=$?; rm /tmp/xip-run.$$; exit $status");
    let (json, missing) = system.run(&[], &script).probed();
    assert_eq!(
        (missing.len(), &json["image"]["executable"]),
        (0, &false.into())
    );
    assert!(
        json["image"]["detail"].as_str().unwrap().contains("noexec"),
        "{json:#}"
    );
    // No image, and none that is one.
    assert_eq!(
        system.run(&[], "exec $xip --probe --image /nope").status,
        Some(125)
    );
    system.assert_gone();
}

#[test]
fn the_probe_is_for_people_too_and_leaves_nothing() {
    let Some(system) = System::new() else { return };
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let output = Command::new(XIP_RUN).arg("--probe").output().unwrap();
    assert_eq!(output.stderr, b"", "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for feature in feature::ALL {
        let [title, gives, without] =
            [feature.title, feature.gives, feature.without].map(|text| text.replace('`', ""));
        let row = text
            .lines()
            .position(|line| line.contains(&title) && line.ends_with(&gives));
        let row = row.unwrap_or_else(|| panic!("{title}: {text}"));
        let line = text.lines().nth(row + 1).unwrap().trim_start();
        assert_eq!(line, format!("else: {without}"));
    }
    assert!(
        text.ends_with("A session in place, with the image as its root directory: yes\n"),
        "{text}"
    );
    assert_eq!(mounts(), before);
    // SIGCHLD is ignored by some who start it, and standard error closed.
    let script = "trap '' CHLD; exec $xip --probe --json 2>&-";
    assert_eq!(system.run(&[], script).probed().1, [""; 0]);
    let usage = |args: &[&str]| {
        Command::new(XIP_RUN)
            .args(args)
            .output()
            .unwrap()
            .status
            .code()
    };
    for args in [
        ["--probe", "--explain"].as_slice(),
        &["--probe", "/bin/busybox"],
        &["--json", "/bin/busybox"],
        &["--require", "speed", "/bin/busybox"],
        &["--require", "in-place", "--no-root", "/bin/busybox"],
    ] {
        assert_eq!(usage(args), Some(125), "{args:?}");
    }
}

/// The README's table, and what is tried.
#[test]
fn the_readme_has_the_same_table() {
    let readme = include_str!("../README.md");
    let rows = feature::ALL.iter().map(|feature| {
        format!(
            "| {} | {} | {} | {} |\n",
            feature.title, feature.since, feature.gives, feature.without
        )
    });
    let table: String = rows.collect();
    assert!(
        readme.contains(&table),
        "the README's table is to be\n{table}"
    );
}
