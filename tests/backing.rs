//! What holds an image: a part of a file, as flash is of physical memory, is used like a file of its own; what holds none is
//! refused with the way out. Real flash is for the rigs.

mod common {
    pub mod launch;
    pub mod mounted;
    pub mod session;
}

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::launch::{Stage, XIP_RUN, busybox_stage, run, text};
use common::mounted::can_mount;
use common::session::{BUSYBOX, PAGE, Waiting, maps, xip_mem};
use xip_run::backing::{Attribute, Backing, Kind, NoCow};
use xip_run::cramfs::Image;
use xip_run::index::FileIndex;
use xip_run::plan::{LaunchPlan, PlanOptions, Start};
use xip_run::units::PageSize;

/// Where the image is in the file, and what is around it.
const AT: u64 = 5 * PAGE;
const JUNK: u8 = 0xcc;

/// A stage whose image is in the middle of another file.
struct Flash {
    stage: Stage,
    file: PathBuf,
    len: u64,
}

impl Flash {
    fn new() -> Option<Self> {
        let stage = busybox_stage()?;
        for dir in ["proc", "dev", "tmp"] {
            fs::create_dir(stage.in_root(Path::new(dir))).unwrap();
        }
        stage.build::<&str>(&[]);
        let image = fs::read(stage.image()).unwrap();
        let mut bytes = vec![JUNK; AT as usize];
        bytes.extend(&image);
        bytes.resize(bytes.len() + 3 * PAGE as usize, JUNK);
        let file = stage.path().join("flash");
        fs::write(&file, bytes).unwrap();
        let len = image.len() as u64;
        Some(Self { stage, file, len })
    }

    fn spec(&self, part: &str) -> String {
        format!("{}@{part}", self.file.display())
    }

    fn image(&self) -> String {
        self.spec(&format!("{AT:#x}+{:#x}", self.len))
    }
}

fn xip_run(spec: &str, args: &[&str]) -> Output {
    let mut command = Command::new(XIP_RUN);
    command.env_remove("XIP_IMAGE").args(["--image", spec]);
    run(command.args(args), b"")
}

#[test]
fn a_part_of_a_file_is_run_in_place_from_there() {
    let Some(flash) = Flash::new() else { return };
    let before = fs::read(&flash.file).unwrap();
    let page = PageSize::of_running_kernel().unwrap();
    let image = Image::open(Backing::open(&flash.stage.image()).unwrap()).unwrap();
    let inode = image.resolve(BUSYBOX.as_bytes(), true).unwrap().inode;
    let index = FileIndex::new(&image, &inode, page).unwrap();
    let first = index.page(0).unwrap().0;
    let ways: &[&[&str]] = match can_mount() {
        true => &[&["--no-root"], &[]],
        false => &[&["--no-root"]],
    };
    for options in ways {
        let mut command = Command::new(XIP_RUN);
        command.env_remove("XIP_IMAGE").current_dir("/");
        command.args(["--image", &flash.image()]).args(*options);
        let shell = Waiting::start(command.args([BUSYBOX, "sh"]), "a=$(echo x)$a;", 1);
        let maps = maps(shell.pid());
        let path = flash.file.to_str().unwrap();
        let mapped: Vec<_> = maps.iter().filter(|map| map.path == path).collect();
        assert_eq!(mapped[0].offset, AT + first, "{maps:#?}");
        for map in &mapped {
            let end = map.offset + (map.end - map.start);
            assert!(AT <= map.offset && end <= AT + flash.len, "{map:?}");
        }
        assert!(mapped.iter().any(|map| map.perms == "r-xp"), "{maps:#?}");
        let data = mapped.iter().find(|map| map.perms == "rw-p").unwrap();
        assert!(data.anonymous > 0, "{data:?}");

        let pid = shell.pid().to_string();
        let measured = xip_mem(&["--json", &pid]);
        let measured: serde_json::Value = serde_json::from_slice(&measured.stdout).unwrap();
        let rows = measured[0]["rows"].as_array().unwrap();
        let text_row = rows.iter().find(|row| row["part"] == "text").unwrap();
        assert_eq!(text_row["program"], BUSYBOX, "{measured:#}");
        assert_eq!(text_row["class"], "image-cache", "{measured:#}");
        if options.is_empty() {
            for named in [
                &["--session", &pid][..],
                &["--session", "--image", &flash.image(), &pid],
            ] {
                let said = text(&xip_mem(named).stdout);
                assert!(said.contains(&format!("root {path} (")), "{said}");
                assert!(said.contains(" /bin/busybox\n"), "{said}");
                assert!(
                    !said.contains("not named") && !said.contains("not looked up"),
                    "{said}"
                );
            }
        }
    }
    assert_eq!(fs::read(&flash.file).unwrap(), before);
}

