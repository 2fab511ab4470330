//! Rules that no compiler keeps: what cargo does not see is formatted and free of lints too, unsafe code has its places,
//! no module uses one that stands after it, no file has outgrown its idea.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The most lines that a file may have, and the files that have more with the reason why.
const LINES_LIMIT: usize = 600;
const LONGER: [(&str, &str); 2] = [
    (
        "loader-stub/src/sys.rs",
        "one list of the system calls of the stub",
    ),
    (
        "tests/view_session.rs",
        "sessions as their users see them, of one system",
    ),
];
/// Where unsafe code may be.
const UNSAFE: [&str; 2] = ["src/sys/", "loader-stub/src/"];
/// What every module may use, wherever it stands.
const COMMON: [&str; 2] = ["error", "units"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a directory: its path from the package's root, and its text.
fn rust_files(dirs: &[&str]) -> Vec<(String, String)> {
    fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    for dir in dirs {
        walk(&root().join(dir), &mut files);
    }
    files.sort();
    assert!(!files.is_empty());
    let name = |path: &Path| {
        path.strip_prefix(root())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    files
        .iter()
        .map(|path| (name(path), fs::read_to_string(path).unwrap()))
        .collect()
}

/// The lines of code with their numbers: no comments, no strings' contents, no tests.
fn code(text: &str) -> Vec<(usize, String)> {
    let before_tests = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let uncommented = before_tests.lines().map(|line| {
        let mut code = String::new();
        let mut in_string = false;
        let mut chars = line.char_indices().peekable();
        while let Some((at, char)) = chars.next() {
            match char {
                '\\' if in_string => drop(chars.next()),
                '"' => in_string = !in_string,
                '/' if !in_string && line[at..].starts_with("//") => break,
                _ if !in_string => code.push(char),
                _ => {}
            }
        }
        code
    });
    (1..).zip(uncommented).collect()
}

/// Is the tool here? Where `CI` is set, it must be.
fn ran(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(err) => {
            assert!(std::env::var_os("CI").is_none(), "{command:?}: {err}");
            println!("skipped: {command:?}: {err}");
            None
        }
    }
}

/// The crate roots of the stubs.
fn stubs() -> [PathBuf; 2] {
    ["launch.rs", "session.rs"].map(|name| root().join("loader-stub/src").join(name))
}

#[track_caller]
fn assert_silent_success(output: &Output) {
    let all = [&*output.stdout, &*output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&all));
}

#[test]
fn the_stubs_are_formatted() {
    // Its modules are found from there.
    if let Some(output) = ran(Command::new("rustfmt")
        .args(["--check", "--edition=2024"])
        .args(stubs()))
    {
        assert_silent_success(&output);
    }
}

#[test]
fn the_stubs_are_free_of_lints() {
    let mut checked = 0;
    for target in [
        "x86_64-unknown-linux-gnu",
        "aarch64-unknown-linux-musl",
        "armv7-unknown-linux-gnueabihf",
        "riscv64gc-unknown-linux-gnu",
    ] {
        let Some(libraries) =
            ran(Command::new("rustc").args(["--print=target-libdir", "--target", target]))
        else {
            return;
        };
        if !Path::new(String::from_utf8_lossy(&libraries.stdout).trim()).is_dir() {
            assert!(
                std::env::var_os("CI").is_none(),
                "{target} is not installed"
            );
            println!("skipped: {target} is not installed");
            continue;
        }
        for stub in stubs() {
            if !stub_is_free_of_lints(&stub, target) {
                return;
            }
        }
        checked += 1;
    }
    println!("{checked} targets");
}

/// False if there is no clippy.
fn stub_is_free_of_lints(stub: &Path, target: &str) -> bool {
    let out = tempfile::tempdir().unwrap();
    // The flags of loader-stub/build.rs that change what is compiled, and the lints of Cargo.toml.
    let output = ran(Command::new("clippy-driver")
        .arg(stub)
        .args([
            "--crate-name=xip_stub",
            "--crate-type=bin",
            "--edition=2024",
            "--emit=metadata",
        ])
        .args([
            "--target",
            target,
            "-Cpanic=abort",
            "-Copt-level=s",
            "-Ctarget-feature=-crt-static",
        ])
        .args([
            "-Dwarnings",
            "-Dunsafe_op_in_unsafe_fn",
            "-Dclippy::undocumented_unsafe_blocks",
        ])
        .arg("--out-dir")
        .arg(out.path()));
    if let Some(output) = &output {
        assert_silent_success(output);
    }
    output.is_some()
}

