//! What a rig is: the lines `Key: value` of tests/rigs/NAME.rig.
//!
//! | key | value |
//! |---|---|
//! | Arch | `x86_64`, `armv7`, `aarch64`, `riscv64` |
//! | Page | the kernel's page size, bytes; 4096 if it is not said |
//! | Kernel | a package of Debian's that depends on the kernel, and the suite that it is from; or `own` and a name: `vmlinuz` and `modules/*.ko` are to be in target/tmp/rigs/kernels/DEBIAN_ARCH-NAME |
//! | Modules | what the kernel loads, in this order; what it has built in is passed over |
//! | Setup | a line of shell that gets the board ready, once the modules are loaded; may be repeated |
//! | Append | of the kernel's command line |
//! | Beside | of that too, but not of the recipe's in samples/boards: only the checks need it |
//! | Qemu | arguments; `{flash}` is the file that is the flash bank, `{image}` the image's |
//! | Tree | the kernel package's device tree, where QEMU has none for the machine |
//! | Node, Property | a node that the device tree gets, and its properties as fdtput(1) has them; both may be repeated |
//! | Flash | what is in the bank, one behind the other, each with its size: `cramfs` (the image), `ext4` (with the image in it) |
//! | Window | the physical address where the bank's first bytes are to be found |
//! | Mount | the device that the ext4 of the flash is on, mounted with DAX at /flash |
//! | Image | what xip-mem calls its pages (`flash`, `page-cache`, `tmpfs`), where data comes from (`copy-on-write`, or the program's `descriptor`), how it is mapped (`cached`, `uncached`, `unknown`), and what `xip-run --image` is given; may be repeated |
//! | Also | the same of another way to the image; may be repeated |
//! | Refused | what `--image` is given that can be read but not executed, and what is said of it; may be repeated |
//! | Failing | what `--image` is given where no image is found, and what is said of it; may be repeated |
#![allow(dead_code, unreachable_pub, reason = "each test is a crate of its own")]

use std::fs;
use std::path::{Path, PathBuf};

use crate::release::{self, Target};

/// An architecture, by its names.
pub struct Arch {
    pub name: &'static str,
    /// Debian's.
    pub debian: &'static str,
    pub target: Target,
    pub qemu: &'static str,
    pub console: &'static str,
}

/// All of them.
pub const ARCHES: [Arch; 4] = [
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
    Arch {
        name: "riscv64",
        debian: "riscv64",
        target: release::RISCV64,
        qemu: "qemu-system-riscv64",
        console: "ttyS0",
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
    /// The kernel's page size, bytes.
    pub page: u64,
    pub kernel_suite: String,
    pub modules: String,
    pub append: String,
    /// Of the kernel's command line too, for the checks.
    pub beside: String,
    pub qemu: Vec<String>,
    /// A file of the kernel's package.
    pub tree: Option<String>,
    /// Of the device tree, each with its properties: type, name and values.
    pub nodes: Vec<(String, Vec<Vec<String>>)>,
    /// What is in the bank, and how many bytes it has.
    pub flash: Vec<(Content, u64)>,
    pub window: Option<String>,
    pub mount: Option<String>,
    /// As words: what its pages are, where data comes from, how it is mapped, what `--image` is given.
    pub images: Vec<String>,
    pub also: Vec<String>,
    /// As words: what `--image` is given, what is said of it.
    pub refused: Vec<String>,
    pub failing: Vec<String>,
    /// Lines of shell.
    pub setup: Vec<String>,
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
            "Mount", "Image", "Refused", "Also", "Failing", "Setup", "Tree", "Page", "Beside",
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

        let flash = words(one("Flash"))
            .chunks(2)
            .map(|part| {
                let content = match part[0].as_str() {
                    "cramfs" => Content::Cramfs,
                    "ext4" => Content::Ext4,
                    other => panic!("{name}: unknown flash content {other}"),
                };
                (content, mebibytes(&part[1]))
            })
            .collect();
        let mut nodes: Vec<(String, Vec<Vec<String>>)> = Vec::new();
        for &(key, value) in &lines {
            match key {
                "Node" => nodes.push((value.to_owned(), Vec::new())),
                "Property" => nodes.last_mut().unwrap().1.push(words(value)),
                _ => {}
            }
        }
        let owned =
            |values: Vec<&str>| -> Vec<String> { values.into_iter().map(str::to_owned).collect() };
        let images = owned(all("Image"));
        let also = owned(all("Also"));
        assert!(!(images.is_empty() && also.is_empty()), "{name}: no Image");
        Self {
            name: name.to_owned(),
            arch: ARCHES
                .iter()
                .find(|arch| arch.name == one("Arch"))
                .unwrap_or_else(|| panic!("{name}: unknown architecture")),
            page: optional("Page").map_or(4096, |bytes| bytes.parse().unwrap()),
            kernel_suite: words(one("Kernel")).remove(1),
            modules: optional("Modules").unwrap_or_default().to_owned(),
            append: optional("Append").unwrap_or_default().to_owned(),
            beside: optional("Beside").unwrap_or_default().to_owned(),
            qemu: words(one("Qemu")),
            tree: optional("Tree").map(str::to_owned),
            nodes,
            flash,
            window: optional("Window").map(str::to_owned),
            mount: optional("Mount").map(str::to_owned),
            images,
            also,
            failing: owned(all("Failing")),
            setup: owned(all("Setup")),
            refused: owned(all("Refused")),
        }
    }
}

impl Rig {
    /// Is there a filesystem in the bank?
    pub fn has_ext4(&self) -> bool {
        self.flash
            .iter()
            .any(|&(content, _)| content == Content::Ext4)
    }
}

fn mebibytes(text: &str) -> u64 {
    let number = text.strip_suffix('M').unwrap().parse::<u64>().unwrap();
    number << 20
}