#[test]
fn a_part_that_holds_no_image_or_cannot_be_mapped_is_refused() {
    let Some(flash) = Flash::new() else { return };
    let all = AT + flash.len + 3 * PAGE;
    for (part, code, says) in [
        (
            "0x0".to_owned(),
            125,
            "no cramfs superblock at byte 0 or 512",
        ),
        (
            format!("{AT:#x}+4096"),
            125,
            "truncated: the superblock says",
        ),
        (
            format!("{all}"),
            125,
            "the part asked for is not in it: it has",
        ),
        (
            format!("0+{}", all + 1),
            125,
            "the part asked for is not in it: it has",
        ),
        ("map0".to_owned(), 125, "only UIO devices have maps"),
        (
            "nonsense".to_owned(),
            125,
            "neither ADDRESS[+SIZE], as in /dev/mem@0x04000000+16M",
        ),
    ] {
        let spec = flash.spec(&part);
        let out = xip_run(&spec, &["--no-root", BUSYBOX, "true"]);
        let err = text(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{spec}: {err}");
        assert!(err.contains(says) && err.contains(&spec), "{spec}: {err}");
    }

    // Not on a page boundary: it can be read, but not run from.
    let mut bytes = fs::read(&flash.file).unwrap();
    bytes.drain(..100);
    fs::write(&flash.file, bytes).unwrap();
    let spec = flash.spec(&(AT - 100).to_string());
    let xip_image = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xip-image"));
        run(command.args(args), b"")
    };
    let shown = xip_image(&["ls", &spec, "/bin"]);
    assert_eq!(
        text(&shown.stdout),
        "/bin/busybox\n",
        "{}",
        text(&shown.stderr)
    );
    for options in [&["--no-root"][..], &["--no-root", "--copy-text"]] {
        let out = xip_run(&spec, &[options, &[BUSYBOX, "true"]].concat());
        let err = text(&out.stderr);
        assert_eq!(out.status.code(), Some(126), "{err}");
        assert!(
            err.contains("which is no multiple of the page size"),
            "{err}"
        );
    }
}

#[test]
fn tools_read_a_part_of_a_file_like_a_file() {
    let Some(flash) = Flash::new() else { return };
    let image = flash.stage.image();
    let image = image.to_str().unwrap();
    let xip_image = |command: &str, spec: &str, rest: &[&str]| {
        let mut run_it = Command::new(env!("CARGO_BIN_EXE_xip-image"));
        run(run_it.args([command, spec]).args(rest), b"")
    };
    for (command, rest) in [
        ("info", &[][..]),
        ("map", &[]),
        ("check", &[]),
        ("ls", &["-lR"]),
        ("cat", &[BUSYBOX]),
    ] {
        let of_file = xip_image(command, image, rest);
        let of_part = xip_image(command, &flash.image(), rest);
        assert!(of_file.status.success() && of_part.status.success());
        assert!(of_part.stdout == of_file.stdout, "{command}");
    }
    let to = flash.stage.path().join("extracted");
    let extracted = xip_image("extract", &flash.image(), &[to.to_str().unwrap()]);
    assert!(extracted.status.success(), "{}", text(&extracted.stderr));
    let busybox = flash.stage.in_root(Path::new(BUSYBOX));
    assert!(fs::read(to.join("bin/busybox")).unwrap() == fs::read(busybox).unwrap());
}

