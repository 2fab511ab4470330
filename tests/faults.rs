//! Faults: whatever fails, at whatever point of a launch, of a session or of a start in one, it works all the same or says
//! why not, in one line; nothing hangs, and no process, mount, descriptor or zombie is left.
//!
//! samples/session/inject.c lets every single system call of a launch fail, one in each run, or lets a signal come there. How
//! many runs that are is `XIP_FAULTS_STEP`: 1 is every call, also for what by default is tried at some of them only.

mod common {
    pub mod launch;
    pub mod leftovers;
    pub mod mounted;
}

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use common::launch::{
    Stage, XIP_RUN, compile, copy_program, finish, first_line, have, have_cc, interpreter, run,
    text,
};
use common::leftovers::{Traces, servers};
use common::mounted::{Mounted, can_mount};
use serde::Deserialize;
use xip_run::backing::ReadAt;
use xip_run::cramfs::Image;
use xip_run::extent::{Storage, extents};

const STATE: [&str; 2] = ["/bin/faults", "state"];
const SIGINT: i32 = 2;
const SIGBUS: i32 = 7;
const SIGKILL: i32 = 9;

/// An image with the sample, static and dynamic, a script, and files that are read through the view.
fn stage() -> Option<Stage> {
    if !can_mount() || !have_cc() || !have("ldd") {
        return None;
    }
    let stage = Stage::new();
    let program = compile("session/faults", &["-static"]).unwrap();
    stage.add_at(&program, Path::new("/bin/faults"));
    let dynamic = stage.path().join("faults-dynamic");
    copy_program(&compile("session/faults", &[]).unwrap(), &dynamic);
    stage.add_dynamic(&dynamic);
    let loader = interpreter(&dynamic).unwrap();
    stage.add_at(&loader, &loader);
    let in_bin = stage.in_root(Path::new("/bin/faults-dynamic"));
    fs::rename(stage.in_root(&dynamic), in_bin).unwrap();
    fs::remove_dir(stage.in_root(stage.path())).unwrap();
    let sample = compile("session/buserror", &["-static"]).unwrap();
    stage.add_at(&sample, Path::new("/bin/buserror"));
    let script = stage.in_root(Path::new("/bin/script"));
    fs::write(&script, "#! /bin/faults state\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["proc", "dev", "tmp", "zz"] {
        fs::create_dir_all(stage.in_root(Path::new(name))).unwrap();
    }
    // Half of it compresses: what is stored is longer than what is read ahead.
    let noise = std::iter::successors(Some(1_u32), |state| {
        Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223))
    });
    let mut bytes: Vec<u8> = noise
        .map(|state| (state >> 24) as u8)
        .take(1 << 20)
        .collect();
    for block in bytes.chunks_mut(4096) {
        block[2048..].fill(b'x');
    }
    for name in ["a-file", "compressed", "direct"] {
        fs::write(stage.in_root(Path::new("/zz")).join(name), &bytes).unwrap();
        // No other file has the same data. What is known of the first ones lies behind the first one's data.
        bytes[0] += 1;
    }
    stage.build(&["--xip=auto", "--xip=/zz/direct"]);
    Some(stage)
}

fn traces(stage: &Stage) -> Traces {
    Traces {
        image: stage.image(),
        ..Traces::default()
    }
}

/// `xip-run --image IMAGE OPTIONS PROGRAM ...`
fn launch(stage: &Stage, options: &[&str], program: &[&str]) -> Vec<String> {
    let image = stage.image();
    let head = [XIP_RUN, "--image", image.to_str().unwrap()];
    [&head[..], options, program]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
}

// ---- something at every call

/// A line of inject.c's.
#[derive(Deserialize, Debug)]
struct Run {
    n: u32,
    reached: bool,
    first: bool,
    code: i32,
    signal: i32,
    hang: bool,
    left: bool,
    call: String,
    who: String,
    out: String,
    err: String,
}

impl Run {
    /// It has worked, as if nothing had been.
    fn is_like(&self, good: &Self) -> bool {
        (self.code, self.out.as_str()) == (good.code, good.out.as_str())
    }

    /// xip-run has said one line.
    fn says_why(&self) -> bool {
        self.err.starts_with("xip-run: ") && self.err.lines().count() == 1
    }
}

fn inject(action: &str, first: u32, step: u32, command: &[String]) -> Vec<Run> {
    let mut inject = Command::new(compile("session/inject", &[]).unwrap());
    inject.env_remove("XIP_IMAGE").current_dir("/").arg(action);
    inject
        .args([first.to_string(), step.to_string()])
        .args(command);
    let output = inject.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines = text(&output.stdout);
    let runs = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|err| panic!("{err}: {line}")));
    runs.collect()
}

