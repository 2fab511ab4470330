//! What runs in place is proven page by page, and what does not is found out.

mod common {
    pub mod debian;
    pub mod in_place;
    pub mod launch;
    pub mod leftovers;
    pub mod mapped;
    pub mod mounted;
    pub mod sample;
    pub mod session;
}

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use common::debian::{Place, Session, debian};
use common::in_place::{
    ImagePages, InPlace, Shown, WRITTEN, assert_all_in_place, assert_in_place, files_below,
    in_place, shown_natively,
};
use common::launch::{Stage, compile, have_cc};
use common::mapped::Mapped;
use common::mounted::Mounted;
use common::session::{BASH, BUSYBOX, FIVE, Waiting, launch, maps, stage};
use xip_run::backing::Backing;
use xip_run::cramfs::Image;
use xip_run::index::FileIndex;
use xip_run::units::PageSize;

/// How many of its readable pages are the file's, by maps.
fn pages_of(pid: u32, path: &Path) -> u64 {
    let path = fs::canonicalize(path).unwrap();
    let maps = maps(pid).into_iter();
    let maps = maps.filter(|map| Path::new(&map.path) == path);
    maps.map(|map| (map.end - map.start) / 4096).sum()
}

/// Pages that are not in place for other reasons than that they were written to.
fn left_out(found: &InPlace) -> BTreeMap<&str, u64> {
    let reasons = found.excused.iter();
    let reasons = reasons.filter(|((_, why), _)| why != WRITTEN);
    let mut pages = BTreeMap::new();
    for ((_, why), count) in reasons {
        *pages.entry(why.as_str()).or_default() += count;
    }
    pages
}

#[test]
fn the_first_program_of_a_session_is_in_place() {
    let Some(stage) = stage(&[]) else { return };
    for options in [&[][..], &["--no-root"]] {
        let session = Waiting::start(&mut launch(&stage, options), "", 1);
        let found = assert_in_place(session.pid(), &stage.image());
        let pages = found.in_place[BUSYBOX];
        // Relro and data are written to, here and there.
        let written = found.excused[&(BUSYBOX.to_owned(), WRITTEN.to_owned())];
        assert_eq!(
            pages + written,
            pages_of(session.pid(), &stage.image()),
            "{found}"
        );
        assert!(pages > 400 && (1..12).contains(&written), "{found}");
        assert!(left_out(&found).is_empty(), "{found}");
        assert!(
            found.in_place.len() == 1 && found.host.is_empty(),
            "{found}"
        );
        assert!(
            found.to_string().contains(" pages in place: /bin/busybox"),
            "{found}"
        );
    }
}

/// Processes of all kinds: children of a shell, applets, subshells, what scripts run; of several C libraries, static and
/// dynamic; what loads libraries while it runs. Each is known by its command line.
const MANY: &str = r#"
    ( read x <&3; : ) &
    ( /bin/dash -c 'read x <&3; :'; : ) &
    /bin/bash -c '( read x <&3; : ) & wait' subshell &
    /bin/busybox cat <&3 &
    /bin/busybox-static sh -c 'cat <&3; :' &
    printf '#!/usr/bin/env bash\nread x <&3\n:' > /tmp/script
    chmod +x /tmp/script
    /tmp/script &
    exec -a renamed /usr/bin/perl -e 'use POSIX; use List::Util; <STDIN>' <&3 &
    /usr/bin/gawk 'BEGIN { system("read x <&3; :") }' <&3 &
    printf 'all:\n\t@read x <&3; :\n' > /tmp/makefile
    make -s -f /tmp/makefile &
    /usr/bin/python3 -c '
import ctypes, decimal, json, mmap, sqlite3, ssl, subprocess, sys
ctypes.CDLL("libm.so.6")
child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
sys.stdin.read()' <&3 &
"#;

const MANY_PROCESSES: usize = 17;

