//! The figures of a trial that people read: in the table, and against a baseline.

use super::Trial;

/// What a figure is of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// An instance's share.
    Each,
    /// All instances together.
    All,
}

/// What is said of a figure's change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    Unsaid,
    /// How much it is.
    Shown,
    /// The same, and that it must not grow.
    Held,
}

/// A figure.
pub(super) struct Figure {
    pub(super) of: Of,
    what: &'static str,
    /// Of all instances, in bytes.
    sum_bytes: fn(&Trial) -> u64,
    /// It is left out where there is nothing of it.
    pub(super) rare: bool,
    pub(super) change: Change,
}

impl Figure {
    pub(super) fn name(&self) -> String {
        let of = match self.of {
            Of::Each => "each instance",
            Of::All => "all",
        };
        format!("{of}: {}", self.what)
    }

    /// What it is in a trial of so many instances.
    pub(super) fn bytes(&self, trial: &Trial, instances: u64) -> u64 {
        let sum = (self.sum_bytes)(trial);
        match self.of {
            Of::Each => sum / instances.max(1),
            Of::All => sum,
        }
    }

    const fn new(of: Of, what: &'static str, sum_bytes: fn(&Trial) -> u64) -> Self {
        Self {
            of,
            what,
            sum_bytes,
            rare: false,
            change: Change::Unsaid,
        }
    }

    const fn rare(self) -> Self {
        Self { rare: true, ..self }
    }

    const fn change(self, change: Change) -> Self {
        Self { change, ..self }
    }
}

/// All of them, in the order of the table. Held is RAM, but no page cache of files: that is larger or smaller by what the
/// kernel has read ahead.
pub(super) const FIGURES: [Figure; 12] = [
    Figure::new(Of::Each, "anonymous", |it| it.ram.anonymous_bytes).change(Change::Held),
    Figure::new(Of::Each, "page tables", |it| it.ram.page_table_bytes),
    Figure::new(Of::Each, "session memfd (stub, copies)", |it| {
        it.ram.stub_bytes
    }),
    Figure::new(Of::Each, "server of the view", |it| it.ram.server_bytes).rare(),
    Figure::new(Of::Each, "RAM of its own", |it| it.own_bytes).change(Change::Held),
    Figure::new(Of::All, "RAM of their own", |it| it.own_bytes).change(Change::Held),
    Figure::new(Of::All, "in place, flash: mapped", |it| it.ram.flash_bytes).rare(),
    Figure::new(Of::All, "in place, page cache: mapped", |it| {
        it.ram.image_cache_mapped_bytes
    }),
    Figure::new(Of::All, "in place, page cache: touched", |it| {
        it.ram.image_cache_bytes
    }),
    Figure::new(Of::All, "other page cache: touched", |it| {
        it.ram.other_cache_bytes
    })
    .change(Change::Shown),
    Figure::new(Of::All, "RAM", |it| it.total_bytes),
    Figure::new(Of::All, "RAM if the image is in flash", |it| {
        it.if_in_flash_bytes
    }),
];
