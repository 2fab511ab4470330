//! xip-mem --why: every page that is not in place has its reason, and together they are all of it.

mod common {
    pub mod launch;
    pub mod mounted;
    pub mod pages;
    pub mod session;
}

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use common::launch::{have, have_cc, text};
use common::pages::{self, Waits};
use common::session::{self, BASH, FIVE, PAGE, Waiting, bytes, kib_line, xip_mem};
use goblin::elf::Elf;
use serde_json::Value;
use xip_run::report::reasons::Reason;
use xip_run::report::reasons::elf::StartWrites;
use xip_run::units::PageSize;

fn why(pid: u32) -> Value {
    let out = xip_mem(&["--why", "--json", &pid.to_string()]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    serde_json::from_slice::<Value>(&out.stdout).unwrap()[0].take()
}

/// Bytes in RAM by reason.
fn sums(why: &Value) -> BTreeMap<&str, u64> {
    let sums = why["sums"].as_array().unwrap();
    let by_reason: BTreeMap<&str, u64> = sums
        .iter()
        .map(|sum| (sum["reason"].as_str().unwrap(), bytes(&sum["ram_bytes"])))
        .collect();
    let mut of_runs = BTreeMap::<&str, u64>::new();
    for run in why["runs"].as_array().unwrap() {
        assert!(bytes(&run["ram_bytes"]) <= bytes(&run["end"]) - bytes(&run["start"]));
        *of_runs.entry(run["reason"].as_str().unwrap()).or_default() += bytes(&run["ram_bytes"]);
    }
    assert_eq!(by_reason, of_runs);
    by_reason
}

const PRIVATE: [&str; 8] = [
    "relocated",
    "bss-tail",
    "relro",
    "written",
    "bss",
    "heap",
    "stack",
    "anonymous",
];

fn private(sums: &BTreeMap<&str, u64>) -> u64 {
    PRIVATE.iter().filter_map(|reason| sums.get(reason)).sum()
}

#[test]
fn pages_that_a_program_writes_to_are_told_apart() {
    let Some((stage, path)) = pages::stage(&[]) else {
        return;
    };
    let process = Waits::start(stage.xip_run().arg(&path).args(["16", "5", "3"]));
    let pid = process.pid();
    let why = why(pid);
    let sums = sums(&why);
    assert_eq!(sums["written"], 5 * PAGE, "{sums:?}");
    assert_eq!(sums["bss"], 3 * PAGE, "{sums:?}");
    assert_eq!(
        private(&sums),
        kib_line(pid, "smaps_rollup", "Anonymous:"),
        "{sums:?}"
    );
    assert!(!sums.contains_key("relocated"), "{sums:?}");
    let written = why["runs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|run| run["reason"] == "written");
    assert_eq!(written.unwrap()["what"], path.to_str().unwrap());
    let shown = text(&xip_mem(&["--why", &pid.to_string()]).stdout);
    for says in [
        "what is not in place",
        "written: the program writes to it; make const",
        "bss: ",
    ] {
        assert!(shown.contains(says), "{says} is not in\n{shown}");
    }
    let short = text(&xip_mem(&["--why", "--summary", &pid.to_string()]).stdout);
    assert!(
        !short.contains("ADDRESS") && short.contains("written: "),
        "{short}"
    );
}

#[test]
fn what_the_launcher_copied_has_the_reason_of_the_plan() {
    let Some((stage, path)) = pages::stage(&["--xip=none"]) else {
        return;
    };
    let process = Waits::start(stage.xip_run().arg(&path).args(["0", "0", "0"]));
    let compressed = why(process.pid());
    let plan = stage.explain(&path);
    let mappings = plan["program"]["mappings"].as_array().unwrap();
    let copied = mappings
        .iter()
        .filter(|mapping| mapping["reason"] == "compressed");
    let by_plan: u64 = copied
        .map(|mapping| bytes(&mapping["end"]) - bytes(&mapping["start"]))
        .sum();
    let by_reason = sums(&compressed);
    assert!(by_plan > 64 * PAGE, "{by_plan}");
    assert_eq!(by_reason["compressed"], by_plan, "{by_reason:?}");
    let shown = text(&xip_mem(&["--why", "--summary", &process.pid().to_string()]).stdout);
    assert!(
        shown.contains("rebuild with xip-image build --xip=auto"),
        "{shown}"
    );
    drop(process);

    // The same image, page by page.
    stage.build::<&str>(&[]);
    let process = Waits::start(
        stage
            .xip_run()
            .arg("--copy-text")
            .arg(&path)
            .args(["0", "0", "0"]),
    );
    assert!(sums(&why(process.pid()))["asked"] >= 64 * PAGE);
}

#[test]
fn a_session_says_it_of_libraries_too() {
    let Some(stage) = session::stage(&[]) else {
        return;
    };
    let session = Waiting::start(&mut session::launch(&stage, &[]), FIVE, 5);
    let mut bash = 0;
    for &pid in &session.pids {
        let why = why(pid);
        let sums = sums(&why);
        let anonymous = kib_line(pid, "smaps_rollup", "Anonymous:");
        assert_eq!(private(&sums), anonymous, "{why}");
        if std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() == "bash\n" {
            bash += 1;
            assert!(sums["relocated"] >= 10 * PAGE, "{sums:?}");
            let mut runs = why["runs"].as_array().unwrap().iter();
            assert!(
                runs.any(|run| run["reason"] == "relocated"
                    && run["what"].as_str().unwrap().contains("libc.so")),
                "{why}"
            );
        }
    }
    assert_eq!(bash, 1);
}

#[test]
fn relocated_pages_are_those_that_readelf_lists() {
    if !have("readelf") || !have("ldd") {
        return;
    }
    let listed = text(&Command::new("ldd").arg(BASH).output().unwrap().stdout);
    let libraries = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    let mut files: Vec<&Path> = libraries.map(Path::new).collect();
    files.push(Path::new(BASH));
    assert!(files.len() > 2);
    for file in files {
        let content = std::fs::read(file).unwrap();
        let writes = StartWrites::new(&content, PageSize::K4);
        let elf = Elf::parse(&content).unwrap();
        let page_of = |address: u64| {
            let mut loads = elf.program_headers.iter().filter(|load| load.p_type == 1);
            let load = loads
                .find(|load| (load.p_vaddr..load.p_vaddr + load.p_filesz).contains(&address))?;
            Some((address - load.p_vaddr + load.p_offset) / PAGE)
        };
        let readelf = Command::new("readelf")
            .args(["-rW"])
            .arg(file)
            .output()
            .unwrap();
        let mut expected = BTreeSet::new();
        for line in text(&readelf.stdout).lines() {
            let first = line.split_whitespace().next().unwrap_or_default();
            // Those in bitmaps have nothing but their address.
            let is_address = first.len() == 16;
            let address = is_address
                .then(|| u64::from_str_radix(first, 16).ok())
                .flatten();
            expected.extend(address.and_then(page_of));
        }
        assert!(!expected.is_empty(), "{}", file.display());
        for page in 0..content.len() as u64 / PAGE {
            let is = writes.reason(page * PAGE, PageSize::K4) == Reason::Relocated;
            assert_eq!(
                is,
                expected.contains(&page),
                "{} page {page}",
                file.display()
            );
        }
    }
    // Nonsense is nobody's.
    for len in [0, 3, 64, 200] {
        let writes = StartWrites::new(&vec![0x7f; len], PageSize::K4);
        assert_eq!(writes.reason(0, PageSize::K4), Reason::Written);
    }
}

#[test]
fn relative_relocations_in_bitmaps_are_found() {
    if !have_cc() {
        return;
    }
    // A table of pointers over several pages, which a PIE has to relocate.
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("table.c");
    std::fs::write(&source, "int x[4096]; int *t[4096] = {[0] = x, [600] = x + 1, [2000 ... 3000] = x};\nint main(void) { return *t[600]; }\n").unwrap();
    let build = |option: &str| {
        let program = dir.path().join("table");
        let out = Command::new("cc")
            .args(["-pie", "-fPIE", option, "-o"])
            .arg(&program)
            .arg(&source)
            .output()
            .unwrap();
        out.status
            .success()
            .then(|| std::fs::read(&program).unwrap())
    };
    let reasons = |content: &[u8]| {
        let writes = StartWrites::new(content, PageSize::K4);
        let pages = 0..content.len() as u64 / PAGE + 1;
        pages
            .filter(|page| writes.reason(page * PAGE, PageSize::K4) == Reason::Relocated)
            .count()
    };
    let plain = build("-Wl,-z,norelro").unwrap();
    assert!(reasons(&plain) >= 4);
    // binutils 2.38 packs them.
    let Some(packed) = build("-Wl,-z,norelro,-z,pack-relative-relocs") else {
        return common::launch::skip("this linker has no -z pack-relative-relocs");
    };
    assert_eq!(reasons(&packed), reasons(&plain));
}
