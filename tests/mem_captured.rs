//! xip-mem: what the kernel says of a process is parsed whatever it is, named honestly and added up to the page.
//!
//! tests/captured has texts of the kernels that their names tell: 6.18 was captured as it is; the others were written
//! after what those kernels showed for the same mappings (lines by `fs/proc/task_mmu.c` of each version).

use std::path::{Path, PathBuf};

use xip_run::report::mountinfo::RootMount;
use xip_run::report::pagemap::{PageRun, PageState};
use xip_run::report::session::{Memfd, Seen, SeenMapping, Server, Session, Surroundings};
use xip_run::report::{Class, MappedFile, Part, Report, Subject, classify, smaps, status};
use xip_run::units::PageSize;

const PAGE: u64 = 4096;

fn in_tests(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(path)
}

fn captured(name: &str) -> Vec<u8> {
    std::fs::read(in_tests("captured").join(name)).unwrap()
}

fn report_of(name: &str, kernel: (u32, u32), file: Option<&MappedFile>) -> Report {
    let status = in_tests("captured").join(format!("status-{name}"));
    let subject = Subject {
        pid: 101,
        status: status::parse(&std::fs::read(status).unwrap_or_default()),
        kernel,
        session_memfd: None,
    };
    let mappings = smaps::parse(&captured(&format!("smaps-{name}"))).unwrap();
    Report::new(subject, &mappings, |_| file)
}

#[test]
fn smaps_of_6_18_is_read_field_by_field() {
    let mappings = smaps::parse(&captured("smaps-6.18-x86_64-busybox")).unwrap();
    let status = status::parse(&captured("status-6.18-x86_64-busybox"));
    assert_eq!(mappings.len(), 12);
    let text = &mappings[1];
    assert_eq!((text.start, text.end), (0x401000, 0x585000));
    assert_eq!(
        (text.prot.to_string().as_str(), text.shared),
        ("r-x", false)
    );
    assert_eq!((text.offset_bytes, text.device.0), (0x1000, 0xfe));
    assert_eq!(text.path, b"/usr/bin/busybox");
    assert!(text.has_flag(b"ex") && !text.has_flag(b"pf") && !text.deleted);
    assert_eq!(text.size_bytes(), 1552 * 1024);
    assert_eq!(mappings[11].start, 0xffff_ffff_ff60_0000);
    let anonymous: u64 = mappings.iter().map(|mapping| mapping.anonymous_bytes).sum();
    assert_eq!(Some(anonymous), status.rss_anon_bytes);
    assert_eq!(status.name, "busybox");
    assert_eq!(status.rss_shmem_bytes, Some(0));
}

#[test]
fn a_cut_or_odd_smaps_is_an_error_or_a_result_but_never_a_panic() {
    for entry in std::fs::read_dir(in_tests("captured")).unwrap() {
        let mut text = std::fs::read(entry.unwrap().path()).unwrap();
        for end in (0..text.len()).step_by(5) {
            let _ = smaps::parse(&text[..end]);
            let _ = status::parse(&text[..end]);
        }
        for at in (0..text.len()).step_by(17) {
            let kept = text[at];
            for odd in [b'\n', b' ', b'-', b':', b'9', b'f', 0, 0xff] {
                text[at] = odd;
                let _ = smaps::parse(&text);
            }
            text[at] = kept;
        }
    }
    assert_eq!(smaps::parse(b"").unwrap(), []);
    for (odd, says) in [
        (
            &b"00400000-00401000 r--p 00000000 fe:00 1 /x\nSize: 4 kB\n"[..],
            "has no Rss",
        ),
        (b"Rss: 4 kB\n", "line 1"),
        (b"00401000-00400000 r--p 00000000 fe:00 1 /x\n", "line 1"),
        (
            b"00400000-00401000 r--p 00000000 fe:00 1 /x\nRss:   99999999999999999999 kB\n",
            "line 2",
        ),
        (
            b"00400000-00401000 r--p 00000000 fe:00 1 /x\nRss:     18446744073709551615 kB\n",
            "line 2",
        ),
        (
            b"00400000-00401000 r--p 00000000 fe:00 1 /x\nRss:                10",
            "line 2",
        ),
    ] {
        let err = smaps::parse(odd).unwrap_err().to_string();
        assert!(err.contains(says), "{err}");
    }
}