/// Lets `action` happen at every `step`th call, on all processors. Returns what was at each, and the run to which nothing
/// happened. Nothing hangs and nothing is left in any of them.
fn sweep(action: &str, step: u32, command: &[String]) -> (Vec<Run>, Run) {
    let step = std::env::var("XIP_FAULTS_STEP").map_or(step, |step| step.parse().unwrap());
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get() as u32);
    // The first call of all is the execve(2) of xip-run.
    let from = if action.ends_with('@') { 1 } else { 2 };
    let mut runs: Vec<Run> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers)
            .map(|worker| {
                let first = from + worker * step;
                scope.spawn(move || inject(action, first, workers * step, command))
            })
            .collect();
        let each = workers.into_iter().map(|worker| worker.join().unwrap());
        each.flatten().collect()
    });
    runs.sort_by_key(|run| run.n);
    for run in &runs {
        assert!(!run.hang && !run.left, "{action}: {run:?}");
    }
    // The views' mounts are in namespaces that are gone; on the host there never is one.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("xip-view:"), "{mounts}");
    let reached = runs.iter().position(|run| !run.reached).unwrap();
    let good = runs.remove(reached);
    runs.retain(|run| run.reached);
    assert_eq!((good.code, good.signal, &*good.err), (0, 0, ""), "{good:?}");
    println!("{action}: {} calls of {command:?}", runs.len());
    assert!(runs.len() > 10, "{runs:?}");
    (runs, good)
}

/// The programs' own calls are their own business: those of the C library before xip-run's first word of `xip-run`, and of a
/// program after the last word that the stub says in its name.
fn is_own(run: &Run, runs: &[Run]) -> bool {
    let of_stub = format!("xip-run: {}: ", run.who);
    match run.who.as_str() {
        "xip-run" => runs
            .iter()
            .take_while(|other| !other.says_why())
            .any(|other| other.n == run.n),
        "xip-view" => false,
        who if who.starts_with("memfd:") => false,
        _ => !runs
            .iter()
            .any(|other| other.n >= run.n && other.err.starts_with(&of_stub)),
    }
}

#[track_caller]
fn assert_works_or_says_why(runs: &[Run], good: &Run) {
    let mut said = 0;
    for run in runs.iter().filter(|run| !is_own(run, runs)) {
        let goes_on = run.code == 0 && run.says_why() && run.err.contains("; going on: ");
        let fails = (run.code >= 123 || run.signal != 0) && run.out.is_empty() && run.says_why();
        assert!(run.is_like(good) || goes_on || fails, "{run:?}\n{good:?}");
        said += usize::from(fails);
    }
    assert!(said > 10, "{said} of {} failed", runs.len());
}

/// In how many of the runs in which `call` failed, the launch did.
fn failed(runs: &[Run], call: &str) -> usize {
    let failed = runs.iter().filter(|run| run.call == call && run.code != 0);
    failed.count()
}

#[test]
fn every_call_of_one_programs_launch_may_fail() {
    let Some(stage) = stage() else { return };
    let command = launch(&stage, &["--no-root"], &STATE);
    let (runs, good) = sweep("errno", 1, &command);
    assert_works_or_says_why(&runs, &good);
    assert!(failed(&runs, "mmap") > 5, "{runs:?}");
    assert_eq!(failed(&runs, "memfd_create"), 1, "{runs:?}");
    traces(&stage).assert_gone();
}

#[test]
fn every_call_of_a_sessions_launch_may_fail() {
    let Some(stage) = stage() else { return };
    let command = launch(&stage, &[], &STATE);
    let (runs, good) = sweep("errno", 1, &command);
    assert_works_or_says_why(&runs, &good);
    assert!(failed(&runs, "mmap") > 5, "{runs:?}");
    assert_eq!(failed(&runs, "memfd_create"), 2, "{runs:?}");
    // A want of memory or descriptors is no lack of a feature: nothing is run in the host's root for that.
    for run in &runs {
        let is_shortage = ["(os error 12)", "(os error 23)", "(os error 24)"]
            .iter()
            .any(|error| run.err.contains(error));
        let is_in_host = run.err.contains("with the host's root directory");
        assert!(!is_shortage || !is_in_host, "{run:?}");
    }
    // A server that keeps its rights is none.
    let gives_up = |run: &&Run| run.who == "xip-view" && ["capset", "prctl"].contains(&&*run.call);
    for run in runs.iter().filter(gives_up) {
        assert_eq!(run.code, 125, "{run:?}");
    }
    // And if it goes on and on, as with a full table of files.
    let (runs, good) = sweep("every", 7, &command);
    for run in runs.iter().filter(|run| !is_own(run, &runs)) {
        let says_why = run.err.lines().all(|line| line.starts_with("xip-run: "));
        assert!(
            run.is_like(&good) || says_why && !run.err.is_empty(),
            "{run:?}"
        );
    }
    traces(&stage).assert_gone();
}

