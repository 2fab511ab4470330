//! RISC-V: where a page has no `struct page`, a mapping of it that can be executed crashes the kernel.
//!
//! An entry of a page table that is executable takes `set_pte_at()` to `flush_icache_pte()`, which looks at a flag of
//! the page's `struct page`, whether there is one or not (`arch/riscv/mm/cacheflush.c`; an oops in mmap(2), seen with
//! Linux 6.12). Flash has none; memory that the kernel knows of but leaves alone (`no-map`) has, and so has persistent
//! memory.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::spec::show_range;
use super::system::System;

/// `KPF_NOPAGE`, a bit of a page's flags (`include/uapi/linux/kernel-page-flags.h`).
const NO_PAGE: u64 = 1 << 20;
/// Bytes that the flags of a page have.
const FLAGS_BYTES: u64 = 8;

/// Has every page of these addresses a `struct page`? /proc/kpageflags tells root (`fs/proc/page.c`).
///
/// # Errors
/// Why not, or why that cannot be told, and the way out.
pub(super) fn require(
    addresses: Option<&Range<u64>>,
    page_bytes: u64,
    system: &System,
) -> Result<(), String> {
    const FLAGS: &str = "/proc/kpageflags";
    const WAY_OUT: &str = "use a file on a DAX filesystem (on flash: a pmem-region node in the device tree), a no-map region of \
        the machine's memory, or run from RAM with --copy-text";
    let without = |what: String| {
        format!(
            "its code cannot be executed: {what}, and a RISC-V kernel crashes when such a page is mapped to be executed \
             (arch/riscv/mm/cacheflush.c flush_icache_pte()); {WAY_OUT}"
        )
    };
    let addresses = addresses.ok_or_else(|| {
        without(
            "whether its pages have a struct page cannot be told, its addresses are not known"
                .to_owned(),
        )
    })?;
    let file = File::open(system.path(FLAGS)).map_err(|err| {
        without(format!(
            "whether its pages have a struct page cannot be told ({FLAGS}: {err})"
        ))
    })?;
    let pages = addresses.start / page_bytes..addresses.end.div_ceil(page_bytes);
    let mut flags = [0; FLAGS_BYTES as usize];
    let has_page = |page| {
        let read = file.read_exact_at(&mut flags, page * FLAGS_BYTES);
        // What lies beyond all memory is not in the file.
        read.is_ok() && u64::from_ne_bytes(flags) & NO_PAGE == 0
    };
    match pages.into_iter().all(has_page) {
        true => Ok(()),
        false => Err(without(format!(
            "{} is no memory of the kernel's and has no struct page",
            show_range(addresses)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_that_the_kernel_knows_are_executed() {
        let dir = tempfile::tempdir().unwrap();
        let system = System::at(dir.path());
        let asked = |range: Range<u64>| require(Some(&range), 4096, &system);
        let why = asked(0..4096).unwrap_err();
        assert!(
            why.contains("cannot be told") && why.contains("--copy-text"),
            "{why}"
        );
        // Pages 0 and 1 are none, 2 and 3 are reserved.
        let flags = [NO_PAGE, NO_PAGE, 1 << 32, 1 << 32].map(u64::to_ne_bytes);
        std::fs::create_dir(dir.path().join("proc")).unwrap();
        std::fs::write(dir.path().join("proc/kpageflags"), flags.concat()).unwrap();
        assert_eq!(asked(0x2000..0x4000), Ok(()));
        assert_eq!(asked(0x2001..0x3001), Ok(()));
        for none in [
            0..0x1000,
            0x1000..0x3000,
            0x3000..0x5000,
            0x10_0000..0x10_1000,
        ] {
            let why = asked(none).unwrap_err();
            assert!(
                why.contains("crashes") && why.contains("--copy-text"),
                "{why}"
            );
        }
        assert!(require(None, 4096, &system).is_err());
    }
}
