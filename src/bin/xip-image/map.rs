//! `xip-image map`: where everything lies, as a list, and as a strip of pages.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use clap::Args;
use xip_run::error::{Error, Result};
use xip_run::inspect;
use xip_run::picture::{Page, Strip};
use xip_run::trace::Trace;
use xip_run::units::PageSize;

use super::{One, open, output, page_size};

#[derive(Args)]
pub(crate) struct Map {
    #[command(flatten)]
    one: One,
    /// Print the image as a strip of characters, one for each page or for so many, instead
    #[arg(long, conflicts_with = "json")]
    strip: bool,
    /// Write the strip to this file instead, in a page of HTML that needs nothing else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "strip"])]
    html: Option<PathBuf>,
    /// Write the strip to this file instead, as SVG
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "strip"])]
    svg: Option<PathBuf>,
    /// In the strip show which pages were touched: a file of `xip-run --trace`
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    trace: Option<PathBuf>,
    /// In the strip show what a kernel with pages of this size can map: 4096, 16384 or 65536
    #[arg(long, value_name = "BYTES", default_value = "4096", value_parser = page_size)]
    page_size: PageSize,
}

impl Map {
    pub(crate) fn run(self) -> Result<()> {
        let image = open(&self.one.image)?;
        let wants_strip = self.strip || self.html.is_some() || self.svg.is_some();
        // People see the strip above the list.
        let is_for_people = !self.one.json && io::stdout().is_terminal();
        if !wants_strip && !is_for_people && self.trace.is_none() {
            let map = inspect::map(&image)?;
            return self.one.print(&map, map.errors.len());
        }
        let in_file = |path: &Path, err: &dyn std::fmt::Display| {
            Error::failed(format!("{}: {err}", path.display()))
        };
        let trace = match &self.trace {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|err| in_file(path, &err))?;
                Some(Trace::parse(&text).map_err(|err| in_file(path, &err))?)
            }
            None => None,
        };
        let name = self.one.image.display().to_string();
        let touched = trace.as_ref().map(|trace| (trace, "runs"));
        let strip = Strip::new(&name, &image, self.page_size, touched)?;
        if let Some(path) = &self.svg {
            std::fs::write(path, strip.chart().svg()).map_err(|err| in_file(path, &err))?;
        }
        if let Some(path) = &self.html {
            let mut page = Page::new(&format!("The image {name}"));
            page.chart(&strip.chart());
            std::fs::write(path, page.html()).map_err(|err| in_file(path, &err))?;
        }
        if self.svg.is_none() && self.html.is_none() {
            output(|out| writeln!(out, "{}", strip.text(64)))?;
        }
        match wants_strip {
            true => Ok(()),
            false => {
                let map = inspect::map(&image)?;
                self.one.print(&map, map.errors.len())
            }
        }
    }
}
