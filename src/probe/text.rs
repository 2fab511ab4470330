//! The table for people.

use std::fmt;

use super::{Finding, Probe};
use crate::feature::Need;

/// Where what is said of a feature begins: behind `yes  `.
const INDENT: usize = 5;

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kernel,
            machine,
            page_size,
            uid,
            ..
        } = self;
        writeln!(
            f,
            "Linux {kernel} {machine}, pages of {page_size} bytes, as user {uid}"
        )?;
        let widths = self
            .features
            .iter()
            .map(|finding| plain(finding.feature.title).len());
        let width = widths.max().unwrap_or(0);
        for (need, title) in [
            (Need::Everything, "Nothing runs without"),
            (Need::Session, "A session in place needs"),
            (Need::Detail, "Good to have"),
        ] {
            writeln!(f, "\n{title}:")?;
            let of_need = |finding: &&Finding| finding.feature.needed_for == need;
            for finding in self.features.iter().filter(of_need) {
                show(f, finding, width)?;
            }
        }
        if let Some(image) = &self.image {
            image.fmt(f)?;
        }
        let yes = |truth| if truth { "yes" } else { "NO" };
        writeln!(
            f,
            "\nOne program in place, with the host's root directory: {}\nA session in place, with the image as its root \
             directory: {}",
            yes(self.one_program_in_place),
            yes(self.session_in_place)
        )
    }
}

/// Without the README's marks of code.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

fn show(f: &mut fmt::Formatter<'_>, finding: &Finding, width: usize) -> fmt::Result {
    let feature = finding.feature;
    let here = if finding.available { "yes" } else { "NO" };
    let [title, gives, without] = [feature.title, feature.gives, feature.without].map(plain);
    writeln!(f, "{here:<INDENT$}{title:<width$}  {gives}")?;
    let behind = " ".repeat(INDENT + width + 2);
    writeln!(f, "{behind}else: {without}")?;
    match &finding.detail {
        Some(detail) => writeln!(f, "{behind}here: {detail}"),
        None => Ok(()),
    }
}