#[test]
fn names_and_fields_of_every_kind_are_read_and_classified() {
    let report = report_of("4.4-x86_64-names", (4, 4), None);
    let seen: Vec<(&str, Class, Part)> = report
        .rows
        .iter()
        .map(|row| (row.path.as_str(), row.class, row.part))
        .collect();
    assert_eq!(
        seen,
        [
            (
                "/opt/a program (deleted) of mine",
                Class::FileCache,
                Part::Text
            ),
            ("/SYSV00000000", Class::SharedMemory, Part::Data),
            ("/dev/zero", Class::SharedMemory, Part::Data),
            ("/opt/new\\nline", Class::FileCache, Part::Rodata),
            ("/lib/libc-2.23.so", Class::FileCache, Part::Guard),
            ("/memfd:jit cache", Class::SharedMemory, Part::Text),
            ("anon_inode:[io_uring]", Class::Device, Part::Data),
            ("[stack:1234]", Class::Anonymous, Part::Stack),
            ("[anon:malloc of it]", Class::Anonymous, Part::Anonymous),
        ]
    );
}

#[test]
fn flash_with_rss_0_counts_as_mapped_in_place() {
    let report = report_of("6.12-x86_64-devmem", (6, 12), None);
    let totals = report.totals;
    // text and rodata whole; relro less two copied pages; data wholly copied
    assert_eq!(totals.flash_bytes, (4 + 1552 + 344 + 28 - 8) << 10);
    assert_eq!(
        totals.image_cache.mapped_bytes, 0,
        "flash is not page cache"
    );
    assert_eq!(totals.anonymous_bytes, 52 << 10);
    assert_eq!(totals.page_table_bytes, 40 << 10);
    assert_eq!(totals.ram_alone_bytes, 92 << 10);
    assert_eq!(
        (totals.stub.resident_bytes, totals.stub.share_bytes),
        (8 << 10, 4 << 10)
    );
    assert_eq!(totals.ram_with_share_bytes, 96 << 10);
    let relro = &report.rows[3];
    assert_eq!((relro.class, relro.part), (Class::Flash, Part::Relro));
    assert_eq!(
        (relro.counts.in_place_bytes, relro.counts.anonymous_bytes),
        (20 << 10, 8 << 10)
    );
    assert_eq!(relro.program.as_deref(), Some("/dev/mem@0x103da000"));
    assert_eq!(report.rows[5].class, Class::CopiedPages);
    let text = String::from_utf8(captured("smaps-6.12-x86_64-devmem")).unwrap();
    let executable = text.replace("rw-p 00030000", "r-xp 00030000");
    let mapping = &smaps::parse(executable.as_bytes()).unwrap()[5];
    assert_eq!(
        classify(mapping, None),
        Class::CopiedPages,
        "text too can be copied"
    );
    assert_eq!(
        (report.rows[6].part, report.rows[6].program.is_some()),
        (Part::Bss, true)
    );
    let device = report.rows.iter().find(|row| row.perms == "rw-s").unwrap();
    assert_eq!(
        (device.class, device.counts.in_place_bytes),
        (Class::Device, 0)
    );
    let text = report.to_string();
    assert!(
        text.contains("RAM this process costs by itself: 92 KiB (anonymous + page tables)"),
        "{text}"
    );
}

#[test]
fn copies_that_old_kernels_hide_are_counted_by_rss_anon() {
    let old = report_of("6.1-armv7-devmem", (6, 1), None);
    assert_eq!(old.totals.anonymous_bytes, 44 << 10);
    assert_eq!(
        old.totals.flash_bytes,
        (0x10f << 12) + (7 << 12) - (20 << 10)
    );
    assert_eq!(old.totals.ram_alone_bytes, 56 << 10);
    assert!(old.notes[0].contains("20 KiB more"), "{:?}", old.notes);
    let new = report_of("6.1-armv7-devmem", (6, 2), None);
    assert_eq!(
        new.totals.anonymous_bytes,
        24 << 10,
        "RssAnon is approximate: not used where smaps knows"
    );
    assert!(new.notes.is_empty());
}

#[test]
fn dax_is_flash_and_costs_nothing_even_where_rss_counts_it() {
    let dax = MappedFile {
        dax: true,
        ..MappedFile::default()
    };
    let report = report_of("6.12-arm64-dax", (6, 12), Some(&dax));
    assert_eq!(report.totals.flash_bytes, 0x15f << 12);
    assert_eq!(report.totals.anonymous_bytes, 24 << 10);
    // Linux 6.15 and later
    let counted = String::from_utf8(captured("smaps-6.12-arm64-dax")).unwrap();
    let counted = counted.replacen(
        "Rss:                   0 kB",
        "Rss:                 900 kB",
        1,
    );
    let mappings = smaps::parse(counted.as_bytes()).unwrap();
    assert_eq!(mappings[0].rss_bytes, 900 << 10);
    let report = Report::new(Subject::default(), &mappings, |_| Some(&dax));
    assert_eq!(report.totals.flash_bytes, 0x15f << 12);
    assert_eq!(report.totals.ram_with_share_bytes, 24 << 10);
}