#[test]
fn every_program_and_library_of_a_session_shows_its_own_pages_of_the_image() {
    let Some(debian) = debian() else { return };
    let start = |place| {
        let home = Session::new(debian, place);
        let processes = Waiting::start(&mut home.command(&["/bin/bash"]), MANY, MANY_PROCESSES);
        (processes, home)
    };
    let (in_place, _home) = start(Place::InPlace);
    let (native, _native_home) = start(Place::Native);
    let by_command_line = |pids: &[u32]| -> BTreeMap<String, Vec<u32>> {
        let mut all: BTreeMap<_, Vec<u32>> = BTreeMap::new();
        for &pid in pids {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            all.entry(line).or_default().push(pid);
        }
        all
    };
    let (sessions, natives) = (
        by_command_line(&in_place.pids),
        by_command_line(&native.pids),
    );
    assert_eq!(
        sessions.keys().collect::<Vec<_>>(),
        natives.keys().collect::<Vec<_>>()
    );
    let pages = ImagePages::new(&debian.image());
    let files = files_below(&debian.root());
    let mut all = BTreeSet::new();
    for (line, pids) in &sessions {
        let natively = natives[line].iter();
        let natively: Vec<Shown> = natively
            .map(|&pid| shown_natively(pid, &files, &pages))
            .collect();
        for &pid in pids {
            let found = assert_all_in_place(pid, &pages);
            // All that a native process shows, and nothing else.
            assert!(
                natively.contains(&found.shown),
                "{line}\n{found}natively:\n{}",
                natively.iter().map(ranges).collect::<String>()
            );
            for ((path, why), pages) in &found.excused {
                let head = fs::read(debian.root().join(&path[1..])).unwrap();
                assert!(
                    why == WRITTEN || !head.starts_with(b"\x7fELF"),
                    "{line}: {path}: {pages} pages {why}"
                );
            }
            assert!(left_out(&found).values().sum::<u64>() < 120, "{found}");
            all.extend(found.in_place.into_keys());
        }
    }
    for end in [
        "/bash",
        "/busybox",
        "/busybox-static",
        "/dash",
        "/gawk",
        "/make",
        "/python3.11",
        "/ld-linux-x86-64.so.2",
        "/libc.so.6",
        "/libm.so.6",
        "/lib-dynload/_decimal.cpython-311-x86_64-linux-gnu.so",
        "/List/Util/Util.so",
        "/POSIX/POSIX.so",
    ] {
        let names = |path: &String| path.ends_with(end);
        assert!(all.iter().any(names), "{end} is not in {all:#?}");
    }
    assert!(all.len() >= 30, "{all:#?}");
}

/// What is shown, a line for each range of pages.
fn ranges(shown: &Shown) -> String {
    let mut lines = String::new();
    for (path, pages) in shown {
        lines += path;
        let mut last = None;
        for (page, perms) in pages {
            if last != Some((page.wrapping_sub(1), perms)) {
                lines += &format!(" {page}.. {perms}");
            }
            last = Some((*page, perms));
        }
        lines += "\n";
    }
    lines
}

#[test]
fn libraries_that_are_loaded_later_are_in_place() {
    let (true, Some(stage)) = (have_cc(), stage_of_libraries()) else {
        return;
    };
    let script = "/bin/load libtinfo.so.6 /lib/text_relocation.so <&3 &";
    let session = Waiting::start(&mut launch(&stage, &[]), script, 2);
    let of = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    let pids = session.pids.iter();
    let loaded = pids.copied().find(|&pid| of(pid).ends_with("load"));
    let found = assert_in_place(loaded.unwrap(), &stage.image());
    let named = |end: &str| {
        let path = found.in_place.keys().find(|path| path.ends_with(end));
        path.unwrap_or_else(|| panic!("{end} is not in\n{found}"))
            .clone()
    };
    assert!(found.in_place[&named("/libtinfo.so.6")] > 40, "{found}");
    assert!(left_out(&found).is_empty(), "{found}");
    // Of its text the page with the address was written to.
    let path = named("/text_relocation.so");
    let text = maps(loaded.unwrap()).into_iter();
    let mut text = text.filter(|map| map.is_of(Mapped::new(&stage.image()).identity()));
    let text = text.find(|map| map.perms == "r-xp" && map.anonymous > 0);
    let text = text.unwrap();
    assert_eq!(text.anonymous, 4096, "{text:?}");
    assert!(text.end - text.start >= 3 * 4096, "{text:?}");
    assert!(found.excused[&(path, WRITTEN.to_owned())] >= 1, "{found}");
}

/// The usual image, with a program that loads libraries: libtinfo is bash's.
fn stage_of_libraries() -> Option<Stage> {
    let stage = stage(&[])?;
    let program = compile("session/load", &["-pie", "-fPIE"]).unwrap();
    stage.add_at(&program, Path::new("/bin/load"));
    let flags = ["-shared", "-fPIC", "-Wl,-z,notext"];
    let library = compile("session/text_relocation", &flags).unwrap();
    stage.add_at(&library, Path::new("/lib/text_relocation.so"));
    stage.build::<&str>(&[]);
    Some(stage)
}

#[test]
fn a_dynamic_program_and_its_interpreter_are_in_place() {
    let Some(stage) = stage(&[]) else { return };
    let mut command = Command::new(common::launch::XIP_RUN);
    command.args(["--no-root", "--image"]).arg(stage.image());
    let session = Waiting::start(command.arg(BASH), "", 1);
    let found = assert_in_place(session.pid(), &stage.image());
    let interpreter = common::launch::interpreter(Path::new(BASH)).unwrap();
    let paths: Vec<&str> = found.in_place.keys().map(String::as_str).collect();
    assert_eq!(paths, [BASH, interpreter.to_str().unwrap()], "{found}");
    // Its libraries are the host's.
    assert!(
        found.host.iter().any(|path| path.ends_with("/libc.so.6")),
        "{found}"
    );
}

