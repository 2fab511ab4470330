//! Programs of samples/ and what their headers say that they do.
//!
//! A header line is `//#Key: value`:
//!
//! | key | value |
//! |---|---|
//! | Layouts | names of the ways to link it (`tests/common/launch.rs`) |
//! | Layout | one more: a name and its flags |
//! | Cflags | flags for all of them |
//! | Args, Env | words, `"a b"` is one, `@N` has N bytes; Env: `none` is an empty environment |
//! | Stdin, Stdout | a line; Stdout may be repeated |
//! | Exit | a status, or the signal that ends it; 0 if not given |
//! | Elf | how the linked file is changed: `no-sections`, `phdrs-at-end` |
//! | Build | options of `xip-image build` |
//! | Image | how the image is changed: `bytes-after-the-file` |
//! | Plan | what `xip-run --explain --json` must say, see `check_plan` of tests/samples.rs |
#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use super::launch::{compile_with, layout_flags, sample_path};

/// A program and what its header says.
#[derive(Clone, Default)]
pub struct Sample {
    pub name: String,
    pub layout: String,
    pub compiler: &'static str,
    pub cflags: Vec<String>,
    pub args: Vec<String>,
    pub env: Option<Vec<(String, String)>>,
    pub stdin: String,
    pub stdout: String,
    pub exit: String,
    pub elf: Option<String>,
    pub build: Vec<String>,
    pub image: Option<String>,
    pub plan: Vec<String>,
}

impl Sample {
    /// The program, compiled and linked.
    pub fn compile(&self) -> Result<PathBuf, String> {
        let flags: Vec<&str> = self.cflags.iter().map(String::as_str).collect();
        compile_with(self.compiler, &self.name, &flags)
    }
}

/// Every sample of a directory below samples/ (`""`: of it itself), in order, once for each way to link it.
pub fn samples(directory: &str) -> Vec<Sample> {
    let mut samples: Vec<Sample> = Vec::new();
    for entry in fs::read_dir(sample_path(directory)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "c") {
            samples.extend(parse(&path));
        }
    }
    samples.sort_by(|a, b| (&a.name, &a.layout).cmp(&(&b.name, &b.layout)));
    samples
}

/// A sample for each of its layouts; none if it has no header (another test's program).
fn parse(path: &Path) -> Vec<Sample> {
    let below = path.strip_prefix(sample_path("")).unwrap();
    let name = below.with_extension("");
    let name = name.to_str().unwrap();
    let source = fs::read_to_string(path).unwrap();
    let mut sample = Sample {
        name: name.into(),
        exit: "0".into(),
        ..Sample::default()
    };
    let mut layouts: Vec<(String, Vec<String>)> = Vec::new();
    for line in source.lines().filter_map(|line| line.strip_prefix("//#")) {
        let (key, value) = line
            .split_once(':')
            .unwrap_or_else(|| panic!("{name}: //#{line}"));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match key {
            "Layouts" => {
                layouts.extend(words(value).into_iter().map(|layout| {
                    let flags =
                        layout_flags(&layout).unwrap_or_else(|| panic!("{name}: layout {layout}"));
                    (layout, words(flags))
                }));
            }
            "Layout" => {
                let mut flags = words(value);
                layouts.push((flags.remove(0), flags));
            }
            "Cflags" => sample.cflags.extend(words(value)),
            "Args" => sample.args = words(value),
            "Env" if value == "none" => sample.env = Some(Vec::new()),
            "Env" => {
                let pairs = words(value).into_iter();
                let split = |pair: String| {
                    let (name, value) = pair.split_once('=').unwrap();
                    (name.to_owned(), value.to_owned())
                };
                sample.env = Some(pairs.map(split).collect());
            }
            "Stdin" => sample.stdin.push_str(value),
            "Stdout" => sample.stdout.extend([value, "\n"]),
            "Exit" => sample.exit = value.into(),
            "Elf" => sample.elf = Some(value.into()),
            "Build" => sample.build = words(value),
            "Image" => sample.image = Some(value.into()),
            "Plan" => sample.plan = words(value),
            _ => panic!("{name}: unknown key {key}"),
        }
    }
    let of_layout = |(layout, flags): (String, Vec<String>)| Sample {
        compiler: if layout.starts_with("musl") {
            "musl-gcc"
        } else {
            "cc"
        },
        layout,
        cflags: [flags, sample.cflags.clone()].concat(),
        ..sample.clone()
    };
    layouts.into_iter().map(of_layout).collect()
}

/// Splits at spaces outside of quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for char in line.chars() {
        match char {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    for word in &mut words {
        if let Some(len) = word.strip_prefix('@') {
            *word = "x".repeat(len.parse().unwrap());
        }
    }
    words
}

/// How a process ended, as the samples write it: a status, or the name of the signal.
pub fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => code.to_string(),
        (None, Some(libc::SIGABRT)) => "SIGABRT".into(),
        (None, Some(libc::SIGINT)) => "SIGINT".into(),
        (None, Some(libc::SIGKILL)) => "SIGKILL".into(),
        (None, Some(libc::SIGPIPE)) => "SIGPIPE".into(),
        (None, Some(libc::SIGSEGV)) => "SIGSEGV".into(),
        (None, Some(libc::SIGSYS)) => "SIGSYS".into(),
        (None, Some(libc::SIGTERM)) => "SIGTERM".into(),
        (None, signal) => format!("signal {signal:?}"),
    }
}