#[test]
fn every_call_of_a_start_in_a_session_may_fail() {
    let Some(stage) = stage() else { return };
    for program in [
        &STATE[..],
        &["/bin/faults-dynamic", "state"],
        &["/bin/script"],
    ] {
        let program = [&["/bin/faults", "exec"], program].concat();
        let command = launch(&stage, &[], &program);
        let (runs, good) = sweep("errno@", 1, &command);
        let mut failed = 0;
        for run in &runs {
            assert_eq!((run.code, run.signal), (0, 0), "{run:?}");
            // What is left is told by the one that called execve(2), a vfork child that shares its parent's memory.
            assert!(run.out.ends_with("mappings left 0\n"), "{run:?}");
            let is_errno = run.out.starts_with("failed, descriptors left 0\n")
                && run.err.starts_with("execve: ");
            let is_loaders = run.err.contains("error while loading shared libraries");
            let is_not_begun = run.call == "vfork";
            assert!(
                run.is_like(&good)
                    || is_errno
                    || run.says_why()
                    || is_loaders
                    || is_not_begun
                    || is_own(run, &runs),
                "{run:?}"
            );
            failed += usize::from(is_errno);
        }
        assert!(failed > 6, "{failed}: {runs:?}");
    }
    traces(&stage).assert_gone();
}

#[test]
fn a_launch_that_is_killed_at_any_call_leaves_nothing() {
    let Some(stage) = stage() else { return };
    let (runs, good) = sweep("kill", 1, &launch(&stage, &[], &STATE));
    for run in &runs {
        // The launch itself; or its server, or what starts that.
        let is_killed = run.first && run.signal == SIGKILL && run.err.is_empty();
        assert!(
            is_killed || !run.first && (run.is_like(&good) || run.says_why()),
            "{run:?}"
        );
    }
    assert!(runs.iter().any(|run| run.who == "xip-view"), "{runs:?}");
    let (runs, _) = sweep("kill", 3, &launch(&stage, &["--no-root"], &STATE));
    assert!(runs.iter().all(|run| run.signal == SIGKILL), "{runs:?}");
    traces(&stage).assert_gone();
}

#[test]
fn an_interrupt_at_any_call_ends_a_launch() {
    let Some(stage) = stage() else { return };
    let (runs, good) = sweep("int", 3, &launch(&stage, &[], &STATE));
    for run in &runs {
        // The last calls may be those of a program that has ended.
        let is_late = run.call == "exit_group" || !run.first;
        let is_ended = (run.signal, &*run.err) == (SIGINT, "");
        assert!(is_ended || is_late && run.is_like(&good), "{run:?}");
    }
    traces(&stage).assert_gone();
}

#[test]
fn a_launch_may_be_stopped_at_any_call_and_storms_of_signals_are_nothing_to_it() {
    let Some(stage) = stage() else { return };
    for options in [&[][..], &["--no-root"]] {
        let command = launch(&stage, options, &STATE);
        let (runs, good) = sweep("stop", 5, &command);
        assert!(runs.iter().all(|run| run.is_like(&good)), "{runs:?}");
        // SIGCHLD, SIGWINCH, SIGALRM at every call, SIGSTOP and SIGCONT at some.
        let [storm] = <[Run; 1]>::try_from(inject("storm", 2, 0, &command)).unwrap();
        // It ignores SIGALRM, as it was told.
        let ignores = good.out.replace("signals\n", "signals 14\n");
        assert_eq!(
            (storm.code, &*storm.out, &*storm.err),
            (0, &*ignores, ""),
            "{storm:?}"
        );
        assert!(!storm.hang && !storm.left, "{storm:?}");
    }
    // In a session, while one program starts another.
    let exec = ["/bin/faults", "exec", "/bin/faults-dynamic", "state"];
    let [storm] =
        <[Run; 1]>::try_from(inject("storm@", 1, 0, &launch(&stage, &[], &exec))).unwrap();
    assert!(
        storm.out.ends_with("status 0 0\nmappings left 0\n"),
        "{storm:?}"
    );
    traces(&stage).assert_gone();
}

