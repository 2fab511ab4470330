//! What a session costs beside what its programs cost natively: per process, and its server.

mod common {
    pub mod debian;
    pub mod launch;
    pub mod leftovers;
    pub mod mounted;
    pub mod release;
    pub mod sample;
    pub mod session;
}

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use common::debian::{Place, Session, debian};
use common::release::launcher;
use common::session::{Waiting, bytes, kib_line, session_of};

/// What a process may cost more than natively, anonymous memory and page tables together.
const PROCESS_LIMIT: u64 = 24 << 10;
/// What a server may have in RAM, its program's page cache included, and how much of that anonymous.
const SERVER_LIMITS: (u64, u64) = (1536 << 10, 512 << 10);

/// Eight of each: what differs by chance, such as addresses and with them page tables, differs less in their mean.
const EIGHT: &str = r#"
    for i in 1 2 3 4 5 6 7 8; do
        /bin/busybox-static cat <&3 &
        /bin/dash -c 'read x; :' <&3 &
        /bin/bash -c 'read x; :' <&3 &
        /usr/bin/perl -e 'use POSIX; <STDIN>' <&3 &
        /usr/bin/python3 -c 'import ctypes, decimal, json, sys; sys.stdin.read()' <&3 &
    done
"#;
const OF_EACH: u64 = 8;

/// The mean of anonymous memory and page tables, in bytes, by program.
fn costs(session: &Waiting) -> BTreeMap<String, [u64; 2]> {
    let mut all: BTreeMap<String, Vec<[u64; 2]>> = BTreeMap::new();
    for &pid in session.pids.iter().filter(|&&pid| pid != session.pid()) {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        let program = String::from_utf8(line).unwrap();
        let program = program.split('\0').next().unwrap().to_owned();
        let cost = [
            kib_line(pid, "smaps_rollup", "Anonymous:"),
            kib_line(pid, "status", "VmPTE:"),
        ];
        all.entry(program).or_default().push(cost);
    }
    let mean = |costs: Vec<[u64; 2]>| {
        assert_eq!(costs.len() as u64, OF_EACH);
        [0, 1].map(|at| costs.iter().map(|cost| cost[at]).sum::<u64>() / OF_EACH)
    };
    let means = all
        .into_iter()
        .map(|(program, costs)| (program, mean(costs)));
    means.collect()
}

#[test]
fn a_process_costs_little_more_than_natively() {
    let Some(debian) = debian() else { return };
    let [native, in_place] = [Place::Native, Place::InPlace].map(|place| {
        let home = Session::new(debian, place);
        let processes = 1 + 5 * OF_EACH as usize;
        let session = Waiting::start(&mut home.command(&["/bin/bash"]), EIGHT, processes);
        costs(&session)
    });
    assert_eq!(native.len(), 5);
    let mut too_much = Vec::new();
    for (program, native) in &native {
        let in_place = in_place[program];
        let [anonymous, tables] = [0, 1].map(|at| {
            let more = in_place[at].cast_signed() - native[at].cast_signed();
            more as f64 / 1024.0
        });
        println!("{program}: anonymous {anonymous:+.1} KiB, page tables {tables:+.1} KiB");
        if anonymous + tables > PROCESS_LIMIT as f64 / 1024.0 {
            too_much.push(program);
        }
    }
    assert!(too_much.is_empty(), "{too_much:?}");
}

#[test]
fn the_server_is_small_even_after_everything_was_read() {
    let (Some(debian), Some(launcher)) = (debian(), launcher()) else {
        return;
    };
    let home = Session::new(debian, Place::InPlace);
    let debug = home.command(&["/bin/bash"]);
    let mut command = Command::new(launcher);
    command.args(debug.get_args()).env_clear();
    let env = debug.get_envs();
    command.envs(env.filter_map(|(name, value)| Some((name, value?))));
    // Every file, those that are compressed too, by several at once.
    let script = "ls -lR / > /dev/null 2>&1; \
                  find /usr /etc -xdev -type f -print0 | xargs -0 -n 100 -P 4 cat > /dev/null;";
    let session = Waiting::start(&mut command, script, 1);
    let shown = session_of(session.pid(), &[]);
    let server = &shown["server"];
    let anonymous = bytes(&server["anonymous_bytes"]);
    let resident = anonymous + bytes(&server["page_cache_bytes"]);
    let pid = bytes(&server["pid"]) as u32;
    println!(
        "server: {} KiB resident, {} KiB of it anonymous; page tables {} KiB",
        resident >> 10,
        anonymous >> 10,
        bytes(&server["page_table_bytes"]) >> 10
    );
    // By other means.
    assert_eq!(resident, kib_line(pid, "smaps_rollup", "Rss:"));
    let (resident_limit, anonymous_limit) = SERVER_LIMITS;
    let smaps = || fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    assert!(resident <= resident_limit, "{}", smaps());
    assert!(anonymous <= anonymous_limit, "{}", smaps());
}
