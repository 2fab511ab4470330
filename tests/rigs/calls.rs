//! The probes of samples/session/ on other kernels and architectures: in emulated machines they do in a session what they
//! do natively, as tests/session_calls.rs has it of this one. The boards are those of tests/rigs/*.rig; the image is in RAM.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::boards::possible::{Ground, cache, log};
use super::boards::rig::Rig;
use super::boards::system::System;
use super::boards::{machine, newc, rig};
use super::launch::{compile_with, copy_program, have, interpreter, text};
use super::session_lines::{differences, limits_of};
use super::stored;

/// Probes, and how many scenarios each has at least: what one machine has the time for. (Two are left out: a
/// storm of signals leaves an emulated processor no time for anything else, and all arguments of mmap(2) take minutes.)
type Probe = (&'static str, u32);
const SIGNALS: &[Probe] = &[
    ("waits", 54),
    ("stacks", 60),
    ("masks", 170),
    ("sigsys", 50),
    ("actions", 170),
];
const PROCESSES: &[Probe] = &[("processes", 60), ("descriptors", 60)];
const MAPPINGS: &[Probe] = &[("remap", 400), ("files", 1000)];
/// How they are linked.
const LAYOUTS: [(&str, &[&str]); 2] = [("static", &["-static"]), ("dynamic", &["-no-pie"])];
/// Those that are linked dynamically too: what the C library does on its own matters there.
const DYNAMIC: [&str; 1] = ["processes"];
/// Libraries that are loaded by name while a program runs.
const LIBRARIES: [&str; 3] = ["libc.so.6", "libm.so.6", "libgcc_s.so.1"];

#[test]
fn signals_and_processes_aarch64() {
    let probes = [PROCESSES, SIGNALS].concat();
    compare("aarch64-dax-nor", "aarch64-linux-gnu-gcc", &probes);
}

/// Pages of 16 KiB.
#[test]
fn mappings_aarch64_16k() {
    compare("aarch64-16k-dax", "aarch64-linux-gnu-gcc", MAPPINGS);
}

#[test]
fn signals_armv7() {
    compare("armv7-nor", "arm-linux-gnueabihf-gcc", SIGNALS);
}

#[test]
fn processes_and_mappings_armv7() {
    let probes = [PROCESSES, MAPPINGS].concat();
    compare("armv7-nor", "arm-linux-gnueabihf-gcc", &probes);
}

/// What is mapped is no memory that the kernel knows.
#[test]
fn mappings_of_physical_memory() {
    compare_in("x86_64-nor", "cc", MAPPINGS, Place::Flash);
}

#[test]
fn signals_and_processes_x86_64() {
    let probes = [PROCESSES, SIGNALS].concat();
    compare("x86_64-nor", "cc", &probes);
}

/// Where the image is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Ram,
    Flash,
}

#[track_caller]
fn compare(name: &str, driver: &str, probes: &[Probe]) {
    compare_in(name, driver, probes, Place::Ram);
}

#[track_caller]
fn compare_in(name: &str, driver: &str, probes: &[Probe], place: Place) {
    if !have(driver) {
        return;
    }
    let Some(Ground { rig, programs, dir }) = Ground::new(name) else {
        return;
    };
    let system = make(&rig, driver, probes, &programs, place, dir.path());
    let kind = match place {
        Place::Ram => "",
        Place::Flash => "flash-",
    };
    let log = log(&format!("{}-{kind}{name}", probes[0].0));
    let outcome = machine::boot(&rig, &system, dir.path(), &log);

    let mut faults = outcome.faults;
    for Program {
        name: program,
        probe,
        ..
    } in all_programs(probes)
    {
        let of = |sign: char| -> String {
            let start = format!("CALLS: {program} {sign} ");
            let lines = outcome.log.lines();
            lines
                .filter_map(|line| line.strip_prefix(&start))
                .flat_map(|line| [line, "\n"])
                .collect()
        };
        let probe = match place {
            Place::Ram => probe.to_owned(),
            Place::Flash => format!("{probe}, physical memory"),
        };
        let (wrong, limited) = differences(&probe, &of('-'), &of('+'));
        if place == Place::Flash {
            let others = limits_of(&probe).filter(|(named, ..)| !limited.contains(named));
            faults.extend(others.map(|(named, ..)| format!("{probe}: {named} is no limit")));
        }
        faults.extend(wrong.iter().map(|what| format!("{program}: {what}")));
    }
    for line in outcome.log.lines().filter(|line| line.starts_with("RIG: ")) {
        println!("{name}: {}", &line["RIG: ".len()..]);
    }
    assert!(faults.is_empty(), "{name}:\n{}\n", faults.join("\n"));
}

/// A probe, linked in one way.
struct Program {
    name: String,
    probe: &'static str,
    flags: &'static [&'static str],
    at_least: u32,
}

