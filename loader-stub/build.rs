//! Builds the two loader stubs for the crate's own target, with nothing but rustc and its bundled linker, and hands them
//! to `src/session/` as flat binaries (`$OUT_DIR/launch.bin`, `$OUT_DIR/session.bin`).
//!
//! Why not a cargo package: artifact dependencies need nightly, a workspace member cannot be embedded on stable, and
//! `cargo package` drops a nested Cargo.toml. The result is the same from any directory, byte for byte.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// Where the stub is linked, per architecture: outside 0x10000 and 0x400000, where programs are, and (aarch64) where no
/// kernel configuration starts or ends its mmap area, 36-bit address spaces included.
const BASES: [(&str, u64); 4] = [
    ("x86_64", 0x7f80_0000_0000),
    ("aarch64", 0x8_0000_0000),
    ("arm", 0x7000_0000),
    ("riscv64", 0x10_0000_0000),
];
/// Their crate roots in src/, and the most that each may take, in bytes: pages that are there once for all programs of a
/// session, in a memfd. Where an instruction has four bytes (ARM, not Thumb; AArch64) it may have a page more.
const STUBS: [(&str, u64); 2] = [("launch", 8 * 1024), ("session", 27 * 1024)];
const FOUR_BYTES_EXTRA: u64 = 4096;

fn main() {
    let var = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let source = PathBuf::from(var("CARGO_MANIFEST_DIR")).join("loader-stub");
    let out = PathBuf::from(var("OUT_DIR"));
    println!("cargo::rerun-if-changed={}", source.display());

    let arch = var("CARGO_CFG_TARGET_ARCH");
    let Some(&(_, base)) = BASES.iter().find(|(name, _)| *name == arch) else {
        panic!(
            "xip-run does not know {arch}: loader-stub/src/arch has what a port needs (entry, exit, system calls)"
        );
    };
    println!("cargo::rustc-env=XIP_STUB_BASE={base}");

    for (name, limit) in STUBS {
        let root = source.join("src").join(name).with_extension("rs");
        let binary = out.join(name).with_extension("bin");
        let mut rustc = Command::new(var("RUSTC"));
        rustc
            .arg(root)
            .args([
                "--crate-name=xip_stub",
                "--crate-type=bin",
                "--edition=2024",
            ])
            .arg(format!("--target={}", var("TARGET")))
            .arg("-o")
            .arg(&binary)
            .arg(format!(
                "--remap-path-prefix={}=loader-stub",
                source.display()
            ))
            .args([
                "-Cpanic=abort",
                "-Copt-level=z",
                // By trial: 5 % smaller than what opt-level=z takes for cheap; another 1 % by calling what is the same.
                match arch.as_str() {
                    "x86_64" => "-Cllvm-args=-inline-threshold=25",
                    _ => "-Cllvm-args=-inline-threshold=20",
                },
                "-Cllvm-args=-enable-machine-outliner=always",
                "-Ccodegen-units=1",
                "-Cstrip=symbols",
                "-Clto=fat",
            ])
            .args(["-Cforce-unwind-tables=no", "-Crelocation-model=pic"])
            .arg(match arch.as_str() {
                // Outlined, an atomic operation asks getauxval(3) at first which instructions there are.
                "aarch64" => "-Ctarget-feature=-crt-static,-outline-atomics",
                _ => "-Ctarget-feature=-crt-static",
            })
            .args([
                "-Clinker=rust-lld",
                "-Clinker-flavor=ld.lld",
                "-Clink-self-contained=no",
            ])
            .args(["-Cdefault-linker-libraries=no", "-Cdebug-assertions=no"])
            .args(
                ["-static", "--no-pie", "--build-id=none", "--oformat=binary"]
                    .map(|arg| format!("-Clink-arg={arg}")),
            )
            .arg(format!("-Clink-arg=--defsym=XIP_STUB_BASE={base:#x}"))
            .arg(format!("-Clink-arg=-T{}", source.join("stub.ld").display()));
        let status = rustc
            .status()
            .unwrap_or_else(|err| panic!("cannot run {rustc:?}: {err}"));
        assert!(status.success(), "building a loader stub failed: {rustc:?}");

        let stub = std::fs::read(&binary)
            .unwrap_or_else(|err| panic!("cannot read {}: {err}", binary.display()));
        let size = stub.len() as u64;
        assert!(
            name != "session" || !has_address(&stub, base, &arch),
            "the stub of a session has an address in it, which is wrong where it is mapped to: src/mem.rs"
        );
        let limit = limit
            + if arch != "x86_64" {
                FOUR_BYTES_EXTRA
            } else {
                0
            };
        assert!(
            size > 0 && size <= limit,
            "the stub of a {name} has {size} bytes; 1 to {limit} are allowed"
        );
    }
}

/// Is there an address of the stub itself in it? But for those of its sources' names: where a panic is, nobody reads.
fn has_address(stub: &[u8], base: u64, arch: &str) -> bool {
    let width = if arch == "arm" { 4 } else { 8 };
    // The code begins behind 512 bytes for the ELF header: stub.ld.
    let start = base + 0x200;
    let target = |word: &[u8]| {
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(word);
        let at = u64::from_le_bytes(bytes).checked_sub(start)?;
        stub.get(usize::try_from(at).ok()?..)
    };
    stub.chunks_exact(width)
        .filter_map(target)
        .any(|target| !target.is_empty() && !target.starts_with(b"loader-stub/src/"))
}