#[test]
fn what_holds_no_image_is_named_with_the_way_out() {
    for (spec, says) in [
        (
            "/dev/zero",
            "not a regular file, nor a device whose memory can be mapped",
        ),
        ("/dev/mem@junk", "as in /dev/mem@0x04000000+16M"),
        ("mtd:no such name", "no such MTD device; "),
        ("mtd:", "mtd:rootfs or mtd:3"),
        (
            "/no/such/device@0x1000+16M",
            "/no/such/device@0x1000+16M: open: No such file",
        ),
        (
            "/dev/no-such",
            "is /dev mounted, and the device's driver there?",
        ),
        ("/", "not a regular file and no device"),
    ] {
        for args in [&["--no-root", BUSYBOX, "true"][..], &["--probe"]] {
            let out = xip_run(spec, args);
            let err = text(&out.stderr);
            assert_eq!(out.status.code(), Some(125), "{spec}: {err}");
            assert!(err.contains(says) && err.contains(spec), "{spec}: {err}");
        }
    }
}

#[test]
fn what_a_file_can_do_is_tried() {
    let Some(flash) = Flash::new() else { return };
    let backing = Backing::open(flash.image().as_ref()).unwrap();
    assert_eq!(backing.kind(), Kind::File);
    assert_eq!(
        (backing.window().at, backing.window().len_bytes),
        (AT, flash.len)
    );
    backing.require_executable().unwrap();
    assert_eq!(backing.data(), Ok(()));
    // As --probe does, in a process of one thread.
    let out = xip_run(&flash.image(), &["--probe", "--json"]);
    let probe: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let image = &probe["image"];
    assert_eq!(image["kind"], "file");
    assert_eq!(image["offset"], AT);
    assert_eq!(image["size_bytes"], flash.len);
    assert_eq!(image["executable"], true);
    assert_eq!(image["attribute"], "cached");
    assert_eq!(image["data_from"], "copy-on-write");
    for ability in image["abilities"].as_array().unwrap() {
        // But anybody can write to it.
        let expected = ability["name"] != "pinned";
        assert_eq!(ability["available"], expected, "{ability:#}");
    }
    assert_eq!(backing.memory_type().attribute, Attribute::Cached);
}

/// What cannot be copied on write is copied, and the plan says why.
#[test]
fn a_plan_says_why_data_is_not_the_image() {
    let Some(flash) = Flash::new() else { return };
    let image = Image::open(Backing::open(flash.image().as_ref()).unwrap()).unwrap();
    for (why, name) in [
        (NoCow::Uncached, "uncached"),
        (NoCow::SharedOnly, "shared-only"),
        (NoCow::CannotFork, "cannot-fork"),
        (NoCow::Refused, "cannot-cow"),
    ] {
        let options = PlanOptions {
            cow: Err(why),
            ..PlanOptions::new(PageSize::K4)
        };
        let plan = LaunchPlan::new(&image, BUSYBOX.as_bytes(), &options).unwrap();
        plan.verify(&image).unwrap();
        let said = plan.explain(Start::Alone).to_string();
        assert!(said.contains(&format!("  {name}\n")), "{said}");
        assert!(
            said.contains(&format!("{name}: {}", why.explain())),
            "{said}"
        );
        assert_eq!(plan.totals().copy_on_write_bytes, 0);
    }
}

/// Descriptors that the caller has open are the caller's: a script that reads lines of one goes on where it was.
#[test]
fn the_probe_reads_nothing_of_the_callers() {
    let dir = tempfile::tempdir().unwrap();
    let lines = dir.path().join("lines");
    fs::write(&lines, "one\ntwo\n").unwrap();
    let script = r#"exec 3<"$1"; read -r one <&3; "$0" --probe >/dev/null; cat <&3"#;
    let output = Command::new("sh")
        .args(["-c", script, XIP_RUN])
        .arg(&lines)
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "two\n");
}
