//! The tree in which programs execute programs: scripts, ELF files, files of every sort and permission.
#![allow(dead_code, unreachable_pub)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::exec_elves::elves;
use super::launch::{Stage, compile, compile_with, copy_program, layout_flags, sample_path};

/// A file of the tree, and what it answers to execve(2) if that is the same everywhere.
pub struct Entry {
    pub name: String,
    pub contents: Vec<u8>,
    pub mode: u32,
    /// What the answer begins with.
    pub known: String,
}

/// An executable one.
pub fn entry(name: &str, contents: impl AsRef<[u8]>, known: &str) -> Entry {
    Entry {
        name: name.to_owned(),
        contents: contents.as_ref().to_vec(),
        mode: 0o755,
        known: known.to_owned(),
    }
}

impl Entry {
    /// With other permissions.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }
}

/// `BINPRM_BUF_SIZE` of linux/binfmts.h: what the kernel reads of a script.
const BUFFER: usize = 256;

/// The path of a program, of that length.
fn show_of(len: usize) -> String {
    let name = "/bin/show";
    let mut path = "/.".repeat(len / 2);
    path.truncate(len - name.len());
    path + name
}

/// The files of /scripts. The rule is that of fs/binfmt_script.c: blanks are skipped, the name ends at a blank, the rest
/// of the line without blanks at its ends is one argument.
pub fn scripts() -> Vec<Entry> {
    let argv = |name: &str, before: &[&str]| {
        let all: Vec<String> = [
            before,
            &[&format!("/scripts/{name}"), "one", "two words", ""],
        ]
        .concat()
        .iter()
        .map(|arg| format!("\"{arg}\""))
        .collect();
        format!(
            "argv=[{}] env=[\"A=1\",\"B=2\"] execfn=\"/scripts/{name}\"",
            all.join(",")
        )
    };
    let mut all = Vec::new();
    // The name, the first line, the interpreter's argv[0] and the argument.
    for (name, line, before) in [
        ("plain", "#!/bin/show\n", &["/bin/show"][..]),
        ("space", "#! /bin/show\n", &["/bin/show"]),
        ("tab", "#!\t/bin/show\n", &["/bin/show"]),
        ("blanks", "#! \t  /bin/show \t \n", &["/bin/show"]),
        ("no-newline", "#!/bin/show", &["/bin/show"]),
        // An argument of no bytes: that is how it is.
        ("no-newline-blank", "#!/bin/show ", &["/bin/show", ""]),
        (
            "no-newline-argument",
            "#!/bin/show arg",
            &["/bin/show", "arg"],
        ),
        ("argument", "#!/bin/show arg\n", &["/bin/show", "arg"]),
        ("argument-tab", "#!/bin/show\targ\n", &["/bin/show", "arg"]),
        (
            "argument-inner",
            "#!/bin/show a b  c\td\n",
            &["/bin/show", "a b  c\\x09d"],
        ),
        (
            "argument-blanks",
            "#!/bin/show  \t arg \t \n",
            &["/bin/show", "arg"],
        ),
        (
            "argument-dashes",
            "#!/bin/show -a --b\n",
            &["/bin/show", "-a --b"],
        ),
        (
            "argument-cr",
            "#!/bin/show arg\r\n",
            &["/bin/show", "arg\\x0d"],
        ),
        ("argument-nul", "#!/bin/show a\0b\n", &["/bin/show", "a"]),
        ("nul", "#!/bin/show\0/bin/cat\n", &["/bin/show"]),
        (
            "two-lines",
            "#!/bin/show x\n#!/missing\n",
            &["/bin/show", "x"],
        ),
        ("interpreter-relative", "#!bin/show\n", &["bin/show"]),
        ("interpreter-link", "#!/links/1\n", &["/links/1"]),
        ("nested-1", "#!/bin/show 1\n", &["/bin/show", "1"]),
        (
            "nested-2",
            "#!/scripts/nested-1 2\n",
            &["/bin/show", "1", "/scripts/nested-1", "2"],
        ),
    ] {
        all.push(entry(name, line, &argv(name, before)));
    }
    for depth in 3..=9 {
        let line = format!("#!/scripts/nested-{} {depth}\n", depth - 1);
        // exec_binprm(): five rewrites.
        let known = if depth > 5 {
            "ELOOP"
        } else {
            "argv=[\"/bin/show\",\"1\",\"/scripts/nested-1\""
        };
        all.push(entry(&format!("nested-{depth}"), line, known));
    }
    for (name, line, known) in [
        ("empty-name", "#!\n", "ENOEXEC"),
        ("empty-name-blanks", "#!  \t \n", "ENOEXEC"),
        // The name "" is the current directory's.
        ("empty-name-end", "#!", "EACCES"),
        ("empty-name-blanks-end", "#!  ", "EACCES"),
        ("hash", "#", "ENOEXEC"),
        ("hash-space", "# !/bin/show\n", "ENOEXEC"),
        ("blank-first", " #!/bin/show\n", "ENOEXEC"),
        ("newline-first", "\n#!/bin/show\n", "ENOEXEC"),
        ("byte-order-mark", "\u{feff}#!/bin/show\n", "ENOEXEC"),
        ("shell-text", "echo shell text: $*\n", "ENOEXEC"),
        ("cr", "#!/bin/show\r\n", "ENOENT"),
        ("quoted", "#!\"/bin/show\"\n", "ENOENT"),
        ("vertical-tab", "#!/bin/show\x0barg\n", "ENOENT"),
        ("interpreter-missing", "#!/missing\n", "ENOENT"),
        ("interpreter-relative-missing", "#!show\n", "ENOENT"),
        ("interpreter-directory", "#!/bin\n", "EACCES"),
        ("interpreter-dot", "#!.\n", "EACCES"),
        (
            "interpreter-not-executable",
            "#!/files/mode-0644\n",
            "EACCES",
        ),
        ("interpreter-fifo", "#!/files/fifo\n", "EACCES"),
        ("interpreter-device", "#!/dev/null\n", "EACCES"),
        ("interpreter-below-a-file", "#!/bin/show/x\n", "ENOTDIR"),
        ("interpreter-with-slash", "#!/bin/show/\n", "ENOTDIR"),
        ("interpreter-link-loop", "#!/links/loop\n", "ELOOP"),
        (
            "interpreter-itself",
            "#!/scripts/interpreter-itself\n",
            "ELOOP",
        ),
        ("interpreter-text", "#!/elf/text\n", "ENOEXEC"),
        ("interpreter-empty", "#!/elf/empty\n", "ENOEXEC"),
        (
            "interpreter-other-machine",
            "#!/elf/other-machine\n",
            "ENOEXEC",
        ),
        (
            "interpreter-missing-loader",
            "#!/elf/interp-missing\n",
            "ENOENT",
        ),
        (
            "interpreter-no-load",
            "#!/elf/no-load\n",
            "; killed by SIGSEGV",
        ),
        ("interpreter-noexec", "#!/tmp/noexec/show\n", "EACCES"),
        ("interpreter-mode-0700", "#!/files/mode-0700\n", ""),
        (
            "interpreter-mode-0711",
            "#!/files/mode-0711\n",
            "argv=[\"/files/mode-0711\"",
        ),
        (
            "interpreter-mode-4755",
            "#!/files/mode-4755\n",
            "argv=[\"/files/mode-4755\"",
        ),
        ("interpreter-private", "#!/private/show\n", ""),
        ("interpreter-self-exe", "#!/proc/self/exe\n", ""),
        (
            "interpreter-static",
            "#!/shows/static x\n",
            "argv=[\"/shows/static\",\"x\"",
        ),
        (
            "interpreter-static-pie",
            "#!/shows/static-pie x\n",
            "argv=[\"/shows/static-pie\",\"x\"",
        ),
        (
            "interpreter-dynamic",
            "#!/shows/dynamic x\n",
            "argv=[\"/shows/dynamic\",\"x\"",
        ),
        (
            "interpreter-musl",
            "#!/shows/musl x\n",
            "argv=[\"/shows/musl\",\"x\"",
        ),
        (
            "env",
            "#!/usr/bin/env show\n",
            "argv=[\"show\",\"/scripts/env\",\"one\"",
        ),
        ("env-two-words", "#!/usr/bin/env show x\n", ""),
        (
            "env-split",
            "#!/usr/bin/env -S SPLIT=1 show a 'b c'\n",
            "argv=[\"show\",\"a\",\"b c\",\"/scripts/env-split\"",
        ),
        (
            "shell",
            "#!/bin/sh\necho \"$0 $# $*\"\n",
            "/scripts/shell 3 one two words",
        ),
        (
            "shell-option",
            "#!/bin/sh -e\nfalse\necho not here\n",
            "; exit 1",
        ),
        (
            "busybox",
            "#!/bin/busybox sh\necho \"$0 $#\"; exit 4\n",
            "/scripts/busybox 3; exit 4",
        ),
        (
            "to-the-long-path",
            "#!/bin/show-by-a-path-that-is-quite-long\n",
            "",
        ),
        (
            "generations",
            "#!/bin/sh\n: ${LEFT:=3}; export LEFT\n\
             [ $LEFT = 0 ] || LEFT=$((LEFT - 1)) exec $0 \"$@\"\n\
             for fd in 0 1 2 3 4 5 6 7 8 9 11 12 13 14 15 16 17 18 19 20; do [ -e /proc/self/fd/$fd ] && echo $fd; done; exit 0\n",
            "0 / 1 / 2",
        ),
    ] {
        all.push(entry(name, line, known));
    }
    let long = format!("#!/bin/show\n{}", "# much more\n".repeat(100));
    all.push(entry("long-script", long, "argv=[\"/bin/show\""));
    all.push(entry("mode-0644", "#!/bin/show\n", "EACCES").mode(0o644));
    all.push(entry("mode-0711", "#!/bin/show\n", "argv=[\"/bin/show\"").mode(0o711));
    all.push(entry("mode-4755", "#!/bin/show\n", "argv=[\"/bin/show\"").mode(0o4755));
    all.extend(long_lines());
    all
}