#[test]
fn a_small_table_of_descriptors_is_named() {
    let Some(stage) = stage() else { return };
    for (options, enough) in [(&[][..], 24), (&["--no-root"], 10)] {
        let command = launch(&stage, options, &STATE).join(" ");
        for limit in 3..=30 {
            let script = format!("ulimit -n {limit}; exec {command}");
            let shell = ["sh", "-c", &script].map(str::to_owned);
            let [run] = <[Run; 1]>::try_from(inject("none", 1, 0, &shell)).unwrap();
            assert!(!run.hang && !run.left, "{run:?}");
            let works = run.code == 0 && run.out.contains("children 0\n") && run.err.is_empty();
            let is_named =
                run.says_why() && (run.err.contains("(os error 24)") || run.err.contains("EMFILE"));
            let is_loaders = run.err.contains("error while loading shared libraries");
            assert!(works || is_named || is_loaders, "{limit}: {run:?}");
            assert!(works || limit < enough, "{limit}: {run:?}");
        }
    }
    traces(&stage).assert_gone();
}

// ---- what a session rests on goes away

/// Starts a program that says `ready`, and does `meanwhile` before it goes on.
fn meanwhile(stage: &Stage, program: &[&str], then: impl FnOnce(&Child)) -> Output {
    let arguments = launch(stage, &[], program);
    let mut child = Command::new(&arguments[0])
        .args(&arguments[1..])
        .env_remove("XIP_IMAGE")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(first_line(&mut child), "ready\n");
    then(&child);
    drop(child.stdin.take());
    finish(child)
}

