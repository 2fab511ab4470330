//! What the probes of samples/session/ print, natively and in a session, compared line by line.

use std::collections::{BTreeMap, BTreeSet};

use super::session_limits::LIMITS;

/// The text with SIGSYS taken out of every signal set (16 hexadecimal digits): a session never lets it be blocked, for a
/// trap would kill the process then, and does not pretend that it is.
fn without_sigsys(text: &str) -> String {
    let of_word = |word: &str| match u64::from_str_radix(word, 16) {
        Ok(set) if word.len() == 16 => format!("{:016x}", set & !(1 << 30)),
        _ => word.to_owned(),
    };
    let is_between = |char: char| !char.is_ascii_hexdigit();
    let words = text.split_inclusive(is_between);
    words
        .map(|word| match word.strip_suffix(is_between) {
            Some(digits) => of_word(digits) + &word[digits.len()..],
            None => of_word(word),
        })
        .collect()
}

/// A scenario that a limit names: the name, or a part of it, as the limit has it.
pub(crate) type Named = &'static str;

/// What differs between the two outputs, a line for each, and what does by the limits that are known.
pub(crate) fn differences(probe: &str, native: &str, session: &str) -> (Vec<String>, Vec<Named>) {
    let lines = |text: &str| -> BTreeMap<String, String> {
        text.lines()
            .map(|line| {
                let (scenario, seen) = line.split_once(": ").unwrap_or((line, ""));
                (scenario.to_owned(), without_sigsys(seen))
            })
            .collect()
    };
    let (native, session) = (lines(native), lines(session));
    let scenarios: BTreeSet<&String> = native.keys().chain(session.keys()).collect();
    let (mut wrong, mut limited) = (Vec::new(), Vec::new());
    for scenario in scenarios {
        let of = |lines: &BTreeMap<String, String>| {
            lines
                .get(scenario)
                .map_or("nothing", String::as_str)
                .to_owned()
        };
        let (native, session) = (of(&native), of(&session));
        if native == session {
            continue;
        }
        // Those of a place, and those of everywhere.
        let general = probe.split(", ").next().filter(|name| *name != probe);
        let mut limits = limits_of(probe).chain(general.into_iter().flat_map(limits_of));
        let limit = limits.find(|(named, instead, _)| match instead {
            Some(instead) => scenario == named && session == *instead,
            None => scenario.contains(named) && session != "nothing",
        });
        match limit {
            Some((named, _, why)) => {
                println!("limit: {probe}: {scenario}: {why}");
                limited.push(named);
            }
            None => wrong.push(format!(
                "{scenario}\n      native     {native}\n      in session {session}"
            )),
        }
    }
    (wrong, limited)
}

/// Each scenario that a limit of a probe names, what is seen instead, and why.
pub(crate) fn limits_of(
    probe: &str,
) -> impl Iterator<Item = (Named, Option<&'static str>, &'static str)> {
    let limits = LIMITS.iter().filter(move |limit| limit.probe == probe);
    limits.flat_map(|limit| {
        let scenarios = limit.scenarios.iter();
        scenarios.map(|(named, instead)| (*named, *instead, limit.why))
    })
}