/// Lines around the 256 bytes that are looked at: what of a name is cut off makes it another name, so that is ENOEXEC;
/// what of an argument is cut off is missing.
fn long_lines() -> Vec<Entry> {
    let mut all = Vec::new();
    for len in BUFFER - 3..=BUFFER + 3 {
        let line = format!("#!{}", show_of(len - 2));
        // Whatever follows: 255 bytes are looked at, the last is a NUL.
        let fits = if len < BUFFER {
            "argv=[\"/."
        } else {
            "ENOEXEC"
        };
        // The name alone ends with the file, with the line, with a blank; the line has that many bytes before that.
        all.push(entry(&format!("name-of-{len}"), &line, fits));
        all.push(entry(
            &format!("name-of-{len}-newline"),
            line.clone() + "\n",
            fits,
        ));
        all.push(entry(
            &format!("name-of-{len}-space"),
            line.clone() + " \n",
            fits,
        ));
        all.push(entry(
            &format!("name-of-{len}-argument"),
            line + " x\n",
            fits,
        ));
        let line = format!("#!/bin/show {}", "a".repeat(len - 13)) + "b";
        all.push(entry(
            &format!("argument-to-{len}"),
            line.clone() + "\n",
            "argv=[\"/bin/show\",\"aaa",
        ));
        all.push(entry(
            &format!("argument-to-{len}-end"),
            line + " ",
            "argv=[\"/bin/show\",\"aaa",
        ));
        // Blanks alone up to there, then the name.
        let line = format!("#!{}/bin/show\n", " ".repeat(len - 2));
        all.push(entry(&format!("blanks-to-{len}"), line, "ENOEXEC"));
        // The name, blanks up to there, then an argument.
        let line = format!("#!/bin/show{}x\n", " ".repeat(len - 11));
        all.push(entry(
            &format!("argument-at-{len}"),
            line,
            "argv=[\"/bin/show\"",
        ));
    }
    let known = "argv=[\"/bin/show\",\"aaa";
    all.push(entry(
        "argument-of-5000",
        format!("#!/bin/show {}\n", "a".repeat(5000)),
        known,
    ));
    all.push(entry(
        "name-of-5000",
        format!("#!/{}\n", "n".repeat(5000)),
        "ENOEXEC",
    ));
    all
}

