//! Holds a comparison against an earlier one.

use std::fmt;

use serde::Serialize;

use super::figures::{Change, FIGURES, Of};
use super::{Comparison, Way};
use crate::error::{Error, Result};

/// A figure, then and now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Difference {
    /// Of which way.
    pub way: Way,
    /// What it is.
    pub what: String,
    /// In the baseline, bytes.
    pub before_bytes: u64,
    /// Now, bytes.
    pub now_bytes: u64,
    /// Has it grown by more than is tolerated?
    pub beyond: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{}, {}", self.way.title(), self.what);
        let [before, now] = [self.before_bytes, self.now_bytes].map(|bytes| bytes / 1024);
        let more = i128::from(now) - i128::from(before);
        let verdict = if self.beyond {
            "  BEYOND TOLERANCE"
        } else {
            ""
        };
        write!(f, "{name:43} {before:>9} {now:>9} {more:>+9}{verdict}")
    }
}

/// What has changed since `before`. More than `tolerance_bytes` for an instance, or so much for each instance in what is of
/// all of them, is beyond it; the other page cache is shown and never beyond.
///
/// # Errors
/// If the two are not of the same command and as many instances.
pub fn against(
    before: &Comparison,
    now: &Comparison,
    tolerance_bytes: u64,
) -> Result<Vec<Difference>> {
    let of = |it: &Comparison| (it.command.join(" "), it.instances, it.session);
    if of(before) != of(now) {
        return Err(Error::failed(format!(
            "the baseline is of `{}`, {} instances{}, and not of this: save a new one",
            before.command.join(" "),
            before.instances,
            if before.session { ", a session" } else { "" }
        )));
    }
    let mut differences = Vec::new();
    for trial in &now.trials {
        let Some(old) = before.trial(trial.way) else {
            continue;
        };
        for figure in FIGURES
            .iter()
            .filter(|figure| figure.change != Change::Unsaid)
        {
            let before_bytes = figure.bytes(old, before.instances);
            let now_bytes = figure.bytes(trial, now.instances);
            let limit = tolerance_bytes.saturating_mul(match figure.of {
                Of::Each => 1,
                Of::All => now.instances,
            });
            differences.push(Difference {
                way: trial.way,
                what: figure.name(),
                before_bytes,
                now_bytes,
                beyond: figure.change == Change::Held
                    && now_bytes > before_bytes.saturating_add(limit),
            });
        }
    }
    Ok(differences)
}
