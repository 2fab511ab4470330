//! Shells at a terminal, in a session of a Debian system: job control, and keys that are signals. What is shown, to the byte,
//! and how the session ends is what it is natively.

mod common {
    pub mod debian;
    pub mod launch;
    pub mod leftovers;
    pub mod mounted;
    pub mod sample;
    pub mod terminal;
}

use common::debian::{Place, Session, assert_same, debian};
use common::terminal::Terminal;

/// Ends with this, and nothing else does.
const PROMPT: &str = "READY> ";

/// Has the same dialogue in both places.
#[track_caller]
fn same(argv: &[&str], dialogue: impl Fn(&mut Terminal)) -> String {
    let Some(debian) = debian() else {
        return String::new();
    };
    let [native, in_place] = [Place::Native, Place::InPlace].map(|place| {
        println!("{place:?}:");
        let session = Session::new(debian, place);
        let mut terminal = Terminal::start(&session.command(argv));
        dialogue(&mut terminal);
        let mut traces = session.traces();
        let status = session.wait(&mut terminal.child, &mut traces);
        session.assert_gone(&traces);
        // A signal's key flushes what is not shown yet (termios(3), NOFLSH): its own echo may be gone, or not.
        let shown = terminal.finish().replace("^C", "").replace("^\\", "");
        without_pids(&format!("{shown}\nstatus: {status}\n"))
    });
    assert_same(&native, &in_place);
    in_place
}

/// Process numbers, which cannot be the same twice: what interactive shells show of them are `[1] 4711` and, for a job
/// in the background that a signal ended, nothing else.
fn without_pids(transcript: &str) -> String {
    let without = |line: &str| -> Option<String> {
        let at = line.find("[1] ")? + "[1] ".len();
        let end = line[at..]
            .find(|char: char| !char.is_ascii_digit())
            .map_or(line.len(), |len| at + len);
        (end > at).then(|| format!("{}PID{}", &line[..at], &line[end..]))
    };
    let lines = transcript.split_inclusive('\n');
    lines
        .map(|line| without(line).unwrap_or_else(|| line.to_owned()))
        .collect()
}

/// Sets the prompt; as it is typed, it does not look like it.
#[track_caller]
fn begin(terminal: &mut Terminal, first_prompt: &str) {
    terminal.expect(first_prompt);
    terminal.line(r"PS1=READ''Y\>\ ", "", PROMPT);
}

/// Starts a command whose last part copies what is typed, and waits until it does.
#[track_caller]
fn copying(terminal: &mut Terminal, command: &str) {
    // Once the shell has said something, the terminal is no longer as it is for a line to be edited.
    terminal.send(&format!("echo o''n; {command}\r"));
    terminal.expect("on\r\n");
    ping(terminal);
}

#[track_caller]
fn ping(terminal: &mut Terminal) {
    terminal.send("ping\r");
    // Its echo, and the copy.
    terminal.expect("ping\r\nping\r\n");
}

const INTERRUPT: &str = "\x03";
const END_OF_FILE: &str = "\x04";
const SUSPEND: &str = "\x1a";
const QUIT: &str = "\x1c";

/// What every shell with job control does.
fn job_control(terminal: &mut Terminal) {
    terminal.line("ulimit -c 0; echo 6 7; stty size", "24 80", PROMPT);
    copying(terminal, "cat");
    terminal.send(INTERRUPT);
    terminal.expect(PROMPT);
    terminal.line("echo $?", "130", PROMPT);
    copying(terminal, "tee /dev/null | cat | cat");
    terminal.send(INTERRUPT);
    terminal.expect(PROMPT);
    copying(terminal, "cat");
    terminal.send(QUIT);
    terminal.expect(PROMPT);
    terminal.line("echo $?", "131", PROMPT);

    copying(terminal, "cat");
    terminal.send(SUSPEND);
    terminal.expect("Stopped");
    terminal.expect(PROMPT);
    terminal.line("jobs", "Stopped", PROMPT);
    terminal.send("fg\r");
    terminal.expect("fg\r\n");
    terminal.expect("cat\r\n");
    ping(terminal);
    terminal.send(END_OF_FILE);
    terminal.expect(PROMPT);
    terminal.line("jobs; echo $?", "0\r\n", PROMPT);

    terminal.line("sleep 1000 &", "", PROMPT);
    // Until then it may ignore the signal, as its parent does.
    terminal.line("until grep -q sleep /proc/$!/comm; do :; done", "", PROMPT);
    // Reaped before `wait`: shells say different things of a job that they wait for.
    let reaped = r"while grep -q '^State:.[RSD]' /proc/$!/status 2>/dev/null; do :; done";
    terminal.line(
        &format!("kill %1; {reaped}; wait $!; echo status $?"),
        "status 143",
        PROMPT,
    );
    // It may only be told after the next line.
    terminal.line("true", "", PROMPT);
    // A program that does something about it itself, while the one that it waits for is ended.
    copying(
        terminal,
        r#"sh -c 'trap "echo caught" INT; cat; echo after'"#,
    );
    terminal.send(INTERRUPT);
    terminal.expect("caught\r\nafter\r\n");
    terminal.expect(PROMPT);
}

