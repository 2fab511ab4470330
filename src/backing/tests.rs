//! What is found out about boards, on what was captured of real ones.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use super::attribute::{Attribute, MemoryType};
use super::device::{self, Kind};
use super::mtd::Mtd;
use super::open::Window;
use super::spec::{Part, Spec};
use super::system::{DeviceTree, System};
use super::{auto, pinned, superblock};

const TWO_CHIPS: &str = include_str!("../../tests/captured/board-armv7-two-chips");
const SOC: &str = include_str!("../../tests/captured/board-armv7-soc");

/// A machine's /proc, /sys and /dev in a directory.
struct Board(TempDir);

impl Board {
    fn new(captured: &str) -> Self {
        let board = Self(tempfile::tempdir().unwrap());
        for line in captured.lines().filter(|line| line.starts_with('/')) {
            let (path, rest) = line.split_once(' ').unwrap();
            let (sort, value) = rest.split_once(' ').unwrap_or((rest, ""));
            let bytes = match sort {
                "->" => {
                    let path = board.path(path);
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    symlink(value, path).unwrap();
                    continue;
                }
                "=" => value.replace("\\n", "\n").into_bytes(),
                _ => (0..value.len())
                    .step_by(2)
                    .map(|at| u8::from_str_radix(&value[at..at + 2], 16).unwrap())
                    .collect(),
            };
            board.write(path, &bytes);
        }
        board
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.0.path().join(&path[1..])
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.path(path)).unwrap();
    }

    fn system(&self) -> System {
        System::at(self.0.path())
    }

    fn window(&self, mtd: &str) -> Result<(u64, u64), String> {
        let window = Mtd::find(&self.system(), mtd).and_then(|mtd| mtd.window(&self.system()));
        window
            .map(|window| (window.start, window.end - window.start))
            .map_err(|err| err.to_string())
    }
}

#[track_caller]
fn assert_says<T: std::fmt::Debug>(answer: Result<T, String>, what: &str) {
    let said = answer.unwrap_err();
    assert!(said.contains(what), "{said}");
}

const MIB: u64 = 1 << 20;

#[test]
fn partitions_of_chips_without_a_device_are_found_by_their_nodes() {
    let board = Board::new(TWO_CHIPS);
    for (name, at, len) in [
        ("boot", 0, 64 * MIB),
        ("rootfs", 64 * MIB, 16 * MIB),
        ("1", 64 * MIB, 16 * MIB),
        ("spare", 80 * MIB, 48 * MIB),
    ] {
        assert_eq!(board.window(name), Ok((at, len)), "{name}");
    }
    assert_says(
        board.window("mtdram test device"),
        "it has no device tree node, no device, and no phram.phram= on the kernel command line; if the flash is memory mapped, \
         name them: --image /dev/mem@ADDRESS+0x400000",
    );
    assert_says(
        board.window("root"),
        "there are 0 \"boot\", 1 \"rootfs\", 2 \"spare\", 3 \"mtdram test device\"",
    );
    assert_says(Board::new("").window("rootfs"), "this kernel has none");
}

#[test]
fn memory_of_phram_is_found_by_the_kernel_command_line() {
    let board = Board::new(TWO_CHIPS);
    board.write("/sys/devices/virtual/mtd/mtd3/name", b"ram\n");
    let says = |cmdline: &str| {
        board.write("/proc/cmdline", cmdline.as_bytes());
        board.window("ram")
    };
    let other = "phram.phram=other,0x1000,4Mi";
    let found = says(&format!(
        "quiet {other} phram.phram=ram,0x10000000,4Mi,4096"
    ));
    assert_eq!(found, Ok((256 * MIB, 4 * MIB)));
    // Another size, another name, no numbers, the init's argument.
    for cmdline in [
        "phram.phram=ram,0x10000000,8Mi",
        other,
        "phram.phram=ram,0x10000000",
        "phram.phram=ram,x,4Mi",
        "-- phram.phram=ram,0x10000000,4Mi",
    ] {
        assert_says(says(cmdline), "no phram.phram= on the kernel command line");
    }
}

