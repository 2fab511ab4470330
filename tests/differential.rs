//! What a program finds when it starts: samples/probe.c tells everything, after execve(2) and after xip-run, and all that
//! differs must be allowed here, with its reason.

#[path = "common/facts.rs"]
mod facts;
#[path = "common/launch.rs"]
mod launch;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use launch::{Stage, XIP_RUN, compile, copy_program, finish, have_cc, in_parallel, text};

use facts::Variant::{self, Dynamic, Interpreter, Static, StaticPie};
use facts::{Case, Facts, Origin};

const VARIANTS: [Variant; 4] = [Static, StaticPie, Interpreter, Dynamic];

/// A stage with the probe, its image built.
struct Probed {
    stage: Stage,
    origin: Origin,
    inherit: PathBuf,
    xip_run: PathBuf,
}

impl Probed {
    /// With the probe under these names as well.
    fn new(variant: Variant, names: &[&str]) -> Self {
        const FREE: &str =
            "-nostdlib -ffreestanding -fno-stack-protector -Wl,--build-id=none -Wl,-e,probe_start";
        let kind = match variant {
            Static => "-static -no-pie -fno-pie",
            StaticPie | Interpreter => "-static-pie -fPIE",
            Dynamic => "-pie -fPIE -Wl,--no-as-needed -lc",
        };
        let flags: Vec<&str> = FREE.split(' ').chain(kind.split(' ')).collect();
        let probe = compile("probe", &flags).unwrap();
        let inherit = compile("inherit", &[]).unwrap();

        let stage = Stage::new();
        // For those who are nobody.
        fs::set_permissions(stage.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let linked = match variant {
            Interpreter => {
                let interpreter = stage.add_program(&probe, "interpreter");
                program_with_interpreter(&stage, &interpreter)
            }
            _ => probe,
        };
        for name in names {
            copy_program(&linked, &stage.path().join(name));
            stage.add_at(&linked, &Path::new("/").join(name));
        }
        let program = stage.add_program(&linked, "probe");
        stage.build::<&str>(&[]);
        let interpreter = launch::interpreter(&program).map(|path| fs::canonicalize(path).unwrap());
        let origin = Origin {
            variant,
            program,
            interpreter,
            image: stage.image(),
        };
        Self {
            stage,
            origin,
            inherit,
            xip_run: XIP_RUN.into(),
        }
    }

    /// Starts the probe natively and in place and compares. The environment is `env`, `inherits` is what to set up.
    fn compare(&self, case: &Case<'_>) -> Vec<String> {
        let mut facts = Vec::new();
        for in_place in [false, true] {
            let mut command = Command::new(&self.inherit);
            command.env_clear().envs(case.env.iter().copied());
            command.current_dir(self.stage.path());
            command.args(case.inherits).arg("--");
            if in_place {
                command.arg(&self.xip_run).arg("--no-root").arg("--image");
                command.arg(self.stage.image());
            }
            let program = case.path.map_or(self.origin.program.clone(), PathBuf::from);
            command.arg(&program).args(case.args);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let output = finish(command.spawn().unwrap());
            if !output.status.success() {
                let way = if in_place { "in place" } else { "natively" };
                return vec![format!(
                    "{:?}, {case:?} {way}: {}: {}",
                    self.origin.variant,
                    output.status,
                    text(&output.stderr)
                )];
            }
            facts.push(Facts::parse(&output.stdout, in_place, &self.origin));
        }
        let (native, in_place) = (facts[0].normalized(case), facts[1].normalized(case));
        let mut differences = Vec::new();
        for name in native
            .keys()
            .chain(in_place.keys())
            .collect::<BTreeSet<_>>()
        {
            let (native, in_place) = (native.get(name), in_place.get(name));
            if native != in_place {
                differences.push(format!(
                    "{:?}, {case:?}: {name}:\n    native   {native:?}\n    in place {in_place:?}",
                    self.origin.variant
                ));
            }
        }
        for facts in &facts {
            differences.extend(
                facts
                    .contradictions()
                    .into_iter()
                    .map(|what| format!("{:?}, {case:?}: {what}", self.origin.variant)),
            );
        }
        differences
    }
}

/// A small dynamic program whose interpreter is that one.
fn program_with_interpreter(stage: &Stage, interpreter: &Path) -> PathBuf {
    let placeholder = "/".repeat(200);
    let linker = format!("-Wl,--dynamic-linker={placeholder}");
    let flags = "-nostdlib -pie -fPIE -ffreestanding -fno-stack-protector -Wl,--build-id=none -Wl,--no-as-needed -lc";
    let flags: Vec<&str> = flags.split(' ').chain([linker.as_str()]).collect();
    let mut bytes = fs::read(compile("bss-none", &flags).unwrap()).unwrap();
    let at = bytes
        .windows(200)
        .position(|window| window == placeholder.as_bytes())
        .unwrap();
    bytes[at..at + 200].fill(0);
    let path = interpreter.as_os_str().as_encoded_bytes();
    bytes[at..at + path.len()].copy_from_slice(path);
    let program = stage.path().join("dynamic");
    fs::write(&program, bytes).unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    program
}

fn all_variants(names: &[&str], test: impl Fn(Probed) -> Vec<String> + Sync) {
    if !have_cc() {
        return;
    }
    let differences = in_parallel(&VARIANTS, |&variant| test(Probed::new(variant, names))).concat();
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}

const ENV: &[(&str, &str)] = &[("A", "1"), ("LONGER", "some value"), ("EMPTY", "")];

#[test]
fn everything_is_as_after_execve() {
    all_variants(&[], |probed| {
        probed.compare(&Case {
            env: ENV,
            args: &["x", "", "a b", "yyyyyyyy"],
            ..Case::default()
        })
    });
}

#[test]
fn without_randomization_the_addresses_are_those_of_execve() {
    all_variants(&[], |probed| {
        let inherits = &["fixed-addresses"];
        probed.compare(&Case {
            inherits,
            env: ENV,
            args: &["x"],
            ..Case::default()
        })
    });
}

#[test]
fn without_environment() {
    all_variants(&[], |probed| {
        probed.compare(&Case {
            args: &["x"],
            ..Case::default()
        })
    });
}

/// The stack pointer is aligned whatever the number and the lengths of the arguments.
#[test]
fn with_any_number_of_arguments() {
    all_variants(&[], |probed| {
        let longest = "x".repeat(21);
        let args: Vec<&str> = (0..=20).map(|len| &longest[..len | 1]).collect();
        let cases = 0..args.len();
        cases
            .flat_map(|count| {
                probed.compare(&Case {
                    env: &ENV[..count % 3],
                    args: &args[..count],
                    ..Case::default()
                })
            })
            .collect()
    });
}

/// `AT_EXECFN` is put on the stack by the stub: lengths around its alignment, and the longest.
#[test]
fn with_paths_of_any_length() {
    let long_name = "n".repeat(251);
    all_variants(&["p", "pp", &long_name], |probed| {
        // What has no slash is looked for in PATH.
        let path = |len: usize| {
            let name = if len % 2 == 1 { "p" } else { "pp" };
            "./".repeat((len - name.len()) / 2) + name
        };
        let mut paths: Vec<String> = [
            3, 4, 7, 8, 15, 16, 17, 31, 32, 248, 249, 255, 256, 3999, 4000, 4095,
        ]
        .map(path)
        .to_vec();
        paths.push(format!("./{long_name}"));
        paths
            .iter()
            .flat_map(|path| {
                probed.compare(&Case {
                    env: ENV,
                    path: Some(path),
                    ..Case::default()
                })
            })
            .collect()
    });
}

/// What execve(2) passes on is passed on, what it resets is reset.
#[test]
fn with_all_that_is_inherited() {
    let cases: &[&[&str]] = &[
        &["signals"],
        &["timers"],
        &["descriptors"],
        &["stdin-closed"],
        &["stdin-and-stderr-closed"],
        &["limits", "session"],
        &["stack-unlimited"],
        &["stack-small"],
        &["attributes"],
        &["no-new-privs"],
        &["compat-layout"],
        &["read-implies-exec"],
        &[
            "signals",
            "timers",
            "descriptors",
            "stdin-closed",
            "limits",
            "attributes",
            "no-new-privs",
        ],
    ];
    all_variants(&[], |probed| {
        cases
            .iter()
            .flat_map(|inherits| {
                probed.compare(&Case {
                    inherits,
                    env: ENV,
                    ..Case::default()
                })
            })
            .collect()
    });
}

#[test]
fn without_privileges() {
    if !rustix::process::geteuid().is_root() {
        return println!("all the other tests run without privileges");
    }
    all_variants(&[], |probed| {
        // Where nobody may execute it, wherever it was built.
        let xip_run = probed.stage.path().join("xip-run");
        copy_program(Path::new(XIP_RUN), &xip_run);
        let probed = Probed { xip_run, ..probed };
        probed.compare(&Case {
            inherits: &["nobody"],
            env: ENV,
            args: &["x"],
            ..Case::default()
        })
    });
}
