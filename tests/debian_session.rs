//! Real work in a session of a Debian system: what is done in place is what is done natively. The work is that of the
//! scripts in tests/debian.

mod common {
    pub mod debian;
    pub mod launch;
    pub mod leftovers;
    pub mod mounted;
    pub mod sample;
}

use std::path::Path;

use common::debian::{User, debian, have_user_namespaces, program_path, programs};
use common::launch::text;

/// Tests that are scripts: all of the directory.
macro_rules! work {
    ($($test:ident $script:literal)*) => {
        $(
            #[test]
            fn $test() {
                let Some(debian) = debian() else { return };
                debian.work(User::Root, $script);
            }
        )*

        #[test]
        fn every_script_is_run() {
            let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/debian");
            for entry in std::fs::read_dir(dir).unwrap() {
                let name = entry.unwrap().file_name();
                assert!([$($script),*].iter().any(|script| name == *script), "{}", name.display());
            }
        }
    };
}

work! {
    text_is_counted_sorted_and_cut "text.bash"
    awk_sed_and_perl "awk-sed-perl.bash"
    find_xargs_tar_and_gzip "files.bash"
    background_jobs_are_waited_for "jobs.bash"
    traps_are_called_and_signals_end_what_they_should "traps.bash"
    scripts_name_their_interpreters "scripts.bash"
    here_documents_process_substitution_and_descriptors "descriptors.bash"
    a_thousand_programs_and_long_pipelines "many.bash"
    python_starts_programs_and_threads "programs.py"
    python_loads_libraries "libraries.py"
    make_builds_a_program "build.bash"
    programs_of_go "go.bash"
    busybox_and_its_applets "busybox.sh"
    programs_and_libraries_of_the_hosts_directories "bound.bash"
}

/// samples/debian, with both C libraries: each does natively what its header says, and in place the same.
#[test]
fn programs_of_c() {
    let Some(debian) = debian() else { return };
    let programs = programs().iter().filter(|sample| !sample.stdout.is_empty());
    let mut count = 0;
    for sample in programs {
        let path = program_path(sample);
        let ended = debian.same(&[&path], "");
        let printed = text(&ended.stdout);
        assert_eq!(printed, sample.stdout, "{path}");
        assert_eq!(ended.status, sample.exit, "{path}");
        assert_eq!(text(&ended.stderr), "", "{path}");
        count += 1;
    }
    assert!(count > 10, "{count} programs");
}

/// The session's first program may be one of a bound directory, and starts itself from there.
#[test]
fn the_first_program_is_of_a_bound_directory() {
    let Some(debian) = debian() else { return };
    let mut count = 0;
    for sample in programs() {
        if !sample.name.ends_with("/masks") && !sample.name.ends_with("/spawn") {
            continue;
        }
        let program = sample.compile().unwrap();
        let path = Path::new("/tmp").join(program.file_name().unwrap());
        let ended = debian.same_with(User::Root, &[&program], &[path.to_str().unwrap()], "");
        assert_eq!(text(&ended.stdout), sample.stdout, "{}", sample.name);
        count += 1;
    }
    assert_eq!(count, 6);
}

/// In a user namespace: no privilege, but all else.
#[test]
fn an_unprivileged_user_does_real_work() {
    let Some(debian) = debian() else { return };
    if !have_user_namespaces() {
        return;
    }
    let identity =
        "id -u; id -g; umask; grep -E '^(Uid|Groups)' /proc/$$/status; readlink /proc/self/exe
        kill -0 1 || chroot / || echo refused";
    let ended = debian.same_with(User::Other, &[], &["/bin/bash", "-c", identity], "");
    assert!(
        text(&ended.stdout).starts_with("1000\n1000\n"),
        "{}",
        ended.shown()
    );
    for script in [
        "descriptors.bash",
        "jobs.bash",
        "libraries.py",
        "bound.bash",
        "build.bash",
    ] {
        debian.work(User::Other, script);
    }
}

#[test]
fn the_end_of_the_first_program_is_the_sessions() {
    let Some(debian) = debian() else { return };
    for signal in ["TERM", "KILL", "SEGV", "SYS", "PIPE"] {
        let script = format!("ulimit -c 0; echo before; kill -{signal} $$; echo after");
        let ended = debian.same(&["/bin/bash", "-c", &script], "");
        assert_eq!(text(&ended.stdout), "before\n", "{signal}");
        assert!(
            ended.status.starts_with("SIG"),
            "{signal}: {}",
            ended.status
        );
    }
    for (argv, status) in [
        (["/usr/bin/env", "no-such"], "127"),
        (["/usr/bin/env", "/etc/passwd"], "126"),
        (["/bin/dash", "/no/such"], "2"),
        (["/bin/bash", "/no/such"], "127"),
    ] {
        assert_eq!(debian.same(&argv, "").status, status, "{argv:?}");
    }
    // What it does not read of its input is for those that it starts.
    let input = "echo first\nread line\nto be read\necho \"$line\"\nexec cat\nfor cat\n";
    let ended = debian.same(&["/bin/bash"], input);
    assert_eq!(text(&ended.stdout), "first\nto be read\nfor cat\n");
}
