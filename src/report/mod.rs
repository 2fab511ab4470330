//! Measures a process: which of its bytes run in place, and what RAM the rest costs.
//!
//! [`smaps`] and [`status`] parse what the kernel says, [`classify`](fn@classify) names what stands behind a mapping,
//! [`image_files`] finds the file of an image that a mapping shows, [`Report`] adds it all up. These are pure functions
//! of captured texts; only [`observe`] looks at a live process. [`session`] does the same for all processes of a session,
//! page by page ([`pagemap`]), so that what they share counts once.
//!
//! What counts as RAM of a process: its anonymous pages, its page tables, the [`session_memfd`] that keeps it, and its
//! share of the page cache. Private_Dirty never counts: the page cache of a freshly written image file shows as Private_Dirty without being the process's.

mod classify;
pub mod files;
pub mod group;
pub mod image_files;
pub mod machine;
pub mod memory;
pub mod mountinfo;
pub mod pagemap;
mod pages;
mod proc;
mod process;
mod ranges;
pub mod reasons;
pub mod session;
pub mod session_memfd;
pub mod smaps;
pub mod status;
mod summary;
pub mod table;
mod text;

pub use classify::{Class, MappedFile, classify};
pub use group::{Group, Ram};
pub use machine::{Machine, machine_columns};
pub use pages::Why;
pub use proc::processes;
pub use process::{Observer, OpenImage, observe};
pub use ranges::Ranges;
pub use reasons::Reasons;
pub use session::{Session, session_columns};
pub use session_memfd::SessionMemfd;
pub use summary::{Cache, Counts, Part, Program, Report, Row, Subject, Totals};
pub use text::{columns, compare, csv};
