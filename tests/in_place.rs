//! What runs in place is proven page by page, and what does not is found out.

mod common {
    pub mod in_place;
    pub mod launch;
    pub mod mapped;
    pub mod mounted;
    pub mod session;
}

use std::fs;
use std::path::Path;
use std::process::Command;

use common::in_place::{InPlace, assert_in_place, in_place};
use common::mapped::Mapped;
use common::mounted::Mounted;
use common::session::{BASH, BUSYBOX, Waiting, launch, maps, stage};
use xip_run::backing::FileBacking;
use xip_run::cramfs::Image;
use xip_run::index::NotDirect;

/// How many of its readable pages are not writable now, by maps.
fn read_only_pages(pid: u32, path: &Path) -> u64 {
    let path = fs::canonicalize(path).unwrap();
    let maps = maps(pid).into_iter();
    let maps = maps.filter(|map| map.perms.starts_with("r-") && Path::new(&map.path) == path);
    maps.map(|map| (map.end - map.start) / 4096).sum()
}

#[test]
fn the_first_program_of_a_session_is_in_place() {
    let Some(stage) = stage(&[]) else { return };
    for options in [&[][..], &["--no-root"]] {
        let session = Waiting::start(&mut launch(&stage, options), "", 1);
        let found = assert_in_place(session.pid(), &stage.image());
        let pages = found.in_place[BUSYBOX];
        // All but the pages of relro that were written to.
        let mapped = read_only_pages(session.pid(), &stage.image());
        assert!((mapped - 8..=mapped).contains(&pages), "{found}");
        assert!(pages > 400 && found.in_place.len() == 1, "{found}");
        assert!(found.excused.is_empty() && found.host.is_empty(), "{found}");
        assert!(
            found.to_string().contains(" pages in place: /bin/busybox"),
            "{found}"
        );
    }
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
    let Some(stage) = stage(&["--xip=none"]) else {
        return;
    };
    let session = Waiting::start(&mut launch(&stage, &[]), "", 1);
    let found = assert_in_place(session.pid(), &stage.image());
    assert!(found.in_place.is_empty(), "{found}");
    let pages = found.excused[&(BUSYBOX.to_owned(), NotDirect::Compressed)];
    assert!(pages > 300, "{found}");
    assert!(
        found.to_string().contains("/bin/busybox: compressed"),
        "{found}"
    );
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
    let mounted = Mounted::new(Image::open(FileBacking::open(&stage.image()).unwrap()).unwrap());
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
    let copied = Waiting::start(&mut launch(&stage, &["--copy-text"]), "", 1);
    let found = in_place(copied.pid(), &stage.image());
    assert_fault(&found, "direct in the image, but copied: /bin/busybox", 300);
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
