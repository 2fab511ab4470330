//! Parses /proc/PID/pagemap: Linux `Documentation/admin-guide/mm/pagemap.rst`.
//!
//! What is used of it everybody may see of his own processes, since Linux 4.2; page frame numbers are root's.

/// What a page of a mapped file is to the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageState {
    /// Not in its page tables: never touched, or taken from it again.
    Absent,
    /// In its page tables, and the file's own page (or flash).
    Touched,
    /// A private copy, in RAM or swapped out.
    Copied,
}

/// Consecutive pages that are alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRun {
    /// How many, at least 1.
    pub pages: u64,
    /// What they are.
    pub state: PageState,
}

/// Length of an entry, bytes.
pub const ENTRY_BYTES: u64 = 8;

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
/// Page of a file, or shared memory; flash that is mapped by its physical pages is neither.
const OF_FILE: u64 = 1 << 61;
/// Mapped by nobody else: set for pages that the kernel knows as memory only, so never for such flash. Linux 4.2.
const EXCLUSIVE: u64 = 1 << 56;

/// The pages of a mapping from its entries, in the machine's byte order. `pfn` if it maps flash by its physical pages
/// (VmFlags `pf`, `mm`): what is present there and no file's is flash, unless it is this process's alone. (A copy that a
/// fork still shares is taken for flash: pagemap does not tell.)
///
/// ```
/// use xip_run::report::pagemap::{PageState, runs};
/// let entries = [0, 1 << 63 | 1 << 61, 1 << 63 | 1 << 61, 1 << 63].map(u64::to_ne_bytes).concat();
/// let states: Vec<_> = runs(&entries, false).iter().map(|run| (run.pages, run.state)).collect();
/// assert_eq!(states, [(1, PageState::Absent), (2, PageState::Touched), (1, PageState::Copied)]);
/// ```
pub fn runs(entries: &[u8], pfn: bool) -> Vec<PageRun> {
    let mut runs: Vec<PageRun> = Vec::new();
    let (entries, _) = entries.as_chunks::<{ ENTRY_BYTES as usize }>();
    for entry in entries {
        let entry = u64::from_ne_bytes(*entry);
        let state = match entry & (PRESENT | SWAPPED | OF_FILE) {
            0 | OF_FILE => PageState::Absent,
            bits if bits & OF_FILE != 0 => PageState::Touched,
            PRESENT if pfn && entry & EXCLUSIVE == 0 => PageState::Touched,
            _ => PageState::Copied,
        };
        match runs.last_mut() {
            Some(last) if last.state == state => last.pages += 1,
            _ => runs.push(PageRun { pages: 1, state }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flash_is_told_from_copies_by_who_has_it() {
        let entries = [
            PRESENT,             // flash, or the zero page
            PRESENT | EXCLUSIVE, // a copy
            SWAPPED,             // a copy
            PRESENT | OF_FILE | EXCLUSIVE,
        ]
        .map(u64::to_ne_bytes)
        .concat();
        let states = |pfn| {
            let runs = runs(&entries, pfn);
            runs.iter()
                .map(|run| (run.pages, run.state))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            states(true),
            [
                (1, PageState::Touched),
                (2, PageState::Copied),
                (1, PageState::Touched)
            ]
        );
        assert_eq!(
            states(false),
            [(3, PageState::Copied), (1, PageState::Touched)]
        );
        assert_eq!(runs(&entries[..7], false), []);
    }
}
