//! What the tests that start programs share: the C compiler, images with programs in them, runs under a time limit.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test crate uses its own part"
)]

use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// The launcher.
pub const XIP_RUN: &str = env!("CARGO_BIN_EXE_xip-run");
/// No program of a test runs longer.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// A file of samples/.
pub fn sample_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("samples")
        .join(name)
}

/// Says that a test is skipped, and why; where `CI` is set, nothing may be.
pub fn skip(why: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "{why}, and CI may skip nothing"
    );
    println!("skipped: {why}");
}

/// Is there a program of that name? If not, the test is to be skipped, which is said here.
pub fn have(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    if !found {
        skip(&format!("{tool} is not installed"));
    }
    found
}

/// Is there a C compiler for this machine, and do the samples know the machine?
pub fn have_cc() -> bool {
    if !cfg!(target_arch = "x86_64") {
        skip("samples/bare.h and samples/probe.c know x86_64 only");
        return false;
    }
    have("cc")
}

/// Flags of the ways to link that have names.
pub fn layout_flags(name: &str) -> Option<&'static str> {
    Some(match name {
        "static" => "-static",
        "static-pie" => "-static-pie -fPIE",
        "dynamic" => "-pie -fPIE",
        "dynamic-no-pie" => "-no-pie -fno-pie",
        "shared" | "musl-shared" => "-shared -fPIC",
        // By musl-gcc.
        "musl" => "-pie -fPIE",
        "musl-static" => "-static",
        "bare" => {
            "-nostdlib -static -no-pie -fno-pie -ffreestanding -fno-stack-protector -Wl,--build-id=none"
        }
        "bare-pie" => {
            "-nostdlib -static-pie -fPIE -ffreestanding -fno-stack-protector -Wl,--build-id=none"
        }
        "bare-dynamic" => {
            "-nostdlib -pie -fPIE -ffreestanding -fno-stack-protector -Wl,--build-id=none \
             -Wl,--dynamic-linker=/lib64/ld-linux-x86-64.so.2 -Wl,--no-as-needed -lc"
        }
        _ => return None,
    })
}

/// The version of the compiler, and everything in samples/ that may be included or linked with.
static TOOLCHAIN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut all = Command::new("cc").arg("--version").output().unwrap().stdout;
    for dir in ["", "session"] {
        let mut paths: Vec<_> = fs::read_dir(sample_path(dir))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_none_or(|extension| extension != "c"))
            .collect();
        paths.sort();
        for path in paths {
            all.extend(fs::read(path).unwrap_or_default());
        }
    }
    all
});

/// Compiles `samples/NAME.c` and returns the program, which later runs find again if nothing has changed.
pub fn compile(name: &str, flags: &[&str]) -> Result<PathBuf, String> {
    compile_with("cc", name, flags)
}

/// The same with another compiler driver, such as `musl-gcc`.
pub fn compile_with(driver: &str, name: &str, flags: &[&str]) -> Result<PathBuf, String> {
    let source = sample_path(&format!("{name}.c"));
    let mut hasher = DefaultHasher::new();
    (&*TOOLCHAIN, fs::read(&source).unwrap(), driver, flags).hash(&mut hasher);
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("samples");
    let flat = name.replace('/', "-");
    let program = cache.join(format!("{flat}-{:016x}", hasher.finish()));
    if program.is_file() {
        return Ok(program);
    }
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    let work = TempDir::new_in(&cache).unwrap();
    let fresh = work.path().join("program");
    let output = Command::new(driver)
        .current_dir(sample_path(""))
        .args(["-O2", "-Wall", "-Wextra", "-o"])
        .arg(&fresh)
        .arg(&source)
        .args(flags)
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(format!("{driver} {flags:?}: {}", text(&output.stderr)));
    }
    fs::rename(&fresh, &program).unwrap();
    Ok(program)
}

/// What `PT_INTERP` of a program names.
pub fn interpreter(program: &Path) -> Option<PathBuf> {
    let bytes = fs::read(program).unwrap();
    let elf = goblin::elf::Elf::parse(&bytes).unwrap();
    // A string of C, with room behind it perhaps.
    let path = elf.interpreter?.split('\0').next()?;
    Some(PathBuf::from(path))
}

/// A directory of programs, and an image that has the same programs at the same paths, so that one of them can be started
/// from either place and sees the same.
pub struct Stage {
    dir: TempDir,
}

impl Stage {
    /// An empty one.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("xip-run-test-")
            .tempdir()
            .unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        Self { dir }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Its image.
    pub fn image(&self) -> PathBuf {
        self.path().join("image.cramfs")
    }