#[test]
fn a_chip_behind_a_bus_is_found_in_every_way() {
    const MTD1: &str = "/sys/devices/platform/soc/4000000.nor/mtd/mtd1";
    let board = Board::new(SOC);
    let second = Ok((96 * MIB, 16 * MIB));
    assert_eq!(board.window("rootfs"), Ok((64 * MIB, 16 * MIB)));
    assert_eq!(board.window("second"), second);
    // Partitions of the command line have no nodes, but the chip's device has.
    board.remove(&format!("{MTD1}/of_node"));
    assert_eq!(board.window("second"), second);
    // A partition of a partition.
    let below = "/sys/devices/platform/soc/4000000.nor/mtd/mtd1/mtd7";
    for (file, text) in [
        ("name", "below\n"),
        ("size", "65536\n"),
        ("type", "nor\n"),
        ("offset", "131072\n"),
    ] {
        board.write(&format!("{below}/{file}"), text.as_bytes());
    }
    let link = format!("../../{}", below.strip_prefix("/sys/").unwrap());
    symlink(link, board.path("/sys/class/mtd/mtd7")).unwrap();
    assert_eq!(board.window("below"), Ok((96 * MIB + 131_072, 65536)));
    // No device tree: the driver's claim in /proc/iomem, by the device's name.
    board.remove("/sys/devices/platform/soc/4000000.nor/of_node");
    fs::remove_dir_all(board.path("/sys/firmware")).unwrap();
    assert_eq!(board.window("second"), second);
    // As users who are not root see it.
    board.write("/proc/iomem", b"00000000-00000000 : 4000000.nor nor@0\n");
    assert_says(
        board.window("second"),
        "it has no device tree node, and /proc/iomem (which shows addresses to root only) has nothing of the name of its \
         device, 4000000.nor",
    );
    board.remove(&format!("{MTD1}/type"));
    assert_says(board.window("second"), "no such MTD device");
}

#[test]
fn flash_that_no_processor_reads_like_memory_is_refused() {
    let board = Board::new(SOC);
    let mtd1 = "/sys/devices/platform/soc/4000000.nor/mtd/mtd1";
    board.write(&format!("{mtd1}/type"), b"nand\n");
    assert_says(
        board.window("second"),
        "it is nand, which no processor reads like memory",
    );
    board.write(&format!("{mtd1}/type"), b"nor\n");
    // Larger than its chip.
    board.write(&format!("{mtd1}/size"), b"67108864\n");
    assert_says(
        board.window("second"),
        "its bytes 0x2000000+0x4000000 are not in one piece in the chip's 0x4000000+0x4000000",
    );
    // SPI: the chip has a number, its controller addresses that are something else.
    let soc = "/sys/firmware/devicetree/base/soc";
    board.write(&format!("{soc}/#size-cells"), &[0; 4]);
    let spi = "its chip's device tree node is on a bus (/soc) where devices have numbers and no addresses";
    board.write("/proc/iomem", b"");
    assert_says(board.window("second"), spi);
    board.write(&format!("{soc}/#size-cells"), &[0, 0, 0, 1]);
    board.remove(&format!("{soc}/ranges"));
    assert_says(
        board.window("second"),
        "is on a bus (/soc) whose devices are not memory mapped",
    );
    // Addresses that the bus does not pass on.
    board.write(&format!("{soc}/ranges"), &[0; 16]);
    assert_says(
        board.window("second"),
        "is on a bus (/soc) whose devices are not memory mapped",
    );
    for name in ["nor@0/reg", "ranges", "#address-cells"] {
        board.write(&format!("{soc}/{name}"), &[0xff; 7]);
        assert!(board.window("second").is_err());
    }
}

#[test]
fn names_that_several_have_are_refused() {
    let board = Board::new(TWO_CHIPS);
    board.write("/sys/devices/virtual/mtd/mtd2/name", b"rootfs\n");
    assert_says(
        board.window("rootfs"),
        "several have this name, use the number: there are 0 \"boot\"",
    );
    assert_eq!(board.window("2"), Ok((80 * MIB, 48 * MIB)));
    // A name is looked for first.
    board.write("/sys/devices/virtual/mtd/mtd0/name", b"2\n");
    assert_eq!(board.window("2"), Ok((0, 64 * MIB)));
}

#[test]
fn regions_of_uio_devices_are_found() {
    let board = Board::new(TWO_CHIPS);
    let dir = board.path("/sys/class/uio/uio0");
    assert_eq!(device::uio_map(&dir, 0), Ok(96 * MIB..112 * MIB));
    assert_says(
        device::uio_map(&dir, 1),
        "has no map1; it has map0 (0x1000000 bytes, \"uio@6000000\")",
    );
    assert_says(
        device::uio_map(Path::new("/nowhere"), 0),
        "this UIO device has no memory that can be mapped",
    );
    fs::write(dir.join("maps/map0/offset"), "0x200\n").unwrap();
    assert_says(
        device::uio_map(&dir, 0),
        "map0 begins 0x200 bytes behind a page boundary",
    );
}

/// The first bytes of an image.
fn head(magic: u32) -> Vec<u8> {
    let mut head = magic.to_le_bytes().to_vec();
    head.resize(superblock::HEAD_BYTES, 0);
    head
}

