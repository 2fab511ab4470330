//! Pictures: what they show is what is there, they need nothing else, and a browser draws them in their colours.

mod common {
    pub mod launch;
    pub mod png;
}

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use common::launch::{Stage, have, run, text};
use common::png::Png;
use serde_json::Value;
use xip_run::cramfs::Image;
use xip_run::picture::Strip;
use xip_run::picture::strip::Content;
use xip_run::trace::Trace;
use xip_run::units::PageSize;

const BUSYBOX: &str = "/bin/busybox";

/// An image with busybox, which runs in place, and a text, which is compressed.
fn stage() -> Option<Stage> {
    if !have("busybox") {
        return None;
    }
    let stage = Stage::new();
    stage.add_at(Path::new(BUSYBOX), Path::new(BUSYBOX));
    let lines: String = (0..40_000).map(|line| format!("line {line}\n")).collect();
    fs::write(stage.in_root(Path::new("/notes.txt")), lines).unwrap();
    let noise: Vec<u8> = (0..90_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    // Nobody should have such a name, so somebody has.
    fs::write(stage.path().join("root").join("<b>&'\"\x1b"), noise).unwrap();
    stage.build::<&str>(&[]);
    Some(stage)
}

fn xip_image(args: &[&str]) -> Output {
    run(
        Command::new(env!("CARGO_BIN_EXE_xip-image")).args(args),
        b"",
    )
}

fn image_of(stage: &Stage) -> Image {
    Image::open(fs::read(stage.image()).unwrap()).unwrap()
}

#[test]
fn a_strip_counts_what_the_map_lists() {
    let Some(stage) = stage() else { return };
    let image = image_of(&stage);
    let strip = Strip::new("x", &image, PageSize::K4, None).unwrap();
    let len = fs::metadata(stage.image()).unwrap().len();
    assert_eq!(strip.pages.len() as u64, len.div_ceil(4096));
    let map: Value = serde_json::from_slice(
        &xip_image(&["map", "--json", stage.image().to_str().unwrap()]).stdout,
    )
    .unwrap();
    let files = map["files"].as_array().unwrap();
    let direct: u64 = files
        .iter()
        .map(|file| file["pages"][0]["direct"].as_u64().unwrap_or(0))
        .sum();
    assert!(direct > 400);
    assert_eq!(strip.count(Content::InPlace) as u64, direct);
    let all: usize = Content::ALL
        .map(|content| strip.count(content))
        .iter()
        .sum();
    assert_eq!(all, strip.pages.len());
    assert!(strip.count(Content::Compressed) > 10);
    // With larger pages what is not aligned for them cannot be mapped.
    let large = Strip::new("x", &image, PageSize::K64, None).unwrap();
    assert!(large.count(Content::InPlace) as u64 * 16 <= direct);

    let shown = strip.text(64);
    let letters: Vec<char> = shown
        .lines()
        .skip(1)
        .take(strip.pages.len().div_ceil(64))
        .flat_map(str::chars)
        .collect();
    assert_eq!(letters.len(), strip.pages.len(), "{shown}");
    assert_eq!(
        letters.iter().filter(|&&letter| letter == '#').count() as u64,
        direct
    );
    let out = text(&xip_image(&["map", "--strip", stage.image().to_str().unwrap()]).stdout);
    assert!(out.contains(&format!("# in place ({direct})")), "{out}");
    // A script gets the list as ever.
    let list = text(&xip_image(&["map", stage.image().to_str().unwrap()]).stdout);
    assert!(
        list.starts_with("/") && !list.contains("# in place"),
        "{list}"
    );
}

#[test]
fn touched_pages_are_where_the_file_is() {
    let Some(stage) = stage() else { return };
    let image = image_of(&stage);
    let mut trace = Trace::new(PageSize::K4);
    trace.runs = 4;
    trace.files.insert(
        BUSYBOX.as_bytes().to_vec(),
        BTreeMap::from([(3, 4), (300, 1)]),
    );
    trace
        .files
        .insert(b"/notes.txt".to_vec(), BTreeMap::from([(0, 2)]));
    trace
        .files
        .insert(b"/nothing".to_vec(), BTreeMap::from([(0, 2)]));
    let strip = Strip::new("x", &image, PageSize::K4, Some((&trace, "runs"))).unwrap();
    let bytes = fs::read(stage.image()).unwrap();
    let program = fs::read(BUSYBOX).unwrap();
    let hot: Vec<(usize, u64)> = (0..)
        .zip(&strip.pages)
        .filter(|(_, page)| page.heat > 0)
        .map(|(at, page)| (at, page.heat))
        .collect();
    let place = |page: usize| {
        let wanted = &program[page * 4096..(page + 1) * 4096];
        bytes.chunks(4096).position(|page| page == wanted).unwrap()
    };
    for (page, heat) in [(3, 4), (300, 1)] {
        assert!(hot.contains(&(place(page), heat)), "{hot:?}");
    }
    let others: Vec<_> = hot
        .iter()
        .filter(|(at, _)| strip.pages[*at].content != Content::InPlace)
        .collect();
    assert_eq!((others.len(), hot.len()), (1, 3), "{hot:?}");
    let file = stage.path().join("a.trace");
    fs::write(&file, trace.to_string()).unwrap();
    let out = xip_image(&[
        "map",
        "--strip",
        "--trace",
        file.to_str().unwrap(),
        stage.image().to_str().unwrap(),
    ]);
    assert!(
        text(&out.stdout).contains("how many of 4 runs touched it"),
        "{}",
        text(&out.stderr)
    );
}

/// A process of the image, until it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All pictures that there are: HTML and SVG of the image, of processes, of a comparison.
fn pictures(stage: &Stage) -> Vec<(String, String)> {
    let (image, dir) = (stage.image(), stage.path().to_owned());
    let image = image.to_str().unwrap();
    let mut command = stage.xip_run();
    let running = Running(
        command
            .args([BUSYBOX, "sleep", "1000"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap(),
    );
    std::thread::sleep(std::time::Duration::from_millis(300));
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let xip_mem = |args: &[&str]| run(Command::new(env!("CARGO_BIN_EXE_xip-mem")).args(args), b"");
    let out = [
        xip_image(&[
            "map",
            "--html",
            &path("map.html"),
            "--svg",
            &path("map.svg"),
            image,
        ]),
        xip_mem(&["--html", &path("mem.html"), "--svg", &path("mem.svg")]),
        xip_mem(&[
            "compare",
            "--also",
            "copy",
            "--html",
            &path("compare.html"),
            "--svg",
            &path("compare.svg"),
            "--image",
            image,
            "--",
            BUSYBOX,
            "sleep",
            "1000",
        ]),
    ];
    for out in out {
        assert!(out.status.success(), "{}", text(&out.stderr));
    }
    drop(running);
    let names = [
        "map.html",
        "mem.html",
        "compare.html",
        "map.svg",
        "mem.svg",
        "compare.svg",
    ];
    names
        .map(|name| (name.to_owned(), fs::read_to_string(dir.join(name)).unwrap()))
        .into()
}

#[test]
fn pictures_need_nothing_else_and_names_stay_names() {
    let Some(stage) = stage() else { return };
    for (name, picture) in pictures(&stage) {
        let without = picture.replace("http://www.w3.org/2000/svg", "");
        for foreign in [
            "http:", "https:", "<script", "src=", "@import", "url(", "href=",
        ] {
            assert!(!without.contains(foreign), "{foreign} in {name}");
        }
        assert!(
            !picture.contains("<b>&'") && !picture.contains('\x1b'),
            "{name}"
        );
        assert!(
            picture.contains("prefers-color-scheme:dark") && picture.contains("@media print"),
            "{name}"
        );
        let opened = picture.matches("<svg").count();
        assert_eq!(opened, picture.matches("</svg>").count(), "{name}");
        assert!(opened > 0 && picture.matches("<rect").count() > 2, "{name}");
        if name.starts_with("map") {
            assert!(picture.contains("&lt;b&gt;&amp;&#39;"), "{name}: {picture}");
        }
    }
}

/// Draws a page with a browser, as people see it.
fn draw(stage: &Stage, name: &str, dark: bool) -> Option<Png> {
    if !have("chromium") {
        return None;
    }
    let profile = tempfile::tempdir().unwrap();
    let picture = stage.path().join(format!("{name}-{dark}.png"));
    let mut command = Command::new("chromium");
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--window-size=1060,1200",
    ]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    command.arg(format!("--screenshot={}", picture.display()));
    // 0 is dark.
    command.arg(format!(
        "--blink-settings=preferredColorScheme={}",
        u8::from(!dark)
    ));
    command.arg(format!("file://{}", stage.path().join(name).display()));
    let out = run(&mut command, b"");
    assert!(picture.exists(), "{}", text(&out.stderr));
    if let Some(keep) = std::env::var_os("XIP_KEEP_PICTURES") {
        fs::copy(
            &picture,
            Path::new(&keep).join(picture.file_name().unwrap()),
        )
        .unwrap();
    }
    Some(Png::decode(&fs::read(&picture).unwrap()))
}

#[test]
fn a_browser_draws_them_in_light_and_in_dark() {
    let Some(stage) = stage() else { return };
    let names: Vec<String> = pictures(&stage).into_iter().map(|(name, _)| name).collect();
    let (light, dark) = ([255, 255, 255], [0x14, 0x17, 0x1c]);
    for (name, colours) in [
        // In place, compressed; anonymous, the image's page cache; native, in place.
        (
            "map.html",
            [
                ([0x1a, 0x7f, 0x5a], [0x37, 0xb0, 0x84]),
                ([0x8a, 0x6f, 0xc4], [0x9d, 0x84, 0xd6]),
            ],
        ),
        (
            "mem.html",
            [
                ([0xc8, 0x45, 0x2f], [0xef, 0x7a, 0x63]),
                ([0x7f, 0xc8, 0xa9], [0x1f, 0x6b, 0x50]),
            ],
        ),
        (
            "compare.html",
            [
                ([0xc8, 0x45, 0x2f], [0xef, 0x7a, 0x63]),
                ([0x1a, 0x7f, 0x5a], [0x37, 0xb0, 0x84]),
            ],
        ),
        (
            "map.svg",
            [
                ([0x1a, 0x7f, 0x5a], [0x37, 0xb0, 0x84]),
                ([0x8a, 0x6f, 0xc4], [0x9d, 0x84, 0xd6]),
            ],
        ),
    ] {
        assert!(names.iter().any(|known| known == name));
        // Each takes its seconds: one in both.
        let modes: &[bool] = match name {
            "map.html" => &[false, true],
            "mem.html" => &[false],
            _ => &[true],
        };
        for &is_dark in modes {
            let Some(png) = draw(&stage, name, is_dark) else {
                return;
            };
            let paper = if is_dark { dark } else { light };
            let all = png.pixels.len();
            assert!(
                png.count(paper) * 3 > all,
                "{name}, dark {is_dark}: {} of {all}",
                png.count(paper)
            );
            for (in_light, in_dark) in colours {
                let colour = if is_dark { in_dark } else { in_light };
                assert!(
                    png.count(colour) > 50,
                    "{name}, dark {is_dark}: {colour:x?} {}",
                    png.count(colour)
                );
            }
        }
    }
}
