//! Runs the same program in several ways at once, and compares what RAM they take: natively, in place, copied.
//!
//! [`run()`] starts and measures, [`Comparison`] is what was found; a saved one is what later ones are held [`against`].

mod against;
mod figures;
mod run;
mod text;

use serde::{Deserialize, Serialize};

use crate::report::Ram;

pub use against::{Difference, against};
pub use run::{Options, run};

/// A way to run a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// By the kernel, from the host's file.
    Native,
    /// By xip-run, in place from the image.
    InPlace,
    /// By xip-run with `--copy-text`: what a loader costs that copies.
    Copy,
}

impl Way {
    /// What the tables show.
    pub fn title(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::InPlace => "in place",
            Self::Copy => "copied",
        }
    }

    /// The same as the head of a column of figures.
    fn head(self) -> &'static str {
        match self {
            Self::Native => "  native",
            Self::InPlace => "in place",
            Self::Copy => "  copied",
        }
    }
}

/// What running a program in one way takes; in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Trial {
    /// The way.
    pub way: Way,
    /// Processes that were measured: those that the instances started as well.
    pub processes: u64,
    /// What each instance has of its own ([`Ram::own_bytes`]), on average: what one more takes.
    pub instance_bytes: u64,
    /// What all of them take together, each page once.
    #[serde(flatten)]
    pub ram: Ram,
    /// [`Ram::own_bytes`].
    pub own_bytes: u64,
    /// [`Ram::total_bytes`].
    pub total_bytes: u64,
    /// [`Ram::if_in_flash_bytes`].
    pub if_in_flash_bytes: u64,
}

impl Trial {
    /// Of so many instances.
    fn new(way: Way, ram: Ram, instances: u64, processes: u64) -> Self {
        Self {
            way,
            processes,
            instance_bytes: ram.own_bytes() / instances.max(1),
            own_bytes: ram.own_bytes(),
            total_bytes: ram.total_bytes(),
            if_in_flash_bytes: ram.if_in_flash_bytes(),
            ram,
        }
    }
}

/// What flash the files take of which something runs in place; in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FlashSpent {
    /// What they take in the image.
    pub stored_bytes: u64,
    /// What they would take if all of it were compressed, as `xip-image build --xip=none` does.
    pub compressed_bytes: u64,
}

/// The same program in several ways.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The image.
    pub image: String,
    /// Is the image the root directory of those in place?
    pub session: bool,
    /// How often it was started in each way.
    pub instances: u64,
    /// The first is native, the second in place.
    pub trials: Vec<Trial>,
    /// What running in place takes of the flash.
    pub flash: FlashSpent,
    /// RAM of the native ones less that of those in place.
    pub saved_bytes: i64,
    /// The same, if the image were in flash.
    pub saved_if_in_flash_bytes: i64,
    /// What the reader has to know.
    pub notes: Vec<String>,
}

impl Comparison {
    /// The trial of a way.
    pub fn trial(&self, way: Way) -> Option<&Trial> {
        self.trials.iter().find(|trial| trial.way == way)
    }

    /// Bytes of RAM saved for each byte of flash, if the image is (or were) in flash: of all that the files take, and of
    /// what they take more than compressed. `None` where nothing is spent.
    ///
    /// ```
    /// # use xip_run::trial::{Comparison, FlashSpent};
    /// let flash = FlashSpent { stored_bytes: 2000, compressed_bytes: 1000 };
    /// let json = r#"{"command": [], "image": "", "session": false, "instances": 1, "trials": [],
    ///     "flash": {"stored_bytes": 2000, "compressed_bytes": 1000},
    ///     "saved_bytes": 0, "saved_if_in_flash_bytes": 500, "notes": []}"#;
    /// let comparison: Comparison = serde_json::from_str(json).unwrap();
    /// assert_eq!(comparison.saved_per_flash_byte(), (Some(0.25), Some(0.5)));
    /// ```
    pub fn saved_per_flash_byte(&self) -> (Option<f64>, Option<f64>) {
        let more = self
            .flash
            .stored_bytes
            .saturating_sub(self.flash.compressed_bytes);
        let per = |bytes: u64| match bytes {
            0 => None,
            bytes => Some(self.saved_if_in_flash_bytes as f64 / bytes as f64),
        };
        (per(self.flash.stored_bytes), per(more))
    }
}