fn all_programs(probes: &[Probe]) -> impl Iterator<Item = Program> {
    LAYOUTS.iter().flat_map(|(layout, flags)| {
        probes
            .iter()
            .filter(|(probe, _)| *layout == "static" || DYNAMIC.contains(probe))
            .map(move |(probe, at_least)| Program {
                name: format!("{probe}-{layout}"),
                probe,
                flags,
                at_least: *at_least,
            })
    })
}

/// The tree with the programs, its image, and an initramfs with both.
fn make(
    rig: &Rig,
    driver: &str,
    probes: &[Probe],
    programs: &Path,
    place: Place,
    dir: &Path,
) -> System {
    let root = dir.join("root");
    let tree = root.join("tree");
    for name in ["bin", "dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(tree.join(name)).unwrap();
    }
    let mut list = String::new();
    for program in all_programs(probes) {
        let page = format!("-DPAGE={}L", rig.page);
        let flags = [program.flags, &["-pthread", "-DSLOWER=10", &page]].concat();
        let compiled = compile_with(driver, &format!("session/{}", program.probe), &flags)
            .unwrap_or_else(|failure| panic!("{failure}"));
        copy_program(&compiled, &tree.join("bin").join(&program.name));
        list += &format!("{} {}\n", program.name, program.at_least);
        if let Some(interpreter) = interpreter(&compiled) {
            add_libraries(driver, &interpreter, &tree);
        }
    }
    // For system(3) and popen(3).
    symlink(format!("{}-static", probes[0].0), tree.join("bin/sh")).unwrap();
    stored::write_files_of(&tree, rig.page as usize);

    let own = root.join("rig");
    for name in ["bin", "dev", "modules", "proc", "rig", "run", "sys", "tmp"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    let image = stored::image_of_pages(&tree, rig.page as usize);
    fs::write(own.join("image.cramfs"), &image).unwrap();
    let spec = match place {
        Place::Ram => "/rig/image.cramfs",
        Place::Flash => rig.images.last().unwrap().split(' ').next_back().unwrap(),
    };
    fs::write(own.join("spec"), format!("{spec}\n")).unwrap();
    fs::write(own.join("programs"), list).unwrap();
    copy_program(&programs.join("xip-run"), &own.join("xip-run"));
    copy_program(&rig::directory().join("calls.init"), &root.join("init"));
    let userland = cache().join("userland").join(rig.arch.debian);
    copy_program(&userland.join("bin/busybox"), &root.join("bin/busybox"));
    for applet in [
        "cat", "chroot", "cmp", "diff", "grep", "insmod", "ls", "mount", "poweroff", "sed", "tail",
        "timeout", "uname", "wc",
    ] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    let kernel = format!("{}-{}", rig.arch.debian, rig.kernel_suite);
    let kernel = cache().join("kernels").join(kernel);
    let fuse = kernel.join("modules/fuse.ko");
    if fuse.is_file() {
        fs::copy(fuse, root.join("modules/fuse.ko")).unwrap();
    }

    let initramfs = dir.join("initramfs");
    let mut out = BufWriter::new(File::create(&initramfs).unwrap());
    newc::archive(&root, &mut out).unwrap();
    out.flush().unwrap();
    let flash = dir.join("flash");
    let mut bank = File::create(&flash).unwrap();
    if place == Place::Flash {
        bank.write_all(&image).unwrap();
    }
    let bytes = rig.flash.iter().map(|(_, bytes)| bytes).sum();
    assert!(image.len() as u64 <= bytes || place == Place::Ram);
    bank.set_len(bytes).unwrap();
    System {
        kernel: kernel.join("vmlinuz"),
        initramfs,
        flash,
        image: own.join("image.cramfs"),
    }
}

/// The dynamic linker and the libraries, of the compiler's own C library, where they are looked for.
fn add_libraries(driver: &str, interpreter: &Path, tree: &Path) {
    let place = |name: &str, to: &Path| {
        let here = tree.join(to.strip_prefix("/").unwrap());
        if !here.exists() {
            fs::create_dir_all(here.parent().unwrap()).unwrap();
            copy_program(&found_by(driver, name), &here);
        }
    };
    place(
        interpreter.file_name().unwrap().to_str().unwrap(),
        interpreter,
    );
    for name in LIBRARIES {
        place(name, &Path::new("/lib").join(name));
    }
}

fn found_by(driver: &str, name: &str) -> PathBuf {
    let output = Command::new(driver)
        .arg(format!("-print-file-name={name}"))
        .output()
        .unwrap();
    let path = PathBuf::from(text(&output.stdout).trim());
    path.canonicalize()
        .unwrap_or_else(|err| panic!("{driver}: {name}: {err}"))
}