    /// Where `path` is in the tree that the image is made of.
    pub fn in_root(&self, path: &Path) -> PathBuf {
        self.path()
            .join("root")
            .join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Puts a file of the host into the image, at the path `to`.
    pub fn add_at(&self, from: &Path, to: &Path) {
        let to = self.in_root(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, &to).unwrap();
    }

    /// Puts a program here and into the image, by the same path, which is returned, and its interpreter into the image.
    pub fn add_program(&self, program: &Path, name: impl AsRef<Path>) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        copy_program(program, &path);
        self.add_at(program, &path);
        if let Some(interpreter) = interpreter(program) {
            self.add_at(&interpreter, &interpreter);
        }
        path
    }

    /// Puts a dynamic program of the host into the image, where it is here, with its interpreter and all its libraries.
    pub fn add_dynamic(&self, program: &Path) {
        self.add_at(program, program);
        let output = Command::new("ldd").arg(program).output().unwrap();
        let listed = text(&output.stdout);
        let libraries: Vec<&Path> = listed
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
            .map(Path::new)
            .collect();
        assert!(!libraries.is_empty(), "ldd {program:?}: {output:?}");
        for library in libraries {
            self.add_at(library, library);
        }
    }

    /// Makes the image of what was added.
    pub fn build<S: AsRef<OsStr>>(&self, options: &[S]) {
        let output = Command::new(env!("CARGO_BIN_EXE_xip-image"))
            .arg("build")
            .args(options)
            .arg(self.path().join("root"))
            .arg(self.image())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "xip-image build: {}",
            text(&output.stderr)
        );
    }

    /// `xip-run --no-root --image IMAGE`; options, the program and its arguments are to be added.
    pub fn xip_run(&self) -> Command {
        let mut command = Command::new(XIP_RUN);
        command.env_remove("XIP_IMAGE");
        command.arg("--no-root").arg("--image").arg(self.image());
        command
    }

    /// What `xip-run --explain --json` says of a program.
    pub fn explain(&self, program: &Path) -> serde_json::Value {
        let output = self
            .xip_run()
            .args(["--explain", "--json"])
            .arg(program)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "--explain: {}",
            text(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// Copies a program to where it will be executed. The copy is made by another process: a descriptor open for writing
/// that a child of some other test's thread inherits would make execve(2) say ETXTBSY.
pub fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// Bytes as text, whatever they are.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command to its end with `stdin` as its standard input, and kills it if it takes too long.
pub fn run(command: &mut Command, stdin: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut to, input) = (child.stdin.take().unwrap(), stdin.to_vec());
    // It may end without having read all.
    let writer = thread::spawn(move || drop(to.write_all(&input)));
    let output = finish(child);
    writer.join().unwrap();
    output
}

/// Waits for a process, and kills it if it takes too long.
pub fn finish(child: Child) -> Output {
    let pid = rustix::process::Pid::from_child(&child);
    let (done, ended) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        let late = ended.recv_timeout(TIME_LIMIT) == Err(RecvTimeoutError::Timeout);
        if late {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        late
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    assert!(
        !watchdog.join().unwrap(),
        "killed after {TIME_LIMIT:?}: {}",
        text(&output.stderr)
    );
    output
}

/// Calls `work` with every item, on all processors; returns what it returns, in the items' order.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = Mutex::new(items.iter().enumerate());
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let taken = next.lock().unwrap().next();
                    let Some((number, item)) = taken else { break };
                    let result = work(item);
                    results.lock().unwrap().push((number, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|&(number, _)| number);
    results.into_iter().map(|(_, result)| result).collect()
}

/// A stage with Debian's busybox-static as /bin/busybox, as it is; `None` if there is none.
pub fn busybox_stage() -> Option<Stage> {
    if !have("busybox") {
        return None;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let busybox = std::env::split_paths(&path)
        .map(|dir| dir.join("busybox"))
        .find(|path| path.is_file())?;
    if interpreter(&busybox).is_some() {
        skip("busybox is not static");
        return None;
    }
    let stage = Stage::new();
    stage.add_at(&busybox, Path::new("/bin/busybox"));
    // To be executed natively.
    copy_program(&busybox, &stage.path().join("busybox"));
    stage.build::<&str>(&[]);
    Some(stage)
}

/// A shell that has said a line, and waits for its standard input to be closed.
pub struct Waiting {
    pub child: Child,
    /// The line.
    pub line: String,
}

/// Adds `sh -c 'SCRIPT; read x'` to the command, which is busybox, and starts it.
pub fn waiting_shell(command: &mut Command, script: &str) -> Waiting {
    let script = format!("{script}; read x");
    command.args(["sh", "-c", &script]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let line = first_line(&mut child);
    Waiting { child, line }
}

/// The first line that a child prints, its newline included.
pub fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    line
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
