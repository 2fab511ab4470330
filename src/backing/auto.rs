//! `auto`: finds the image by what the board says, else by looking at its flash.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::mtd::Mtd;
use super::spec::{Part, Spec};
use super::superblock;
use super::system::{DeviceTree, System, names, number};
use crate::config::Config;
use crate::error::{Error, Result};

/// The image's place, and how it was found.
///
/// # Errors
/// [`Kind::Failed`](crate::error::Kind) with everything that was looked at.
pub(super) fn find(system: &System) -> Result<(Spec, String)> {
    let is_file = |path: &Path| system.path(&path.to_string_lossy()).is_file();
    let cmdline = system.text("/proc/cmdline").unwrap_or_default();
    let of_kernel = Config::parse_cmdline(&cmdline).image;
    if let Some(text) = of_kernel.filter(|text| text != "auto") {
        let spec = Spec::parse(text.as_ref(), is_file)?;
        return Ok((spec, format!("xip.image={text} on the kernel command line")));
    }
    let of_tree = DeviceTree::of(system).and_then(|tree| tree.chosen_image());
    if let Some(text) = of_tree.filter(|text| text != "auto") {
        let spec = Spec::parse(&text, is_file)?;
        let why = format!(
            "xip,image = {:?} in the device tree",
            text.display().to_string()
        );
        return Ok((spec, why));
    }
    let mut seen = Vec::new();
    if let Some(found) = scan_mtd(system, &mut seen).or_else(|| scan_pmem(system, &mut seen)) {
        return Ok(found);
    }
    let seen = match seen.is_empty() {
        true => "no MTD or pmem device is there".to_owned(),
        false => format!("no cramfs image is in {}", seen.join(", ")),
    };
    Err(Error::failed(format!(
        "auto: no image found: xip.image= is not on the kernel command line, /chosen has no xip,image in the device tree, and \
         {seen}; name it: --image /dev/mem@ADDRESS"
    )))
}

/// Has a device a superblock at its start? `None` if it cannot be read.
fn has_image(device: &Path) -> Option<bool> {
    let mut head = [0; superblock::HEAD_BYTES];
    File::open(device).ok()?.read_exact_at(&mut head, 0).ok()?;
    Some(superblock::find(&head).is_some())
}

fn scan_mtd(system: &System, seen: &mut Vec<String>) -> Option<(Spec, String)> {
    for mtd in Mtd::all(system) {
        let shown = format!("mtd{} {:?}", mtd.number, mtd.name);
        if !mtd.may_be_mapped() {
            seen.push(format!("{shown} (not memory mapped)"));
            continue;
        }
        let device = system.path(&format!("/dev/mtd{}ro", mtd.number));
        match has_image(&device) {
            Some(true) => {
                return Some((
                    Spec::Mtd(mtd.number.to_string()),
                    format!("found in {shown}"),
                ));
            }
            Some(false) => seen.push(shown),
            None => seen.push(format!("{shown} (/dev/mtd{}ro cannot be read)", mtd.number)),
        }
    }
    None
}

/// Persistent memory: its bytes can be had through /dev/mem, if the driver lets them.
fn scan_pmem(system: &System, seen: &mut Vec<String>) -> Option<(Spec, String)> {
    for name in names(&system.path("/sys/class/block")) {
        let digits =
            |number: &str| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        if !name.strip_prefix("pmem").is_some_and(digits) {
            continue;
        }
        let found = has_image(&system.path(&format!("/dev/{name}")));
        let device = system.path(&format!("/sys/class/block/{name}/device"));
        let window = number(&device.join("resource")).zip(number(&device.join("size")));
        match (found, window) {
            (Some(true), Some((at, len))) => {
                let part = Some(Part::Bytes {
                    at,
                    len_bytes: Some(len),
                });
                let path = "/dev/mem".into();
                let why =
                    format!("found in /dev/{name} (which, named itself, runs from the page cache)");
                return Some((Spec::Path { path, part }, why));
            }
            (Some(true), None) => {
                seen.push(format!("{name} (has one, but its address is not told)"));
            }
            (Some(false), _) => seen.push(name),
            (None, _) => seen.push(format!("{name} (cannot be read)")),
        }
    }
    None
}