const CRAMFS: u32 = 0x28cd_3d45;

#[test]
fn auto_takes_what_the_board_says_before_what_it_finds() {
    let board = Board::new(TWO_CHIPS);
    let find = || auto::find(&board.system()).map_err(|err| err.to_string());
    assert_says(
        find(),
        "no cramfs image is in mtd0 \"boot\" (/dev/mtd0ro cannot be read), mtd1 \"rootfs\" (/dev/mtd1ro cannot be read), ",
    );
    board.write("/dev/mtd0ro", &head(0));
    board.write("/dev/mtd1ro", &head(CRAMFS.swap_bytes()));
    board.write("/dev/mtd2ro", &head(CRAMFS));
    let (spec, why) = find().unwrap();
    assert_eq!(spec, Spec::Mtd("1".to_owned()));
    assert_eq!(why, "found in mtd1 \"rootfs\"");

    board.write(
        "/sys/firmware/devicetree/base/chosen/xip,image",
        b"/dev/mem@0x04000000+16M\0",
    );
    let (spec, why) = find().unwrap();
    let part = Some(Part::Bytes {
        at: 64 * MIB,
        len_bytes: Some(16 * MIB),
    });
    let path = "/dev/mem".into();
    assert_eq!(spec, Spec::Path { path, part });
    assert!(why.contains("in the device tree"), "{why}");

    board.write(
        "/proc/cmdline",
        b"quiet xip.image=mtd:spare xip.image=auto\n",
    );
    assert_eq!(find().unwrap().0, spec, "which names itself");
    board.write("/proc/cmdline", b"quiet xip.image=mtd:spare\n");
    assert_eq!(find().unwrap().0, Spec::Mtd("spare".to_owned()));
    board.write("/proc/cmdline", b"xip.image=mtd:\n");
    assert_says(find(), "mtd:rootfs or mtd:3");
}

#[test]
fn auto_looks_at_persistent_memory_too() {
    let board = Board::new("");
    let find = || auto::find(&board.system()).map_err(|err| err.to_string());
    assert_says(find(), "no MTD or pmem device is there");
    for (name, magic) in [
        ("pmem0", 0),
        ("pmem1", CRAMFS),
        ("pmem1p1", CRAMFS),
        ("sda", CRAMFS),
    ] {
        board.write(&format!("/sys/class/block/{name}/dev"), b"");
        board.write(&format!("/dev/{name}"), &head(magic));
    }
    assert_says(
        find(),
        "no cramfs image is in pmem0, pmem1 (has one, but its address is not told)",
    );
    board.write("/sys/class/block/pmem1/device/resource", b"0x10000000\n");
    board.write("/sys/class/block/pmem1/device/size", b"33554432\n");
    let part = Some(Part::Bytes {
        at: 0x1000_0000,
        len_bytes: Some(32 * MIB),
    });
    let path = "/dev/mem".into();
    assert_eq!(find().unwrap().0, Spec::Path { path, part });
}

#[test]
fn memory_of_the_tree_is_found() {
    let board = Board::new(TWO_CHIPS);
    let tree = DeviceTree::of(&board.system()).unwrap();
    let memory = tree.memory();
    assert_eq!(
        (memory.len(), memory.first()),
        (1, Some(&(0x4000_0000..0x6000_0000)))
    );
    assert!(tree.chosen_image().is_none());
    let of = |kind, at: Option<u64>| {
        let window = Window {
            addresses: at.map(|at| at..at + MIB),
            ..Window::new(0, MIB)
        };
        MemoryType::of(kind, &window, &board.system()).attribute
    };
    assert_eq!(of(Kind::Uio, Some(96 * MIB)), Attribute::Uncached);
    assert_eq!(of(Kind::PciResource, Some(96 * MIB)), Attribute::Uncached);
    assert_eq!(of(Kind::File, None), Attribute::Cached);
    assert_eq!(of(Kind::DevDax, None), Attribute::Cached);
    assert_eq!(of(Kind::PhysicalMemory, None), Attribute::Unknown);
}