#[test]
fn unsafe_code_has_its_places() {
    let mut wrong = Vec::new();
    for (path, text) in rust_files(&["src"]) {
        if UNSAFE.iter().any(|place| path.starts_with(place)) {
            continue;
        }
        for (number, line) in code(&text) {
            let mut words = line.split(|char: char| !char.is_alphanumeric() && char != '_');
            let allows = line.contains("allow(unsafe_code") || line.contains("expect(unsafe_code");
            if allows || words.any(|word| word == "unsafe") {
                wrong.push(format!("{path}:{number}: {}", line.trim()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "unsafe code outside of {UNSAFE:?}:\n{}",
        wrong.join("\n")
    );
}

/// src/lib.rs lists the modules in the order in which data flows through them.
fn pipeline() -> Vec<String> {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let modules = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    modules.map(str::to_owned).collect()
}

/// The top-level modules that a line of code names: `crate::plan::…`, `crate::{plan, units::…}`.
fn used_modules(text: &str) -> Vec<(usize, String)> {
    let mut used = Vec::new();
    let lines = code(text);
    let flat: String = lines.iter().map(|(_, line)| format!("{line}\n")).collect();
    for (at, _) in flat.match_indices("crate::") {
        // `$crate::` is the caller's to answer for, `my_crate::` is no crate of ours.
        if flat[..at].ends_with(|char: char| char.is_alphanumeric() || char == '_' || char == '$') {
            continue;
        }
        let number = flat[..at].matches('\n').count() + 1;
        let rest = &flat[at + "crate::".len()..];
        let name = |text: &str| -> String {
            text.trim_start()
                .chars()
                .take_while(|char| char.is_alphanumeric() || *char == '_')
                .collect()
        };
        match rest.strip_prefix('{') {
            None => used.push((number, name(rest))),
            Some(group) => {
                let mut depth = 0;
                let mut start = 0;
                for (at, char) in group.char_indices() {
                    match char {
                        '{' => depth += 1,
                        '}' if depth > 0 => depth -= 1,
                        ',' | '}' if depth == 0 => {
                            used.push((number, name(&group[start..at])));
                            start = at + 1;
                            if char == '}' {
                                break;
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    used.retain(|(_, name)| !name.is_empty());
    used
}

#[test]
fn modules_use_only_what_stands_before_them() {
    let order = pipeline();
    assert!(order.len() > 5, "{order:?}");
    let place = |name: &str| order.iter().position(|module| module == name);
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (path, text) in rust_files(&["src"]) {
        let inside = path.strip_prefix("src/").unwrap();
        let module = inside.split(['/', '.']).next().unwrap();
        // lib.rs names them all; the programs use what they like; files of tests only do as well.
        if module == "lib"
            || module == "bin"
            || inside.ends_with("/tests.rs")
            || inside.ends_with("/testing.rs")
        {
            continue;
        }
        let own =
            place(module).unwrap_or_else(|| panic!("{path} is of no module that src/lib.rs lists"));
        seen.insert(module.to_owned());
        for (number, name) in used_modules(&text) {
            // What is not a module is a macro, which belongs to the root.
            let Some(other) = place(&name) else { continue };
            if other > own && !COMMON.contains(&name.as_str()) {
                wrong.push(format!(
                    "{path}:{number}: {module} uses {name}, which stands after it in src/lib.rs"
                ));
            }
        }
    }
    assert_eq!(
        seen.len(),
        order.len(),
        "src/lib.rs lists {order:?}, files are of {seen:?}"
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::plan::{A, B};\nuse crate::{units, cramfs::{Image, x::y}, error as e};\n// crate::comment\n\
                fn f() { crate::index::f(\"crate::string\") + $crate::sys::f() }\n#[cfg(test)]\nmod tests { use crate::report; }";
    let used: Vec<String> = used_modules(text)
        .into_iter()
        .map(|(_, name)| name)
        .collect();
    assert_eq!(used, ["plan", "units", "cramfs", "error", "index"]);
}

#[test]
fn files_have_one_idea() {
    let mut wrong = Vec::new();
    for (path, text) in rust_files(&["src", "loader-stub", "tests"]) {
        let lines = text.lines().count();
        let has_reason = LONGER.iter().any(|(name, _)| *name == path);
        if lines > LINES_LIMIT && !has_reason {
            wrong.push(format!("{path} has {lines} lines: is it two ideas? If not, give the reason in tests/tidy.rs"));
        }
        if lines <= LINES_LIMIT && has_reason {
            wrong.push(format!(
                "{path} has {lines} lines only: take its reason out of tests/tidy.rs"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
