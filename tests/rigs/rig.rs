//! What a rig is: the lines `Key: value` of tests/rigs/NAME.rig.
//!
//! | key | value |
//! |---|---|
//! | Arch | `x86_64`, `armv7`, `aarch64` |
//! | Kernel | a package of Debian's that depends on the kernel, and the suite that it is from |
//! | Modules | what the kernel loads, in this order; what it has built in is passed over |
//! | Append | of the kernel's command line |
//! | Qemu | arguments; `{flash}` is the file that is the flash bank |
//! | Node, Property | a node that the device tree gets, and its properties as fdtput(1) has them |
//! | Flash | what is in the bank: `cramfs` or `ext4` (with the image in it), its size, and the bank's, if it is larger |
//! | Window | the physical address where the bank's first bytes are to be found |
//! | Mount | the device that the ext4 of the flash is on, mounted with DAX at /flash |
//! | Image | what xip-mem calls its pages (`flash`, `page cache`, `tmpfs`), and what `xip-run --image` is given; may be repeated |
#![allow(
    dead_code,
    unreachable_pub,
    reason = "tests/rigs.rs is a crate of its own"
)]

use std::fs;
use std::path::{Path, PathBuf};

use super::release::{self, Target};

/// An architecture, by its names.
pub struct Arch {
    pub name: &'static str,
    /// Debian's.
    pub debian: &'static str,
    pub target: Target,
    pub qemu: &'static str,
    pub console: &'static str,
}

const ARCHES: [Arch; 3] = [
    Arch {
        name: "x86_64",
        debian: "amd64",
        target: release::X86_64,
        qemu: "qemu-system-x86_64",
        console: "ttyS0",
    },
    Arch {
        name: "armv7",
        debian: "armhf",
        target: release::ARMV7,
        qemu: "qemu-system-arm",
        console: "ttyAMA0",
    },
    Arch {
        name: "aarch64",
        debian: "arm64",
        target: release::AARCH64,
        qemu: "qemu-system-aarch64",
        console: "ttyAMA0",
    },
];

/// What is in the flash bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    Cramfs,
    Ext4,
}

/// A description.
pub struct Rig {
    pub name: String,
    pub arch: &'static Arch,
    pub kernel_suite: String,
    pub modules: String,
    pub append: String,
    pub qemu: Vec<String>,
    pub node: Option<String>,
    /// Type, name and values.
    pub properties: Vec<Vec<String>>,
    pub content: Content,
    pub content_bytes: u64,
    pub bank_bytes: u64,
    pub window: Option<String>,
    pub mount: Option<String>,
    /// The class of its pages, and what `--image` is given.
    pub images: Vec<(String, String)>,
}

/// Where the descriptions are.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rigs")
}

/// The names of all, sorted.
pub fn names() -> Vec<String> {
    let entries = fs::read_dir(directory()).unwrap();
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let is_rig = path.extension().is_some_and(|extension| extension == "rig");
            is_rig.then(|| path.file_stem().unwrap().to_str().unwrap().to_owned())
        })
        .collect();
    names.sort();
    names
}

impl Rig {
    /// Reads the description; panics if it is not one.
    pub fn read(name: &str) -> Self {
        let text = fs::read_to_string(directory().join(format!("{name}.rig"))).unwrap();
        let lines: Vec<(&str, &str)> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                line.split_once(": ")
                    .unwrap_or_else(|| panic!("{name}: {line}"))
            })
            .collect();
        let known = [
            "Arch", "Kernel", "Modules", "Append", "Qemu", "Node", "Property", "Flash", "Window",
            "Mount", "Image",
        ];
        if let Some((key, _)) = lines.iter().find(|(key, _)| !known.contains(key)) {
            panic!("{name}: unknown key {key}");
        }
        let all = |wanted: &str| -> Vec<&str> {
            let of_key = lines.iter().filter(|(key, _)| *key == wanted);
            of_key.map(|(_, value)| value.trim()).collect()
        };
        let optional = |key: &str| -> Option<&str> {
            let values = all(key);
            assert!(values.len() < 2, "{name}: {key} is there twice");
            values.first().copied()
        };
        let one = |key: &str| optional(key).unwrap_or_else(|| panic!("{name}: {key} is missing"));
        let words =
            |value: &str| -> Vec<String> { value.split_whitespace().map(str::to_owned).collect() };

        let flash = words(one("Flash"));
        let content_bytes = mebibytes(&flash[1]);
        let images: Vec<(String, String)> = all("Image")
            .into_iter()
            .map(|value| {
                let (class, image) = value.rsplit_once(' ').unwrap();
                (class.to_owned(), image.to_owned())
            })
            .collect();
        assert!(!images.is_empty(), "{name}: no Image");
        Self {
            name: name.to_owned(),
            arch: ARCHES
                .iter()
                .find(|arch| arch.name == one("Arch"))
                .unwrap_or_else(|| panic!("{name}: unknown architecture")),
            kernel_suite: words(one("Kernel")).remove(1),
            modules: optional("Modules").unwrap_or_default().to_owned(),
            append: optional("Append").unwrap_or_default().to_owned(),
            qemu: words(one("Qemu")),
            node: optional("Node").map(str::to_owned),
            properties: all("Property").into_iter().map(words).collect(),
            content: match flash[0].as_str() {
                "cramfs" => Content::Cramfs,
                "ext4" => Content::Ext4,
                other => panic!("{name}: unknown flash content {other}"),
            },
            content_bytes,
            bank_bytes: flash.get(2).map_or(content_bytes, |size| mebibytes(size)),
            window: optional("Window").map(str::to_owned),
            mount: optional("Mount").map(str::to_owned),
            images,
        }
    }
}

fn mebibytes(text: &str) -> u64 {
    let number = text.strip_suffix('M').unwrap().parse::<u64>().unwrap();
    number << 20
}
