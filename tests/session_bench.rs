//! The benchmark of sessions works. Its figures are judged where it is run for them: `cargo bench --bench session`.

#[allow(dead_code, reason = "its main, and what only that calls")]
#[path = "bench/session.rs"]
mod bench;
#[path = "common/mounted.rs"]
mod mounted;

use std::path::Path;

use bench::{Args, launch};

#[test]
fn every_row_has_figures() {
    if !mounted::can_mount() || !launch::have("cc") || !launch::have("busybox") {
        return;
    }
    let json = tempfile::NamedTempFile::new().unwrap();
    let args = Args {
        quick: true,
        json: Some(json.path().to_owned()),
        ..Args::default()
    };
    let figures = bench::run(&args, Path::new(launch::XIP_RUN)).unwrap();
    assert!(figures.time.len() >= 16, "{figures:#?}");
    for row in &figures.time {
        assert!(row.places.len() >= 2, "{row:#?}");
        for (place, time) in &row.places {
            let time = time.as_ref().unwrap();
            assert!(time.ns.median > 0.0, "{place:?} {row:#?}");
            assert!(time.ratio.median > 0.0, "{place:?} {row:#?}");
        }
    }
    assert!(figures.memory.len() >= 4, "{figures:#?}");
    for row in &figures.memory {
        let memory = row.figures.as_ref().unwrap();
        // Each has a stack, a heap or data, and page tables for them.
        assert!(memory.own_bytes >= row.instances * 16384, "{row:#?}");
        assert!(memory.all_bytes > memory.own_bytes, "{row:#?}");
    }
    let server = figures.server.unwrap();
    assert!(server.resident_bytes > server.anonymous_bytes, "{server:?}");
    assert!(figures.bars.iter().all(|bar| bar.measured.is_finite()));
    let written: serde_json::Value =
        serde_json::from_slice(&std::fs::read(json.path()).unwrap()).unwrap();
    let rows = written["time"].as_array().unwrap();
    assert_eq!(rows.len(), figures.time.len());
    assert!(rows[0]["places"]["session"]["Ok"]["ratio"]["median"].is_f64());
}