/// How a driver and the programs that it executes are linked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Linked {
    Static,
    StaticPie,
    Dynamic,
    DynamicNoPie,
    Musl,
}

impl Linked {
    pub const ALL: [Self; 5] = [
        Self::Static,
        Self::StaticPie,
        Self::Dynamic,
        Self::DynamicNoPie,
        Self::Musl,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::StaticPie => "static-pie",
            Self::Dynamic => "dynamic",
            Self::DynamicNoPie => "dynamic-no-pie",
            Self::Musl => "musl",
        }
    }

    /// Compiles `samples/session/NAME.c`.
    pub fn compile(self, name: &str) -> PathBuf {
        let name = format!("session/{name}");
        let compiled = match self {
            Self::Musl => compile_with("musl-gcc", &name, &["-static", "-pthread"]),
            _ => {
                let flags = layout_flags(self.name()).unwrap();
                let flags: Vec<&str> = flags.split(' ').chain(["-pthread"]).collect();
                compile(&name, &flags)
            }
        };
        compiled.unwrap_or_else(|why| panic!("{why}"))
    }
}

/// The libraries that a dynamic program loads, its interpreter too.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

/// Puts everything into the stage's tree: `drivers` (C files, and scripts of the shell) as /drivers/NAME.
pub fn plant(stage: &Stage, linked: Linked, busybox: &Path, drivers: &[&str]) {
    let root = stage.path().join("root");
    let at = |path: &str| root.join(path.strip_prefix('/').unwrap());
    for dir in [
        "proc",
        "dev",
        "sys",
        "tmp",
        "bin",
        "usr/bin",
        "etc",
        "shows",
        "drivers",
        "links",
        "private",
        "files/directory",
        "scripts",
        "elf",
    ] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    let program = |from: &Path, to: &str| {
        copy_program(from, &at(to));
        fs::set_permissions(at(to), fs::Permissions::from_mode(0o755)).unwrap();
        for library in libraries(from) {
            stage.add_at(&library, &library);
        }
    };
    program(busybox, "/bin/busybox");
    for applet in [
        "sh", "cat", "echo", "find", "xargs", "env", "nohup", "setsid", "chroot", "su", "true",
        "sleep", "tr", "ls", "nice", "awk", "timeout",
    ] {
        symlink("busybox", at(&format!("/bin/{applet}"))).unwrap();
    }
    program(Path::new("/usr/bin/env"), "/usr/bin/env");
    let show = linked.compile("exec_show");
    program(&show, "/bin/show");
    program(&show, "/bin/show-by-a-path-that-is-quite-long");
    program(&show, "/private/show");
    for linked in Linked::ALL {
        let show = linked.compile("exec_show");
        program(&show, &format!("/shows/{}", linked.name()));
    }
    program(&compile("inherit", &["-static"]).unwrap(), "/bin/inherit");
    for driver in drivers {
        let to = format!("/drivers/{driver}");
        match driver.strip_suffix(".sh") {
            Some(_) => fs::copy(sample_path(&format!("session/{driver}")), at(&to))
                .map(drop)
                .unwrap(),
            None => program(&linked.compile(driver), &to),
        }
    }
    for (dir, entries) in [("/scripts", scripts()), ("/elf", elves())] {
        for entry in entries {
            let path = at(dir).join(&entry.name);
            fs::write(&path, &entry.contents).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(entry.mode)).unwrap();
        }
    }
    plant_files(&root, &show);
    plant_links(&root);
    fs::write(
        at("/etc/passwd"),
        "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
    )
    .unwrap();
    fs::write(at("/etc/group"), "root:x:0:\nnogroup:x:65534:\n").unwrap();
    fs::set_permissions(at("/private"), fs::Permissions::from_mode(0o700)).unwrap();
}

