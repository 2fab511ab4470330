//! Plans of real programs, in images by the reference tool: nothing in them is laid out for running in place, so that
//! every page of the file is copied, with its reason, and the proof must hold all the same.

use std::fs;
use std::path::Path;
use std::process::Command;

use xip_run::cramfs::Image;
use xip_run::elf::{ElfFile, ElfKind, Machine};
use xip_run::error::Kind;
use xip_run::plan::{LaunchPlan, PlanOptions, Source, Start};
use xip_run::units::PageSize;

/// Reports why a test cannot run; in CI that is a failure.
fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "cannot run in CI: {why}");
    println!("skipped: {why}");
}

/// An image by `mkfs.cramfs` of a tree with these files; `None` if there is no such tool.
fn image_of(files: &[(&str, &Path)]) -> Option<Image> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    for (name, from) in files {
        let to = root.join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, &to).unwrap();
    }
    let out = dir.path().join("image");
    let made = Command::new("mkfs.cramfs")
        .arg(&root)
        .arg(&out)
        .output()
        .ok()?;
    assert!(made.status.success(), "{made:?}");
    Some(Image::open(fs::read(&out).unwrap()).unwrap())
}

fn options() -> PlanOptions {
    PlanOptions {
        machine: Some(Machine::HOST),
        ..PlanOptions::new(PageSize::of_running_kernel().unwrap())
    }
}

#[test]
fn static_busybox_from_a_compressed_image() {
    let busybox = Path::new("/bin/busybox");
    if !busybox.exists() {
        return skip("no /bin/busybox");
    }
    let Some(image) = image_of(&[("bin/busybox", busybox)]) else {
        return skip("no mkfs.cramfs");
    };
    let plan = LaunchPlan::new(&image, b"bin/busybox", &options()).unwrap();
    plan.verify(&image).unwrap();
    let copied: u64 = plan
        .program
        .mappings
        .iter()
        .filter(|mapping| matches!(mapping.source, Source::Copied { .. }))
        .map(|mapping| mapping.pages.len_bytes())
        .sum();
    let totals = plan.totals();
    assert_eq!(totals.in_place_bytes + totals.copy_on_write_bytes, 0);
    assert_eq!(totals.upfront_ram_bytes, copied);
    assert!(copied > 1 << 20);
    let text = plan.explain(Start::Alone).to_string();
    println!("{text}");
    assert!(text.contains("compressed: compressed in the image"));
}

#[test]
fn a_dynamic_program_and_its_interpreter() {
    let Some((program, interp)) = ["/bin/ls", "/usr/bin/env", "/bin/sh"]
        .map(Path::new)
        .into_iter()
        .find_map(|path| {
            let elf = ElfFile::parse(&fs::read(path).ok()?).ok()?;
            Some((path, elf.interp?))
        })
    else {
        return skip("no dynamic program in /bin");
    };
    let interp = String::from_utf8(interp).unwrap();
    let in_image = interp.trim_start_matches('/');
    let Some(image) = image_of(&[("program", program), (in_image, Path::new(&interp))]) else {
        return skip("no mkfs.cramfs");
    };
    let plan = LaunchPlan::new(&image, b"/program", &options()).unwrap();
    plan.verify(&image).unwrap();
    println!("{}", plan.explain(Start::Alone));
    let planned = plan.interp.as_ref().unwrap();
    assert_eq!(planned.path, interp.as_bytes());
    assert_eq!(planned.kind, ElfKind::Relocatable);

    let Some(alone) = image_of(&[("program", program)]) else {
        return skip("no mkfs.cramfs");
    };
    let err = LaunchPlan::new(&alone, b"/program", &options()).unwrap_err();
    assert_eq!(err.kind(), Kind::NotFound);
    assert!(err.to_string().contains(&interp), "{err}");
}
