//! Holds a comparison against an earlier one.

use std::fmt;

use serde::Serialize;

use super::{Comparison, Trial, Way};
use crate::error::{Error, Result};

/// A figure, then and now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Difference {
    /// Of which way.
    pub way: Way,
    /// What it is.
    pub what: &'static str,
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

/// What it is, and where it is found.
type Figure = (&'static str, fn(&Trial) -> u64);

/// Figures that a change must not make larger: RAM, but no page cache of files, which is larger or smaller by what the
/// kernel has read ahead.
const HELD: [Figure; 4] = [
    ("each instance: anonymous", |trial| {
        trial.ram.anonymous_bytes / trial.processes.max(1)
    }),
    ("each instance: RAM of its own", |trial| {
        trial.instance_bytes
    }),
    ("all: RAM of their own", |trial| trial.own_bytes),
    ("all: other page cache", |trial| trial.ram.other_cache_bytes),
];

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
        for (what, of) in HELD {
            let (before_bytes, now_bytes) = (of(old), of(trial));
            let instances = if what.starts_with("all") {
                now.instances
            } else {
                1
            };
            let limit = tolerance_bytes.saturating_mul(instances);
            differences.push(Difference {
                way: trial.way,
                what,
                before_bytes,
                now_bytes,
                beyond: !what.contains("cache") && now_bytes > before_bytes.saturating_add(limit),
            });
        }
    }
    Ok(differences)
}
