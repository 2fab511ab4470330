//! The command that builds images: what it says, what it makes of wrong words, what is left when it is killed.

#[path = "common/tree.rs"]
mod tree;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tree::{noise, sample_tree, xip_image};

#[test]
fn the_command_builds_and_tells() {
    let dir = sample_tree();
    let root = dir.path().join("root");
    let [root, image] = [root, dir.path().join("image")].map(|p| p.to_str().unwrap().to_owned());
    let output = xip_image(&["build", "--json", &root, &image]);
    assert!(output.status.success(), "{output:?}");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["image_bytes"], fs::metadata(&image).unwrap().len());
    assert!(summary["in_place_bytes"].as_u64().unwrap() > 0);
    // Made with the umask, like any file; tempfile's own would be 0600.
    let mode = fs::metadata(&image).unwrap().permissions().mode();
    fs::write(dir.path().join("plain"), "").unwrap();
    assert_eq!(
        mode,
        fs::metadata(dir.path().join("plain"))
            .unwrap()
            .permissions()
            .mode()
    );

    // One glob of two is worth a warning; a glob that is all there is was meant otherwise.
    let output = xip_image(&["build", "--xip=/no/such/*", "--xip=/data/*", &root, &image]);
    assert!(output.status.success());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("warning: --xip=no/such/*: no regular file"),
        "{stderr}"
    );
    let output = xip_image(&["build", "--xip=auto", "--xip=/no/such/*", &root, &image]);
    assert_eq!(output.status.code(), Some(125));
    let output = xip_image(&["--version"]);
    assert!(output.stdout.starts_with(b"xip-image "));

    for (args, code) in [
        (&["build"][..], 125),
        (&["build", "--page-size", "8192", &root, &image], 125),
        (&["build", "--xip=none", "--xip=all", &root, &image], 125),
        (&["build", "--name=seventeen letters", &root, &image], 125),
        (&["ls", &image, "/missing"], 127),
        (&["ls", &image, "/data/one/more"], 126),
        (&["cat", &image, "/loop"], 126),
        (&["cat", &image, "/data"], 125),
        (&["info", "/dev/null"], 125),
        (&["ls", &image, "/data/one"], 0),
        (&["map", &image], 0),
        (&["--help"], 0),
    ] {
        let output = xip_image(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    }
    let output = xip_image(&["cat", &image, "/absolute"]);
    assert!(output.stdout == tree::text(25501));
    for (command, key) in [
        ("ls", "0"),
        ("info", "pages"),
        ("map", "files"),
        ("check", "findings"),
    ] {
        let output = xip_image(&[command, "--json", &image]);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(
            json.get(key).is_some() || json.is_array(),
            "{command}: {json}"
        );
    }
    let output = xip_image(&["ls", "-lR", &image]);
    let list = String::from_utf8(output.stdout).unwrap();
    assert!(list.contains("-rwsr-sr-x "), "{list}");
    assert!(
        list.contains(r"/data/\xff\xfe back\\slash\nnewline"),
        "{list}"
    );
    assert!(list.contains("/up -> ../../../../etc/passwd"), "{list}");
    // In JSON names are what they are.
    let output = xip_image(&["ls", "-R", "--json", &image]);
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let list = list.as_array().unwrap();
    let odd = list.iter().find(|line| !line["path_bytes"].is_null());
    let hex: String = b"/data/\xff\xfe back\\slash\nnewline"
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(odd.unwrap()["path_bytes"], hex);
    for line in list.iter().filter(|line| line["path_bytes"].is_null()) {
        let path = line["path"].as_str().unwrap();
        assert!(xip_image(&["ls", &image, path]).status.success(), "{path}");
    }
    assert!(
        list.iter()
            .any(|line| line["target"] == "../../../../etc/passwd")
    );
}

/// What cannot be printed is an error, and no file of the image's takes the place of a closed descriptor.
#[test]
fn a_closed_standard_output_is_an_error() {
    let image = tree::golden_path("plain");
    let run = |redirect: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("\"$0\" info \"$1\" {redirect}")]);
        let shell = shell.arg(env!("CARGO_BIN_EXE_xip-image")).arg(&image);
        shell.output().unwrap()
    };
    let closed = run(">&-");
    assert_eq!(closed.status.code(), Some(125));
    let stderr = String::from_utf8(closed.stderr).unwrap();
    assert!(stderr.contains("standard output is closed"), "{stderr}");
    assert_eq!(run(">/dev/full").status.code(), Some(125));
    for redirect in ["2>&- <&-", "2>&-", "<&-"] {
        let output = run(redirect);
        assert!(output.status.success(), "{redirect}");
        assert!(output.stdout.starts_with(b"byte order"), "{redirect}");
    }
}

/// Killed at any moment, a build leaves the old image, or the new one, and nothing beside it.
#[test]
fn a_killed_build_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("root")).unwrap();
    for number in 0..6 {
        fs::write(dir.join(format!("root/{number}")), noise(4 << 20, number)).unwrap();
    }
    let mut killed = 0;
    for (number, millis) in [1, 20, 50, 100, 200, 400].into_iter().enumerate() {
        if number == 3 {
            fs::write(dir.join("image"), "what was there before").unwrap();
        }
        let before = fs::read(dir.join("image")).ok();
        let mut build = Command::new(env!("CARGO_BIN_EXE_xip-image"))
            .arg("build")
            .args([dir.join("root"), dir.join("image")])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(millis));
        build.kill().unwrap();
        if build.wait().unwrap().success() {
            break;
        }
        killed += 1;
        let after = fs::read(dir.join("image")).ok();
        let whole = after.as_ref().is_some_and(|image| image.len() > 24 << 20);
        assert!(after == before || whole, "after {millis} ms");
        for entry in fs::read_dir(dir).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(
                name == "root" || name == "image",
                "{name:?} after {millis} ms"
            );
        }
    }
    assert!(killed > 0, "the build is done before it can be killed");
}