/// Files of every permission and sort.
fn plant_files(root: &Path, show: &Path) {
    let files = root.join("files");
    for mode in [
        0o000, 0o644, 0o700, 0o070, 0o007, 0o100, 0o001, 0o111, 0o711, 0o755, 0o1755, 0o2755,
        0o4755, 0o6755,
    ] {
        let path = files.join(format!("mode-{mode:04o}"));
        copy_program(show, &path);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let owned = files.join("mode-0700-of-nobody");
    copy_program(show, &owned);
    std::os::unix::fs::chown(&owned, Some(65534), Some(0)).unwrap();
    fs::set_permissions(&owned, fs::Permissions::from_mode(0o700)).unwrap();
    for (name, kind, device) in [
        ("fifo", FileType::Fifo, 0),
        ("socket", FileType::Socket, 0),
        ("character-device", FileType::CharacterDevice, makedev(1, 3)),
        ("block-device", FileType::BlockDevice, makedev(7, 0)),
    ] {
        mknodat(
            CWD,
            files.join(name),
            kind,
            Mode::from_raw_mode(0o777),
            device,
        )
        .unwrap();
        fs::set_permissions(files.join(name), fs::Permissions::from_mode(0o777)).unwrap();
    }
    symlink("mode-0755", files.join("link")).unwrap();
    symlink("link-loop", files.join("link-loop")).unwrap();
    symlink("missing", files.join("link-dangling")).unwrap();
}

/// Links; /links/N leads over N links to the program.
fn plant_links(root: &Path) {
    let links = root.join("links");
    symlink("/bin/show", links.join("1")).unwrap();
    for number in 2..=41 {
        symlink(format!("{}", number - 1), links.join(number.to_string())).unwrap();
    }
    for (name, to) in [
        ("loop", "loop"),
        ("dangling", "missing"),
        ("bin", "../bin"),
        ("script", "../scripts/plain"),
        ("private", "/private/show"),
        ("other-address", "/elf/other-address"),
    ] {
        symlink(to, links.join(name)).unwrap();
    }
}

/// What the files of /scripts, /elf and /files are known to answer: lines of exec_files, the beginnings of them.
pub fn known_answers() -> Vec<String> {
    let of = |dir: &str, entries: Vec<Entry>| {
        let known: Vec<String> = entries
            .into_iter()
            .filter(|entry| !entry.known.is_empty())
            .map(|entry| format!("{dir}/{}: {}", entry.name, entry.known))
            .collect();
        known
    };
    let mut all = of("/scripts", scripts());
    all.extend(of("/elf", elves()));
    for (name, known) in [
        ("directory", "EACCES"),
        ("fifo", "EACCES"),
        ("socket", "EACCES"),
        ("character-device", "EACCES"),
        ("block-device", "EACCES"),
        ("link", "argv=[\"arg0\""),
        ("link-loop", "ELOOP"),
        ("link-dangling", "ENOENT"),
        ("mode-0000", "EACCES"),
        ("mode-0644", "EACCES"),
        ("mode-0711", "argv=[\"arg0\""),
        ("mode-0111", "argv=[\"arg0\""),
    ] {
        all.push(format!("/files/{name}: {known}"));
    }
    all
}