/// The rule of each machine, whichever runs the test.
#[test]
fn each_machine_has_its_rule() {
    use super::attribute::{arm, arm64, riscv, x86};
    let board = Board::new(TWO_CHIPS);
    let (flash, ram) = (96 * MIB..97 * MIB, 0x4800_0000..0x4810_0000);
    let system = board.system();
    assert_eq!(arm(&flash, &system).attribute, Attribute::Uncached);
    assert_eq!(arm(&ram, &system).attribute, Attribute::Cached);
    // No-map memory is in no System RAM, but in the memory node.
    board.write("/proc/iomem", b"40000000-47ffffff : System RAM\n");
    assert_eq!(arm(&ram, &system).attribute, Attribute::Cached);
    assert_eq!(arm64(&ram, &system).attribute, Attribute::Uncached);
    assert_eq!(
        arm64(&(0x4000_0000..0x4010_0000), &system).attribute,
        Attribute::Cached
    );
    assert_eq!(riscv(&ram, &system).attribute, Attribute::Cached);
    assert_eq!(riscv(&flash, &system).attribute, Attribute::Unknown);
    // Users see no addresses.
    board.write("/proc/iomem", b"00000000-00000000 : System RAM\n");
    assert_eq!(arm64(&ram, &system).attribute, Attribute::Unknown);
    assert_eq!(x86(&flash, &system).attribute, Attribute::Unknown);
    board.write(
        "/proc/mtrr",
        b"reg00: base=0x080000000 ( 2048MB), size= 2048MB, count=1: uncachable\n",
    );
    assert_eq!(x86(&flash, &system).attribute, Attribute::Cached);
    assert_eq!(
        x86(&(0xffbc_0000..0xffff_ffff), &system).attribute,
        Attribute::Uncached
    );
    // What a driver has mapped uncached is so for all.
    let window = |driven| Window {
        addresses: Some(flash.clone()),
        driven,
        ..Window::new(flash.start, MIB)
    };
    let of = |driven| MemoryType::of(Kind::PhysicalMemory, &window(driven), &system).attribute;
    if cfg!(target_arch = "x86_64") {
        assert_eq!(
            (of(false), of(true)),
            (Attribute::Cached, Attribute::Uncached)
        );
    }
}

#[test]
fn flash_is_pinned_if_no_mtd_device_of_its_chip_can_be_written_to() {
    let board = Board::new(SOC);
    let flash = 64 * MIB..80 * MIB;
    let pinned = || pinned::window(&flash, &board.system());
    let mtd = |number: u32| format!("/sys/devices/platform/soc/4000000.nor/mtd/mtd{number}");
    assert_says(
        pinned(),
        "the MTD device 0 (\"rootfs\"), of the same chip, can be written to; make it read-only",
    );
    // Any other partition too.
    board.write(&format!("{}/flags", mtd(0)), b"0x0\n");
    assert_says(pinned(), "the MTD device 1 (\"second\"), of the same chip");
    board.write(&format!("{}/flags", mtd(1)), b"0x800\n");
    // One of which nobody knows where it is.
    assert_says(
        pinned(),
        "the MTD device 2 (\"mtdram test device\") can be written to, and where it is is not known",
    );
    // What no processor reads like memory is none of it.
    board.write("/sys/devices/virtual/mtd/mtd2/type", b"nand\n");
    assert_eq!(pinned(), Ok(()));
    // Memory that something else hands out.
    board.write("/proc/iomem", b"04000000-04ffffff : namespace0.0\n");
    assert_says(pinned(), "\"namespace0.0\" (/proc/iomem)");
    board.write("/proc/iomem", b"");
    assert_says(pinned(), "root only");
}

#[test]
fn a_block_device_is_pinned_if_all_of_it_is_read_only() {
    let board = Board::new("");
    let disk = "/sys/devices/virtual/block/sdx";
    for (file, text) in [("ro", "0\n"), ("sdx1/ro", "1\n"), ("sdx1/partition", "1\n")] {
        board.write(&format!("{disk}/{file}"), text.as_bytes());
    }
    let pinned = |dir: &str| pinned::block_device(&board.path(dir), &board.system());
    let partition = format!("{disk}/sdx1");
    assert_says(pinned(&partition), "the block device sdx can be written to");
    board.write(&format!("{disk}/ro"), b"1\n");
    assert_eq!(pinned(&partition), Ok(()));
    assert_eq!(pinned(disk), Ok(()));
    board.write(&format!("{partition}/ro"), b"0\n");
    assert_says(
        pinned(&partition),
        "the block device sdx1 can be written to",
    );
    board.write(&format!("{disk}/loop/backing_file"), b"/image\n");
    assert_says(pinned(disk), "lies on something else");
    assert_says(pinned("/sys/dev/block/0:42"), "sysfs does not tell");
    // An MTD device's is as the device.
    let board = Board::new(TWO_CHIPS);
    board.write("/sys/devices/virtual/block/mtdblock1/ro", b"1\n");
    let dir = board.path("/sys/devices/virtual/block/mtdblock1");
    assert_says(
        pinned::block_device(&dir, &board.system()),
        "of the same chip, can be written to",
    );
}
