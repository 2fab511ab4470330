//! Plans of hand-made programs in hand-made images; every plan made here is proved too.

mod launch;
mod native;
mod proof;
mod shapes;
mod sources;

use super::testing::{Store, TestFile, image};
use super::*;
use crate::backing::ReadAt;
use crate::cramfs::ImageFile;
use crate::elf::testing::*;
use crate::index::NotDirect;
use crate::units::{FileOffset, ImageOffset, Prot};

const K4: PageSize = PageSize::K4;

/// Plans `/p` of an image with these files and proves the plan; also that copied pages are what they must be.
fn plan_with(files: &[TestFile], options: &PlanOptions) -> Result<LaunchPlan> {
    let image = image(files);
    let plan = LaunchPlan::new(&image, b"/p", options)?;
    plan.verify(&image).unwrap();
    for object in plan.objects() {
        let file = ImageFile::open(&image, &object.inode).unwrap();
        for mapping in &object.mappings {
            let copied = mapping.copied_bytes(&file).unwrap();
            assert_eq!(
                copied.as_ref().map(|bytes| bytes.len() as u64),
                matches!(mapping.source, Source::Copied { .. })
                    .then_some(mapping.pages.len_bytes())
            );
            if let (Some(bytes), Source::Copied { at, file_bytes, .. }) = (copied, mapping.source) {
                let mut own = vec![0; file_bytes as usize];
                file.read_exact_at(&mut own, at.0).unwrap();
                let (head, tail) = bytes.split_at(file_bytes as usize);
                assert!(head == own && tail.iter().all(|&byte| byte == 0));
            }
        }
    }
    Ok(plan)
}

fn plan(maker: &Maker) -> LaunchPlan {
    let file = TestFile::program("p", maker.build());
    plan_with(&[file], &PlanOptions::new(K4)).unwrap()
}

/// Why `/p` is refused.
fn refused(files: &[TestFile], options: &PlanOptions) -> (Kind, String) {
    let err = plan_with(files, options).unwrap_err();
    (err.kind(), err.to_string())
}

fn refused_program(maker: &Maker) -> String {
    let (kind, text) = refused(
        &[TestFile::program("p", maker.build())],
        &PlanOptions::new(K4),
    );
    assert_eq!(kind, Kind::NotRunnable, "{text}");
    text
}

/// The mappings, a line each: the golden form.
fn rows(object: &ObjectPlan) -> Vec<String> {
    let row = |mapping: &Mapping| {
        let source = match mapping.source {
            // A file's data is at a multiple of 64 KiB, so the low bits are those of the file.
            Source::Direct { at } => format!("direct +{:#x}", at.0 & 0xffff),
            Source::Copied {
                at,
                file_bytes,
                why,
            } => format!("copied {at}+{file_bytes:#x} {why}"),
            Source::Zero => "zero".to_owned(),
        };
        let clear = match &mapping.clear {
            Some(clear) => format!(" clear {:x}-{:x}", clear.start, clear.end),
            None => String::new(),
        };
        let pages = mapping.pages;
        format!(
            "{:x}-{:x} {} {source}{clear}",
            pages.start(),
            pages.end(),
            mapping.prot
        )
    };
    object.mappings.iter().map(row).collect()
}
