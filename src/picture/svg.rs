//! A chart in the making, and the colours of all charts: for light, for dark, and on paper.

use std::fmt::Write as _;

/// The width of every chart, in its own units.
pub(super) const WIDTH: u32 = 960;

/// What all charts look like. Colours are told apart by lightness too, so that they are on paper.
pub(super) const STYLE: &str = "\
:root{--paper:#fff;--ink:#1b1f24;--faint:#6b7280;--line:#d5d9df;--in-place:#1a7f5a;--stored:#e0a13a;--compressed:#8a6fc4;\
--metadata:#3f6fb5;--padding:#e6e9ee;--cache:#7fc8a9;--other:#c9ced6;--anonymous:#c8452f;--tables:#7a2a1d;--stub:#3f6fb5;\
--hot:#10151c;--native:#c8452f;--copied:#8a6fc4}\
@media (prefers-color-scheme:dark){:root{--paper:#14171c;--ink:#e6e9ee;--faint:#9aa3af;--line:#363c46;--in-place:#37b084;\
--stored:#d99a35;--compressed:#9d84d6;--metadata:#6a9be0;--padding:#2a303a;--cache:#1f6b50;--other:#525a67;--anonymous:#ef7a63;\
--tables:#b04a37;--stub:#6a9be0;--hot:#ffffff;--native:#ef7a63;--copied:#b39ded}}\
@media print{:root{--paper:#fff;--ink:#000;--faint:#444;--line:#bbb;--padding:#eee}*{print-color-adjust:exact;\
-webkit-print-color-adjust:exact}}\
svg text{font:12px system-ui,sans-serif;fill:var(--ink)}svg .faint{fill:var(--faint)}svg .end{text-anchor:end}\
svg .grid{stroke:var(--line);stroke-width:1;fill:none}svg .curve{fill:none;stroke-width:2.5}";

/// A chart as SVG.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chart {
    title: String,
    body: String,
    height: u32,
}

impl Chart {
    pub(super) fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            body: String::new(),
            height: 0,
        }
    }

    /// Makes it so high at least.
    pub(super) fn reach(&mut self, height: u32) {
        self.height = self.height.max(height);
    }

    /// A rectangle, filled with a colour of the style; pointing at it shows `tip`.
    pub(super) fn rect(&mut self, at: (f64, f64), size: (f64, f64), colour: &str, tip: &str) {
        let ((x, y), (width, height)) = (at, size);
        _ = write!(
            self.body,
            "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" fill=\"var(--{colour})\""
        );
        _ = match tip {
            "" => writeln!(self.body, "/>"),
            tip => writeln!(self.body, "><title>{}</title></rect>", escape(tip)),
        };
    }

    /// Text from a point on, or with the class `end` up to it.
    pub(super) fn text(&mut self, at: (f64, f64), class: &str, text: &str) {
        let (x, y) = at;
        _ = writeln!(
            self.body,
            "<text x=\"{x:.2}\" y=\"{y:.2}\" class=\"{class}\">{}</text>",
            escape(text)
        );
    }

    /// A line through points, of a class.
    pub(super) fn line(&mut self, points: &[(f64, f64)], class: &str, colour: &str) {
        let points: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.2},{y:.2}"))
            .collect();
        let stroke = match colour {
            "" => String::new(),
            colour => format!(" stroke=\"var(--{colour})\""),
        };
        _ = writeln!(
            self.body,
            "<polyline points=\"{}\" class=\"{class}\"{stroke}/>",
            points.join(" ")
        );
    }

    /// What colours mean, in a row at height `y`.
    pub(super) fn legend(&mut self, y: f64, entries: &[(&str, String)]) {
        let mut x = 0.0;
        let mut row = y;
        for (colour, name) in entries {
            let wide = 30.0 + 7.0 * name.chars().count() as f64;
            if x + wide > f64::from(WIDTH) {
                (x, row) = (0.0, row + 20.0);
            }
            self.rect((x, row), (12.0, 12.0), colour, "");
            self.text((x + 17.0, row + 10.5), "", name);
            x += wide;
        }
        self.reach(row as u32 + 24);
    }

    /// What stands in an HTML page.
    pub(super) fn inline(&self) -> String {
        format!(
            "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\" xmlns=\"http://www.w3.org/2000/svg\">\n{}</svg>\n",
            self.height,
            escape(&self.title),
            self.body
        )
    }

    /// The chart's title.
    pub(super) fn title(&self) -> &str {
        &self.title
    }

    /// A file of its own.
    pub fn svg(&self) -> String {
        let (head, rest) = (
            format!(
                "<svg style=\"background:var(--paper)\" width=\"{}\" height=\"{}\" viewBox=\"-16 -40 {} {}\" xmlns=\"http://www.w3.org/2000/svg\">\n\
                 <title>{}</title><style>{STYLE}</style>\n\
                 <rect x=\"-16\" y=\"-40\" width=\"100%\" height=\"100%\" fill=\"var(--paper)\"/>\n",
                WIDTH + 32,
                self.height + 56,
                WIDTH + 32,
                self.height + 56,
                escape(&self.title)
            ),
            format!(
                "<text x=\"0\" y=\"-16\" style=\"font-size:16px\">{}</text>\n{}</svg>\n",
                escape(&self.title),
                self.body
            ),
        );
        head + &rest
    }
}

/// Text as it stands in HTML and SVG. Control characters have no place there.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A length for people.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 if !bytes.is_multiple_of(1024) => format!("{bytes} bytes"),
        _ if bytes > 0 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        0..10_485_760 => format!("{} KiB", bytes / 1024),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}
