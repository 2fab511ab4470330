//! xip-mem compare: the figures are /proc's, to the page, and a baseline shows what a change costs.

mod common {
    pub mod launch;
    pub mod mounted;
    pub mod session;
}

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use common::launch::{Stage, have, text};
use common::session::{self, BUSYBOX, PAGE, bytes, kib_line, xip_mem};
use serde_json::Value;

const SLEEP: [&str; 3] = [BUSYBOX, "sleep", "1000"];

fn busybox() -> Option<Stage> {
    if !have("busybox") {
        return None;
    }
    let stage = Stage::new();
    stage.add_at(Path::new(BUSYBOX), Path::new(BUSYBOX));
    stage.build::<&str>(&[]);
    Some(stage)
}

fn compare(stage: &Stage, options: &[&str], command: &[&str]) -> Output {
    let image = stage.image();
    let named = ["compare", "--image", image.to_str().unwrap()];
    xip_mem(&[&named, options, &["--"], command].concat())
}

fn figures(stage: &Stage, options: &[&str], command: &[&str]) -> Value {
    let out = compare(stage, &[options, &["--json"]].concat(), command);
    assert!(out.status.success(), "{}", text(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// A process that was started by other means, until it is dropped.
struct Sleeping(Child);

impl Sleeping {
    fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let sleeping = Self(child);
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", sleeping.0.id())).unwrap();
        let mut before = String::new();
        loop {
            std::thread::sleep(Duration::from_millis(60));
            let now = stat();
            if now == before && now.contains("(busybox) S") {
                return sleeping;
            }
            before = now;
        }
    }

    /// Anonymous memory and page tables, and the memfd that it was executed from.
    fn own(&self) -> [u64; 3] {
        let pid = self.0.id();
        let exe = std::fs::metadata(format!("/proc/{pid}/exe")).unwrap();
        let link = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        let is_memfd = link.to_str().unwrap().starts_with("/memfd:");
        let blocks = std::os::unix::fs::MetadataExt::blocks(&exe);
        [
            kib_line(pid, "smaps_rollup", "Anonymous:"),
            kib_line(pid, "status", "VmPTE:"),
            if is_memfd { blocks * 512 } else { 0 },
        ]
    }
}

impl Drop for Sleeping {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn busybox_sleep_is_within_a_page_of_proc_in_ten_runs() {
    let Some(stage) = busybox() else { return };
    if !have("setarch") {
        return;
    }
    // Where stack and heap begin Linux draws by lot, and what they and their page tables take depends on it.
    let fixed = |command: &Command| {
        let mut fixed = Command::new("setarch");
        fixed
            .arg("-R")
            .arg(command.get_program())
            .args(command.get_args());
        fixed
    };
    let mut xip_mem = Command::new(env!("CARGO_BIN_EXE_xip-mem"));
    xip_mem.args(["compare", "--json", "--settle", "0.2", "--image"]);
    xip_mem.arg(stage.image()).arg("--").args(SLEEP);
    for run in 0..10 {
        let out = fixed(&xip_mem).output().unwrap();
        assert!(out.status.success(), "{}", text(&out.stderr));
        let shown: Value = serde_json::from_slice(&out.stdout).unwrap();
        let native = Sleeping::start(&mut fixed(Command::new(BUSYBOX).args(["sleep", "1000"])));
        let in_place = Sleeping::start(&mut fixed(stage.xip_run().args(SLEEP)));
        for (trial, process) in shown["trials"]
            .as_array()
            .unwrap()
            .iter()
            .zip([native, in_place])
        {
            let [anonymous, tables, memfd] = process.own();
            let anonymous_shown = bytes(&trial["anonymous_bytes"]);
            assert!(
                anonymous_shown.abs_diff(anonymous) <= PAGE,
                "run {run}: {trial} but {anonymous}"
            );
            let tables_shown = bytes(&trial["page_table_bytes"]);
            assert!(
                tables_shown.abs_diff(tables) <= PAGE,
                "run {run}: {trial} but {tables}"
            );
            assert_eq!(trial["stub_bytes"], memfd);
            assert_eq!(
                trial["instance_bytes"],
                anonymous_shown + tables_shown + memfd
            );
            assert_eq!(trial["processes"], 1);
        }
    }
}

#[test]
fn many_instances_share_the_page_cache_and_copies_share_nothing() {
    let Some(stage) = busybox() else { return };
    let shown = figures(&stage, &["-n", "4", "--also", "copy"], &SLEEP);
    let trials = shown["trials"].as_array().unwrap();
    let ways: Vec<&Value> = trials.iter().map(|trial| &trial["way"]).collect();
    assert_eq!(ways, ["native", "in-place", "copy"]);
    let [native, in_place, copied] = [0, 1, 2].map(|at| &trials[at]);
    for trial in trials {
        assert_eq!(trial["processes"], 4);
        let parts = [
            "anonymous_bytes",
            "page_table_bytes",
            "stub_bytes",
            "server_bytes",
        ];
        let own: u64 = parts.iter().map(|part| bytes(&trial[part])).sum();
        assert_eq!(trial["own_bytes"], own);
        assert_eq!(trial["instance_bytes"], own / 4);
        let other = bytes(&trial["other_cache_bytes"]);
        assert_eq!(trial["if_in_flash_bytes"], own + other);
        assert_eq!(
            trial["total_bytes"],
            own + other + bytes(&trial["image_cache_bytes"])
        );
    }
    let len = std::fs::metadata(BUSYBOX).unwrap().len();
    // Text and constants once for all four.
    for (trial, cache) in [
        (native, "other_cache_bytes"),
        (in_place, "image_cache_bytes"),
    ] {
        assert!((len / 8..len).contains(&bytes(&trial[cache])), "{trial}");
    }
    // A loader that copies text has it in each process.
    assert!(bytes(&copied["stub_bytes"]) > 4 * len / 2, "{copied}");
    let saved =
        |total: &str| bytes(&native[total]).cast_signed() - bytes(&in_place[total]).cast_signed();
    assert_eq!(shown["saved_bytes"], saved("total_bytes"));
    assert_eq!(shown["saved_if_in_flash_bytes"], saved("if_in_flash_bytes"));
    assert!(saved("if_in_flash_bytes") > 0);
    let stored = bytes(&shown["flash"]["stored_bytes"]);
    let compressed = bytes(&shown["flash"]["compressed_bytes"]);
    assert!(
        stored.abs_diff(len) < 64 * 1024 && compressed < stored,
        "{}",
        shown["flash"]
    );

    let out = text(&compare(&stage, &["-n", "2"], &SLEEP).stdout);
    for says in [
        "/bin/busybox sleep 1000: 2 instances each",
        "each instance: RAM of its own",
        "all: RAM if the image is in flash",
        "saved per byte of flash:",
    ] {
        assert!(out.contains(says), "{says} is not in\n{out}");
    }
}

#[test]
fn a_baseline_shows_what_a_change_takes() {
    let Some(stage) = busybox() else { return };
    let base = stage.path().join("base.json");
    let base = base.to_str().unwrap();
    let out = compare(&stage, &["--save", base], &SLEEP);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let same = compare(&stage, &["--against", base, "--tolerance", "16"], &SLEEP);
    assert_eq!(same.status.code(), Some(0), "{}", text(&same.stdout));
    assert!(text(&same.stdout).contains("in place, each instance: RAM of its own"));

    // The same program, compressed in the image, is copied at the launch.
    stage.build(&["--xip=none"]);
    let worse = compare(&stage, &["--against", base, "--json"], &SLEEP);
    assert_eq!(worse.status.code(), Some(1));
    let shown: Value = serde_json::from_slice(&worse.stdout).unwrap();
    let beyond = shown["against"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["beyond"] == true);
    let beyond: Vec<String> = beyond
        .map(|one| format!("{} {}", one["way"], one["what"]))
        .collect();
    assert!(
        !beyond.is_empty() && beyond.iter().all(|one| one.starts_with("\"in-place\"")),
        "{beyond:?}"
    );
    let more = text(&compare(&stage, &["--against", base], &SLEEP).stdout);
    assert!(more.contains("BEYOND TOLERANCE"), "{more}");
    // Of another command it says nothing.
    let other = compare(&stage, &["--against", base], &[BUSYBOX, "sleep", "999"]);
    assert_eq!(other.status.code(), Some(125));
    assert!(text(&other.stderr).contains("the baseline is of `/bin/busybox sleep 1000`"));
}

#[test]
fn all_that_a_session_starts_is_counted_with_its_server() {
    let Some(stage) = session::stage(&[]) else {
        return;
    };
    let command = [BUSYBOX, "sh", "-c", "/bin/busybox sleep 1000 & read x"];
    let shown = figures(&stage, &["--session"], &command);
    let trials = shown["trials"].as_array().unwrap();
    assert_eq!(
        (&trials[0]["processes"], &trials[1]["processes"]),
        (&2.into(), &2.into())
    );
    assert_eq!(trials[0]["server_bytes"], 0);
    assert!(
        (64 << 10..2 << 20).contains(&bytes(&trials[1]["server_bytes"])),
        "{}",
        trials[1]
    );
    assert!(
        (16 << 10..96 << 10).contains(&bytes(&trials[1]["stub_bytes"])),
        "{}",
        trials[1]
    );
    assert!(bytes(&trials[1]["image_cache_mapped_bytes"]) > 1 << 20);
}

#[test]
fn what_cannot_be_compared_says_why() {
    let Some(stage) = busybox() else { return };
    let ended = compare(&stage, &[], &[BUSYBOX, "false"]);
    assert_eq!(ended.status.code(), Some(125));
    assert!(text(&ended.stderr).contains("ended before it was measured (exit status: 1)"));
    let absent = compare(&stage, &[], &["/bin/sh-that-is-not-there"]);
    assert_eq!(absent.status.code(), Some(125));
    assert!(text(&absent.stderr).contains("/bin/sh-that-is-not-there, native:"));
    // In the image is another program.
    std::fs::write(stage.in_root(Path::new("/bin/sleep")), "no program").unwrap();
    stage.build::<&str>(&[]);
    let other = compare(&stage, &[], &["/bin/sleep", "1000"]);
    assert_eq!(other.status.code(), Some(125), "{}", text(&other.stdout));
    assert!(
        text(&other.stderr).contains("/bin/sleep, in place: ended"),
        "{}",
        text(&other.stderr)
    );
    let nothing = xip_mem(&["compare"]);
    assert_eq!(nothing.status.code(), Some(125));
}
