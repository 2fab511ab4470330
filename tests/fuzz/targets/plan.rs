//! Invariant: whatever bytes an image has, each of its files is refused as a program, for a reason that is not the planner's
//! own, or has a plan that passes its proof and copies what it says.
//!
//! The options are the superblock's edition, which nothing else looks at.

use xip_run::backing::NoCow;
use xip_run::cramfs::{Image, ImageFile, InodeKind};
use xip_run::error::Kind;
use xip_run::plan::{LaunchPlan, PlanOptions, Source, Start};
use xip_run::units::PageSize;

use super::{entries, image_of, max_content_bytes, open};

/// The target.
pub fn run(input: &[u8]) {
    let bytes = image_of(input);
    let Some(image) = open(&bytes) else { return };
    let bits = image.superblock().edition as usize;
    let options = PlanOptions {
        machine: None,
        copy_text: bits & 4 != 0,
        copy_data: bits & 8 != 0,
        cow: if bits & 16 != 0 {
            Err(NoCow::SharedOnly)
        } else {
            Ok(())
        },
        ..PlanOptions::new(PageSize::ALL[bits % PageSize::ALL.len()])
    };
    let mut left_bytes = max_content_bytes(&image);
    let files = entries(&image).into_iter();
    let programs = files.filter(|found| {
        let left = left_bytes.checked_sub(found.inode.size);
        let is_looked_at = found.inode.kind == InodeKind::File && left.is_some();
        if is_looked_at {
            left_bytes = left.unwrap();
        }
        is_looked_at
    });
    for found in programs.take(8) {
        match LaunchPlan::new(&image, &found.path, &options) {
            Ok(plan) => prove(&image, &plan, false),
            Err(err) => {
                // Failed is a plan that its own checks refuse, or bytes that memory could not give.
                assert_ne!(err.kind(), Kind::Failed, "{err}");
                assert!(err.to_string().len() < 8192, "an endless message");
            }
        }
    }
}

/// Holds a plan against its proof, and uses it as its users do. `sound`: the blocks can all be read.
pub fn prove(image: &Image, plan: &LaunchPlan, sound: bool) {
    if let Err(err) = plan.verify(image) {
        // A block that does not inflate is found only by reading it.
        assert!(!sound && err.kind() == Kind::BadImage, "{err}");
        return;
    }
    let totals = plan.totals();
    assert!(totals.upfront_ram_bytes <= totals.worst_ram_bytes + totals.copy_on_write_bytes);
    let explanation = plan.explain(Start::Alone);
    assert!(!explanation.to_string().is_empty());
    serde_json::to_string(&explanation).unwrap();
    for object in plan.objects() {
        let file = ImageFile::open(image, &object.inode).unwrap();
        for mapping in &object.mappings {
            let copied = mapping.copied_bytes(&file).unwrap();
            let is_copied = matches!(mapping.source, Source::Copied { .. });
            let len = is_copied.then_some(mapping.pages.len_bytes());
            assert_eq!(copied.map(|bytes| bytes.len() as u64), len);
            assert_eq!(object.mapping_at(mapping.pages.start()), Some(mapping));
            assert_eq!(object.mapping_at(mapping.pages.end() - 1), Some(mapping));
        }
    }
}
