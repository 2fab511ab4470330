//! xip-mem without PID: all processes in place are found, and every column is what /proc says by other means, to the page.

mod common {
    pub mod launch;
    pub mod mounted;
    pub mod pages;
    pub mod session;
}

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use common::launch::{XIP_RUN, have, skip, text};
use common::pages::{self, Waits};
use common::session::{self, BUSYBOX, FIVE, PAGE, Waiting, bytes, kib_line, maps, xip_mem};
use serde_json::Value;
use xip_run::report::memory;

fn json(args: &[&str]) -> Value {
    let out = xip_mem(&[&["--json"], args].concat());
    assert!(out.status.success(), "{}", text(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// The row of a process in what is shown of the machine. (Other tests have processes in place too.)
fn row(machine: &Value, pid: u32) -> Option<&Value> {
    let mut rows = machine["processes"].as_array().unwrap().iter();
    rows.find(|row| row["pid"] == pid)
}

/// The sum of a field of smaps, bytes.
fn sum(pid: u32, field: &str) -> u64 {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let values = smaps
        .lines()
        .filter_map(|line| line.strip_prefix(field)?.split_whitespace().next());
    values.map(|kib| kib.parse::<u64>().unwrap() << 10).sum()
}

#[test]
fn every_column_is_exact_to_the_page() {
    let Some((stage, path)) = pages::stage(&[]) else {
        return;
    };
    if !have("setarch") {
        return;
    }
    // In a tmpfs the pages of a file are single ones: elsewhere the kernel maps more with the one that is touched.
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        return skip("no /dev/shm");
    };
    let image = dir.path().join("image.cramfs");
    std::fs::copy(stage.image(), &image).unwrap();
    let measure = |touched: [u64; 3]| {
        // Where the stack is decides how many page tables there are: always at the same place.
        let mut command = Command::new("setarch");
        command
            .args(["-R", XIP_RUN, "--no-root", "--image"])
            .arg(&image);
        let process = Waits::start(command.arg(&path).args(touched.map(|n| n.to_string())));
        let pid = process.pid();
        let machine = json(&["--sort", "pid"]);
        let row = row(&machine, pid).expect("it runs in place").clone();
        assert_eq!(row["images"], serde_json::json!([image.to_str().unwrap()]));
        for (column, field) in [
            ("vss_bytes", "Size:"),
            ("rss_bytes", "Rss:"),
            ("pss_bytes", "Pss:"),
            ("anonymous_bytes", "Anonymous:"),
        ] {
            assert_eq!(row[column], sum(pid, field), "{column}");
        }
        assert_eq!(
            row["uss_bytes"],
            sum(pid, "Private_Clean:") + sum(pid, "Private_Dirty:")
        );
        assert_eq!(row["page_table_bytes"], kib_line(pid, "status", "VmPTE:"));
        let exe = std::fs::metadata(format!("/proc/{pid}/exe")).unwrap();
        let memfd = std::os::unix::fs::MetadataExt::blocks(&exe) * 512;
        assert_eq!(row["stub_bytes"], memfd);
        let files = json(&["--files"]);
        let mut files = files["files"].as_array().unwrap().iter();
        let file = files
            .find(|file| file["file"] == path.to_str().unwrap())
            .unwrap();
        assert_eq!(file["processes"], 1);
        let in_place = maps(pid)
            .into_iter()
            .filter(|map| map.path == image.to_str().unwrap());
        let touched: u64 = in_place
            .map(|map| map.file_pages().count() as u64 * PAGE)
            .sum();
        assert_eq!(file["in_place"]["touched_bytes"], touched);
        (row, file.clone())
    };
    let none = measure([0, 0, 0]);
    for touched @ [texts, datas, zeros] in [[32, 5, 0], [16, 32, 3], [64, 0, 32]] {
        let (row, file) = measure(touched);
        let more = |column: &str| {
            let pages =
                [&row, &none.0].map(|row| bytes(&row[column]).cast_signed() / PAGE.cast_signed());
            pages[0] - pages[1]
        };
        let [texts, datas, zeros] = [texts, datas, zeros].map(u64::cast_signed);
        for (column, pages) in [
            ("vss_bytes", 0),
            ("rss_bytes", texts + datas + zeros),
            ("pss_bytes", texts + datas + zeros),
            ("uss_bytes", texts + datas + zeros),
            ("anonymous_bytes", datas + zeros),
            // Of what is mapped in place the data that was written to is taken away.
            ("cache_bytes", -datas),
            ("flash_bytes", 0),
            ("page_table_bytes", 0),
            ("stub_bytes", 0),
            ("swap_bytes", 0),
        ] {
            assert_eq!(more(column), pages, "{column} of {touched:?}");
        }
        let more = |what: &dyn Fn(&Value) -> u64| (what(&file) - what(&none.1)) / PAGE;
        assert_eq!(
            more(&|file| bytes(&file["in_place"]["touched_bytes"])),
            touched[0]
        );
        assert_eq!(more(&|file| bytes(&file["copied_bytes"])), touched[1]);
    }
}

#[test]
fn a_native_process_is_not_there_and_one_in_place_is() {
    let Some((stage, path)) = pages::stage(&[]) else {
        return;
    };
    let native = Waits::start(Command::new(&path).args(["0", "0", "0"]));
    let in_place =
        [(), ()].map(|()| Waits::start(stage.xip_run().arg(&path).args(["16", "1", "1"])));
    // All of it copied: started by xip-run, so it is there, with nothing in place.
    let copied = Waits::start(
        stage
            .xip_run()
            .arg("--copy-text")
            .arg(&path)
            .args(["0", "0", "0"]),
    );
    let machine = json(&[]);
    assert!(row(&machine, native.pid()).is_none());
    assert!(bytes(&row(&machine, copied.pid()).unwrap()["stub_bytes"]) > 64 << 12);
    let mut before = u64::MAX;
    let mut sums = std::collections::BTreeMap::<&str, u64>::new();
    for row in machine["processes"].as_array().unwrap() {
        let pss = bytes(&row["pss_bytes"]);
        assert!(pss <= before, "sorted by PSS");
        before = pss;
        for (name, value) in row.as_object().unwrap() {
            if let (Some(value), true) = (value.as_u64(), name.ends_with("_bytes")) {
                *sums.entry(name).or_default() += value;
            }
        }
    }
    for (name, sum) in sums {
        assert_eq!(machine["totals"][name], sum, "{name}");
    }
    for when in ["memory_before", "memory_after"] {
        let memory = &machine[when];
        let total = kib_line(std::process::id(), "../meminfo", "MemTotal:");
        assert_eq!(memory["total_bytes"], total);
        assert!((1..total).contains(&bytes(&memory["free_bytes"])));
        assert!((1..total).contains(&bytes(&memory["available_bytes"])));
    }

    // Both share the image's pages: once among the files.
    let files = json(&["--files"]);
    let mut files = files["files"].as_array().unwrap().iter();
    let file = files.find(|file| {
        file["file"] == path.to_str().unwrap() && file["in_place"]["touched_bytes"] != 0
    });
    let file = file.unwrap();
    assert!(bytes(&file["processes"]) >= 2);
    let touched = |pid: u32| {
        let pages = maps(pid)
            .into_iter()
            .filter(|map| map.path.ends_with("image.cramfs"));
        pages
            .map(|map| map.file_pages().count() as u64 * PAGE)
            .sum::<u64>()
    };
    assert_eq!(
        file["in_place"]["touched_bytes"],
        touched(in_place[0].pid())
    );
    assert_eq!(file["copied_bytes"], 2 * PAGE);

    // The same for people and for scripts.
    let pid = in_place[0].pid().to_string();
    let shown = text(&xip_mem(&[]).stdout);
    let line = shown
        .lines()
        .find(|line| line.split_whitespace().next() == Some(&pid))
        .unwrap();
    let kib: Vec<&str> = line.split_whitespace().collect();
    let csv = text(&xip_mem(&["--csv"]).stdout);
    let names: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
    let values = csv
        .lines()
        .find(|line| line.split(',').next() == Some(&pid))
        .unwrap();
    let values: Vec<&str> = values.split(',').collect();
    assert_eq!((names.len(), names[0], names[10]), (11, "pid", "name"));
    let row = row(&machine, in_place[0].pid()).unwrap();
    assert_eq!((values[10], kib[10]), ("pages", "pages"));
    for at in 1..10 {
        assert_eq!(values[at], row[names[at]].to_string(), "{}", names[at]);
        // What others have mapped too may have come or gone in between.
        assert_eq!(
            kib[at],
            (values[at].parse::<u64>().unwrap() >> 10).to_string(),
            "{}",
            names[at]
        );
    }
    for says in [
        "their own: anonymous + page tables + stub",
        "free RAM of the machine, before",
        "all RAM",
    ] {
        assert!(shown.contains(says), "{says} is not in\n{shown}");
    }

    let rows = text(&xip_mem(&["--csv", &pid]).stdout);
    assert!(
        rows.starts_with("pid,start,end,perms,class,program,part,"),
        "{rows}"
    );
    let is_text = |line: &&str| line.contains(",r-xp,image-cache,") && line.contains(",text,");
    assert_eq!(rows.lines().filter(is_text).count(), 1, "{rows}");
}

#[test]
fn processes_of_sessions_are_there_with_the_servers_of_their_views() {
    let Some(stage) = session::stage(&[]) else {
        return;
    };
    let session = Waiting::start(&mut session::launch(&stage, &[]), FIVE, 5);
    let machine = json(&["--files", "--sort", "name"]);
    let of_session = session::session_of(session.pid(), &[]);
    let memfds = bytes(&of_session["totals"]["session_memfd_bytes"]);
    for process in of_session["processes"].as_array().unwrap() {
        let row = row(&machine, bytes(&process["pid"]) as u32).unwrap();
        assert_eq!(row["name"], process["name"]);
        assert_eq!(row["anonymous_bytes"], process["anonymous_bytes"]);
        assert_eq!(row["page_table_bytes"], process["page_table_bytes"]);
        assert_eq!(bytes(&row["stub_bytes"]), memfds / 5);
        assert_eq!(row["cache_bytes"], session_in_place(process));
    }
    let server = &of_session["server"]["pid"];
    let servers = machine["servers"].as_array().unwrap();
    assert!(
        servers.iter().any(|one| one["pid"] == *server),
        "{servers:?}"
    );
    assert!(row(&machine, bytes(server) as u32).is_none());
    // Each of its files is one of the machine's, with why it is not in place.
    let files = machine["files"].as_array().unwrap();
    for file in of_session["files"].as_array().unwrap() {
        if file["reasons"]
            .as_array()
            .unwrap()
            .iter()
            .any(|why| why["reason"] == "host")
        {
            continue;
        }
        assert!(files.contains(file), "{file}");
    }
    let csv = text(&xip_mem(&["--files", "--csv"]).stdout);
    assert!(
        csv.lines()
            .any(|line| line.contains(&format!(",{BUSYBOX},"))),
        "{csv}"
    );
}

fn session_in_place(process: &Value) -> u64 {
    ["image_cache", "image_tmpfs"]
        .iter()
        .map(|from| bytes(&process[from]["mapped_bytes"]))
        .sum()
}

#[test]
fn it_is_watched_until_nobody_looks() {
    if !have("cat") {
        return;
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_xip-mem"))
        .args(["--json", "--watch", "0.02"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let line = lines.next().unwrap().unwrap();
        let machine: Value = serde_json::from_str(&line).unwrap();
        assert!(machine["processes"].is_array());
    }
    drop(lines);
    let status = child.wait().unwrap();
    assert!(
        matches!(status.code(), Some(0) | None),
        "{status}: by SIGPIPE at most"
    );

    // A process that is watched ends: so does the watch.
    let mut watched = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_xip-mem"))
        .args([&watched.id().to_string(), "--watch", "0.02"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 64];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut first)
        .unwrap();
    drop(watched.stdin.take());
    watched.wait().unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(125), "{}", text(&out.stderr));
}

#[test]
fn free_memory_is_read_of_old_and_new_kernels() {
    let captured = |name: &str| {
        std::fs::read(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/captured")
                .join(name),
        )
        .unwrap()
    };
    let meminfo = captured("meminfo-6.18-x86_64");
    let now = memory::parse(&meminfo, &captured("zoneinfo-6.18-x86_64"), PAGE);
    let field = |name: &str| {
        let meminfo = text(&meminfo);
        let line = meminfo
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
            .to_owned();
        line.split_whitespace()
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            << 10
    };
    assert_eq!(now.total_bytes, field("MemTotal:"));
    assert_eq!(now.available_bytes, field("MemAvailable:"));
    // In this kernel's lists are some MiB.
    let listed = now.free_bytes - field("MemFree:");
    assert!((1 << 20..256 << 20).contains(&listed), "{listed}");
    // Linux 4.4: no boost, counts with many spaces.
    let old = memory::parse(
        b"MemTotal: 8 kB\nMemFree: 4 kB\n",
        &captured("zoneinfo-4.4-armv7"),
        PAGE,
    );
    assert_eq!(old.free_bytes, (4 << 10) + (12 + 171) * PAGE);
    assert_eq!((old.total_bytes, old.available_bytes), (8 << 10, 0));
    // Not everybody may read zoneinfo.
    assert_eq!(
        memory::parse(b"MemFree: 4 kB\n", b"", PAGE).free_bytes,
        4 << 10
    );
    for end in 0..meminfo.len() {
        memory::parse(&meminfo[..end], &meminfo[end..], PAGE);
    }
}