/// `kill -9` of the server of the session that has the image.
fn kill_server(image: &Path) {
    let [server] = <[PathBuf; 1]>::try_from(servers(image)).unwrap();
    let pid = server.file_name().unwrap().to_str().unwrap().parse();
    let pid = rustix::process::Pid::from_raw(pid.unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    while server
        .join("fd")
        .read_dir()
        .is_ok_and(|fds| fds.count() > 0)
    {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn programs_go_on_without_the_server_and_are_told_what_needs_it() {
    let Some(stage) = stage() else { return };
    let kill = |_: &Child| kill_server(&stage.image());
    // In place it goes on, to its end, without a word; what it asks the view for is an errno.
    let output = meanwhile(&stage, &["/bin/faults", "read", "/zz/compressed"], kill);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let not_connected = "/zz/compressed: Transport endpoint is not connected\n";
    assert_eq!(text(&output.stderr), not_connected);
    // Pages that are the image's are there all the same.
    let output = meanwhile(&stage, &["/bin/buserror", "default", "/zz/direct"], kill);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // Pages that the server would have to give are lost, which is said.
    let output = meanwhile(
        &stage,
        &["/bin/buserror", "default", "/zz/compressed"],
        kill,
    );
    assert_eq!(output.status.signal(), Some(SIGBUS), "{output:?}");
    let said = "xip-run: buserror: the server of the root directory has ended, and with it a page that was not read yet; begin \
        another session\n";
    assert_eq!(text(&output.stderr), said);
    traces(&stage).assert_gone();
}

#[test]
fn a_start_without_the_server_is_an_errno() {
    let Some(stage) = stage() else { return };
    // The marker comes from within: the server is killed when the first call after it is its own.
    let command = launch(
        &stage,
        &[],
        &["/bin/faults", "exec", "/bin/faults-dynamic", "state"],
    );
    let (runs, good) = sweep("kill@", 4, &command);
    let mut refused = 0;
    for run in runs.iter().filter(|run| run.who == "xip-view") {
        assert!(run.out.ends_with("mappings left 0\n"), "{run:?}");
        let is_errno = run.out.starts_with("failed, descriptors left 0\n");
        let is_named = [
            "Transport endpoint",
            "connection abort",
            "ENOTCONN",
            "ECONNABORTED",
            "Error 107",
            "Error 103",
            "server of the root",
        ];
        let is_named = is_named.iter().any(|name| run.err.contains(name));
        assert!(run.is_like(&good) || is_named, "{run:?}");
        refused += usize::from(is_errno);
    }
    assert!(refused > 0, "{runs:?}");
    traces(&stage).assert_gone();
}

#[test]
fn a_truncated_image_is_an_error_for_whoever_reads_it() {
    let Some(stage) = stage() else { return };
    let truncate = |_: &Child| {
        let image = File::options().write(true).open(stage.image()).unwrap();
        image.set_len(4096).unwrap();
    };
    let output = meanwhile(&stage, &["/bin/faults", "read", "/bin/script"], truncate);
    // The program's own pages may be gone before it can say it.
    let is_told = text(&output.stderr) == "/bin/script: Input/output error\n";
    let is_lost = output.status.signal() == Some(SIGBUS)
        && text(&output.stderr).contains(" was truncated beneath it; ");
    assert!(is_told || is_lost, "{output:?}");
    traces(&stage).assert_gone();
}

/// A file that can be read until it fails.
struct Failing {
    file: File,
    fails: Arc<AtomicBool>,
}

impl ReadAt for Failing {
    fn len_bytes(&self) -> u64 {
        self.file.metadata().unwrap().len()
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> std::io::Result<()> {
        match self.fails.load(Relaxed) {
            false => self.file.read_exact_at(buf, at),
            true => Err(std::io::Error::from_raw_os_error(libc::EIO)),
        }
    }
}

/// Reads what an image has of a file as it is, from another file with the same bytes: that the program itself can run on.
fn read_stored(image: &Path, path: &str, other: &File) {
    let image = Image::open(fs::read(image).unwrap()).unwrap();
    let inode = image.lookup(path.as_bytes()).unwrap();
    for extent in extents(&image, &inode).unwrap() {
        if let Storage::Stored { at } = extent.storage {
            let mut bytes = vec![0; extent.stored_bytes as usize];
            other.read_exact_at(&mut bytes, at.0).unwrap();
        }
    }
}

#[test]
fn read_errors_of_the_image_are_errors_of_who_reads_it() {
    let Some(inner) = stage() else { return };
    // The image is a file of another image, of which the server is the test.
    let outer = Stage::new();
    outer.add_at(&inner.image(), Path::new("/image.cramfs"));
    outer.build(&["--xip=/image.cramfs"]);
    let ways = [
        (["/bin/faults", "read", "/zz/compressed"].as_slice(), None),
        (
            &["/bin/buserror", "default", "/zz/compressed"],
            Some(SIGBUS),
        ),
        (&["/bin/buserror", "default", "/zz/direct"], Some(SIGBUS)),
    ];
    for (program, signal) in ways {
        let fails = Arc::new(AtomicBool::new(false));
        let failing = Failing {
            file: File::open(outer.image()).unwrap(),
            fails: fails.clone(),
        };
        let mounted = Mounted::new(Image::open(failing).unwrap());
        let image = mounted.path("/image.cramfs");
        let mut command = Command::new(XIP_RUN);
        command.env_remove("XIP_IMAGE").current_dir("/");
        command.arg("--image").arg(&image).args(program);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        assert_eq!(first_line(&mut child), "ready\n");
        read_stored(&inner.image(), program[0], &File::open(&image).unwrap());
        fails.store(true, Relaxed);
        drop(child.stdin.take());
        let output = finish(child);
        assert_eq!(output.status.signal(), signal, "{output:?}");
        if signal.is_none() {
            let said = "/zz/compressed: Input/output error\n";
            assert_eq!(text(&output.stderr), said, "{output:?}");
        }
        let traces = Traces {
            image,
            ..Traces::default()
        };
        traces.assert_gone();
    }
}

/// Runs a script of the host in a mount namespace of its own; `$dir` has xip-run and the image.
fn in_namespace(stage: &Stage, script: &str) -> Output {
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-ec", script])
        .env("dir", stage.path());
    run(command.env_remove("XIP_IMAGE").current_dir("/"), b"")
}

#[test]
fn neither_a_full_tmp_nor_a_missing_proc_keeps_programs_from_starting() {
    let Some(stage) = stage() else { return };
    let full = "mount --bind $dir /mnt; mount -t tmpfs -o size=4k none /tmp; cat /dev/zero > /tmp/full 2> /dev/null || true
        export TMPDIR=/tmp; xip=/mnt/xip-run image=/mnt/image.cramfs;";
    let no_proc = "xip=$dir/xip-run image=$dir/image.cramfs; umount -l /proc;";
    copy_program(Path::new(XIP_RUN), &stage.path().join("xip-run"));
    for before in [full, no_proc] {
        for options in ["", "--no-root"] {
            let script = format!("{before} exec $xip --image $image {options} /bin/faults state");
            let output = in_namespace(&stage, &script);
            assert_eq!(output.status.code(), Some(0), "{script}: {output:?}");
            assert!(
                text(&output.stdout).ends_with("\nchildren 0\n"),
                "{output:?}"
            );
        }
        let exec =
            format!("{before} exec $xip --image $image /bin/faults exec /bin/faults-dynamic state");
        let output = in_namespace(&stage, &exec);
        let said = text(&output.stdout);
        assert!(
            said.ends_with("\nstatus 0 0\nmappings left 0\n"),
            "{exec}: {output:?}"
        );
    }
    traces(&stage).assert_gone();
}