#[test]
fn bash_has_job_control() {
    let argv = ["/bin/bash", "--norc", "--noprofile", "-i"];
    let shown = same(&argv, |terminal| {
        begin(terminal, "# ");
        job_control(terminal);
        // The editor: what was typed before is found again, words are completed.
        terminal.line("\x1b[A\x10\x10", "", PROMPT);
        terminal.line("ls /etc/passw\t", "/etc/passwd\r\n", PROMPT);
        // Python's prompt, and its own way with the key.
        terminal.send("python3 -q\r");
        terminal.expect(">>> ");
        terminal.line("print(6 * 7)", "42", ">>> ");
        terminal.send("print('o' + 'n', input('wo' + 'rd: '))\r");
        terminal.expect("word: ");
        terminal.line("typed", "on typed", ">>> ");
        // In a loop: at its prompt, or in a call, the key might come just before it waits.
        terminal.line("from itertools import count", "", ">>> ");
        terminal.send("{(n or print('o' + 'n')) and 0 for n in count()}\r");
        terminal.expect("on\r\n");
        terminal.send(INTERRUPT);
        terminal.expect("KeyboardInterrupt");
        terminal.expect(">>> ");
        terminal.send(END_OF_FILE);
        terminal.expect(PROMPT);
        // A shell in the shell, with jobs of its own; stopped by itself.
        terminal.send("bash --norc --noprofile\r");
        begin(terminal, "# ");
        copying(terminal, "cat");
        terminal.send(SUSPEND);
        terminal.expect("Stopped");
        terminal.expect(PROMPT);
        terminal.line("suspend", "Stopped", PROMPT);
        terminal.line("fg", "bash", PROMPT);
        terminal.send("exit\r");
        terminal.expect("There are stopped jobs.");
        terminal.expect(PROMPT);
        terminal.send("exit 7\r");
        terminal.expect("exit");
        terminal.expect(PROMPT);
        terminal.line("echo $?", "7", PROMPT);
        terminal.send("exit 42\r");
    });
    assert!(
        shown.is_empty() || shown.ends_with("status: 42\n"),
        "{shown}"
    );
}

#[test]
fn busybox_has_job_control() {
    for busybox in ["/bin/busybox", "/bin/busybox-static"] {
        let shown = same(&[busybox, "sh"], |terminal| {
            begin(terminal, "/tmp # ");
            job_control(terminal);
            terminal.line(
                "busybox sh -c 'echo a''b; exit 3'; echo $?",
                "ab\r\n3",
                PROMPT,
            );
            terminal.send("exit 43\r");
        });
        assert!(
            shown.is_empty() || shown.ends_with("status: 43\n"),
            "{shown}"
        );
    }
}

#[test]
fn dash_has_job_control() {
    let shown = same(&["/bin/dash", "-i"], |terminal| {
        begin(terminal, "# ");
        job_control(terminal);
        terminal.send(END_OF_FILE);
    });
    assert!(
        shown.is_empty() || shown.ends_with("status: 0\n"),
        "{shown}"
    );
}

/// Keys reach a program that is the session's first, too, and end it as they do natively.
#[test]
fn keys_end_a_session() {
    for (argv, key, status) in [
        (&["/bin/cat"][..], INTERRUPT, "SIGINT"),
        (&["/bin/cat"], END_OF_FILE, "0"),
        (
            &["/bin/bash", "-c", "ulimit -c 0; exec cat"],
            QUIT,
            "signal Some(3)",
        ),
        (
            &["/bin/bash", "-c", "trap 'echo caught; exit 9' INT; cat"],
            INTERRUPT,
            "9",
        ),
        (&["/bin/busybox", "cat"], INTERRUPT, "SIGINT"),
    ] {
        let shown = same(argv, |terminal| {
            ping(terminal);
            terminal.send(key);
        });
        let status = format!("status: {status}\n");
        assert!(
            shown.is_empty() || shown.ends_with(&status),
            "{argv:?}: {shown}"
        );
    }
}