/// A process that runs from flash that is mapped by its physical pages, with everything touched.
fn process_in_flash(pid: u32) -> Seen {
    let mappings = smaps::parse(&captured("smaps-6.12-x86_64-devmem")).unwrap();
    let mut subject = Subject {
        pid,
        kernel: (6, 12),
        ..Subject::default()
    };
    subject.status.page_table_bytes = Some(40 << 10);
    let report = Report::new(subject, &mappings, |_| None);
    let seen = |mapping: smaps::Mapping| {
        let copied = mapping.anonymous_bytes / PAGE;
        let pages = mapping.size_bytes() / PAGE;
        let run = |pages, state| PageRun { pages, state };
        let runs = [
            run(pages - copied, PageState::Touched),
            run(copied, PageState::Copied),
        ];
        SeenMapping {
            file: None,
            runs: runs.into_iter().filter(|run| run.pages > 0).collect(),
            mapping,
        }
    };
    Seen {
        report,
        mappings: mappings.into_iter().map(seen).collect(),
        anonymous_share_bytes: Some(50 << 10),
    }
}

#[test]
fn a_session_in_flash_has_it_once_and_it_is_no_ram() {
    let around = Surroundings {
        pid: 7,
        view: RootMount {
            device: (0, 39),
            file_system: "fuse.cramfs".to_owned(),
            source: "xip-view:9".to_owned(),
        },
        image_path: None,
        image: None,
        server: Some(Server {
            pid: 9,
            anonymous_bytes: 256 << 10,
            page_table_bytes: 64 << 10,
            page_cache_bytes: 500 << 10,
        }),
        memfds: vec![Memfd {
            name: "xip-run:/bin/busybox".to_owned(),
            allocated_bytes: 16 << 10,
            processes: 2,
        }],
        notes: Vec::new(),
    };
    let seen = [process_in_flash(8), process_in_flash(7)];
    let session = Session::new(around, &seen, PageSize::K4);
    let pids: Vec<u32> = session.processes.iter().map(|one| one.pid).collect();
    assert_eq!(pids, [7, 8]);
    // Text and rodata whole, relro less two copied pages, data wholly copied. A page of it is mapped
    // twice, as the last one of rodata and the first one of relro.
    let flash = (4 + 1552 + 344 + 28 - 8) << 10;
    for process in &session.processes {
        assert_eq!(process.sources.flash.mapped_bytes, flash);
        assert_eq!(process.sources.flash.touched_bytes, flash);
        assert_eq!(process.anonymous_bytes, 52 << 10);
    }
    let totals = session.totals;
    assert_eq!(totals.sources.flash.mapped_bytes, flash - PAGE);
    assert_eq!(totals.anonymous_bytes, 100 << 10);
    assert_eq!(totals.page_table_bytes, 80 << 10);
    assert_eq!(totals.server_bytes, 320 << 10);
    assert_eq!(totals.ram_alone_bytes, (100 + 80 + 16 + 320) << 10);
    // Flash is no RAM, and copied pages are in the memfd.
    assert_eq!(
        totals.ram_with_cache_bytes,
        totals.ram_alone_bytes + (500 << 10)
    );
    let flash_row = session
        .files
        .iter()
        .find(|file| file.file == "/dev/mem")
        .unwrap();
    assert_eq!(
        (flash_row.processes, flash_row.in_place.mapped_bytes),
        (2, flash - PAGE)
    );
    let rows = seen.iter().flat_map(|one| &one.report.rows);
    let copied = rows.filter(|row| row.path == "/dev/mem");
    let copied: u64 = copied.map(|row| row.counts.anonymous_bytes).sum();
    assert_eq!((flash_row.copied_bytes, copied > 0), (copied, true));
    let printed = session.to_string();
    let line = format!(
        "{:43} {:>9} KiB",
        "in place, flash: mapped",
        (flash - PAGE) >> 10
    );
    assert!(printed.contains(&line), "{printed}");
    assert!(printed.contains("root an unknown image"), "{printed}");
}
#[test]
fn names_are_safe_to_print() {
    let text = String::from_utf8(captured("smaps-4.4-x86_64-names")).unwrap();
    let text = text.replace("jit cache", "\u{1b}[31mred\u{7}");
    let mappings = smaps::parse(text.as_bytes()).unwrap();
    let report = Report::new(Subject::default(), &mappings, |_| None);
    let text = report.to_string();
    assert!(
        text.chars().all(|c| c == '\n' || !c.is_control()),
        "{text:?}"
    );
}
