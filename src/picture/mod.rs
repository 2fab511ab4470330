//! Pictures for people who would rather look: what is in an image, where the bytes of processes are, what instances take.
//!
//! [`Strip`] is an image page by page; [`strip`](mod@strip), [`bars`], [`lines`] draw charts as SVG; [`page`] puts them into one
//! HTML file, which needs nothing else.

pub mod bars;
pub mod lines;
pub mod page;
pub mod strip;
mod svg;

pub use page::Page;
pub use strip::{Content, Strip};
pub use svg::Chart;