#[test]
fn what_is_compressed_is_excused() {
    let Some(stage) = stage(&["--xip=/bin/busybox"]) else {
        return;
    };
    let session = Waiting::start(&mut launch(&stage, &[]), FIVE, 5);
    for &pid in &session.pids {
        let found = assert_in_place(pid, &stage.image());
        let is_bash = fs::read_link(format!("/proc/{pid}/exe")).unwrap() == Path::new(BASH);
        if !is_bash {
            assert!(found.in_place[BUSYBOX] > 400, "{found}");
            assert!(left_out(&found).is_empty(), "{found}");
            continue;
        }
        assert!(found.in_place.is_empty(), "{found}");
        assert!(left_out(&found)["compressed"] > 500, "{found}");
        assert!(
            found.to_string().contains("/bin/bash: compressed"),
            "{found}"
        );
    }
}

#[test]
fn a_last_page_with_foreign_bytes_is_excused_and_nothing_else() {
    let Some(stage) = stage(&[]) else { return };
    let image = Image::open(Backing::open(&stage.image()).unwrap()).unwrap();
    let inode = image.lookup(BUSYBOX.as_bytes()).unwrap();
    let index = FileIndex::new(&image, &inode, PageSize::K4).unwrap();
    let at = index.page(inode.size / 4096).unwrap();
    assert_ne!(inode.size % 4096, 0, "the last page is whole");
    let file = fs::File::options().write(true).open(stage.image()).unwrap();
    file.write_all_at(b"X", at.0 + 4095).unwrap();
    drop(file);

    let session = Waiting::start(&mut launch(&stage, &[]), FIVE, 5);
    let mut excused = 0;
    for &pid in &session.pids {
        let found = assert_in_place(pid, &stage.image());
        if found.in_place.contains_key(BUSYBOX) {
            assert_eq!(
                left_out(&found),
                [("shared-last-page", 1)].into(),
                "{found}"
            );
            excused += 1;
        } else {
            assert!(left_out(&found).is_empty(), "{found}");
        }
    }
    assert_eq!(excused, 4);
}

/// Nothing is in place, and nothing excuses that.
fn assert_fault(found: &InPlace, fault: &str, at_least_pages: u64) {
    let faults = found
        .violations
        .iter()
        .filter(|one| one.fault.contains(fault));
    let pages: u64 = faults.map(|one| (one.end - one.start) / 4096).sum();
    assert!(
        pages >= at_least_pages,
        "{pages} pages with {fault:?} in\n{found}"
    );
}

#[test]
fn a_process_that_runs_from_the_view_is_found_out() {
    let Some(stage) = stage(&[]) else { return };
    let mounted = Mounted::new(Image::open(Backing::open(&stage.image()).unwrap()).unwrap());
    for shell in [&[BUSYBOX, "sh"][..], &[BASH]] {
        let mut command = Command::new("chroot");
        command.arg(mounted.dir.path()).args(shell);
        let native = Waiting::start(&mut command, "", 1);
        let found = in_place(native.pid(), &stage.image());
        assert_fault(&found, "direct in the image, but mapped from the view", 250);
        let shown = found.to_string();
        assert!(
            shown.contains(&format!("{}: direct in", shell[0])),
            "{shown}"
        );
        assert!(found.in_place.is_empty(), "{shown}");
    }
}

#[test]
fn a_program_that_was_copied_is_found_out() {
    let Some(stage) = stage(&[]) else { return };
    for (options, fault) in [
        (
            &["--no-root", "--copy-text"][..],
            "but copied: /bin/busybox",
        ),
        (&["--copy-text"], "but mapped from the view"),
    ] {
        let copied = Waiting::start(&mut launch(&stage, options), "", 1);
        let found = in_place(copied.pid(), &stage.image());
        assert_fault(&found, &format!("direct in the image, {fault}"), 300);
    }
    // Of another image nothing is mapped at all.
    let other = common::launch::Stage::new();
    other.add_at(Path::new(BUSYBOX), Path::new("/bin/other"));
    other.build::<&str>(&["--compress-data"]);
    let session = Waiting::start(&mut launch(&stage, &["--no-root"]), "", 1);
    let found = in_place(session.pid(), &other.image());
    assert_fault(&found, "maps nothing of the image", 0);
    assert!(!found.violations.is_empty(), "{found}");
}

#[test]
fn a_page_that_is_nobodys_is_found_out() {
    let Some(stage) = stage(&[]) else { return };
    let whole = Mapped::new(&stage.image());
    assert!(whole.frame(0).is_some());
    let found = in_place(std::process::id(), &stage.image());
    assert_fault(&found, "no index calls this page of the image direct", 1);
    // The rest of the image is its files'.
    assert!(found.in_place[BUSYBOX] > 400, "{found}");
}
