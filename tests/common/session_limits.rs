//! What a session answers in another way than the kernel, scenario by scenario of samples/session/, and why. The README's
//! limits of sessions are these.

/// A reason, and where it shows.
pub(crate) struct Limit {
    /// The probe: samples/session/PROBE.c; or `PROBE, PLACE`: only where the image is in such a place.
    pub(crate) probe: &'static str,
    pub(crate) why: &'static str,
    /// Scenarios and what is seen of them in a session, which is "nothing" if a line is missing; or what a scenario's name
    /// has in it, and whatever.
    pub(crate) scenarios: &'static [(&'static str, Option<&'static str>)],
}

const NEVER_BLOCKED: &str =
    "SIGSYS is never blocked, so it comes at once, and inside of its own handler";
const NEEDS_A_STACK: &str = "the handler runs on the alternate stack, if a program has one";
const NO_PAGES: &str = "physical memory that is mapped has no pages that the kernel could give up, hold on to or count";

const LARGE_FRAMES: &str =
    "a trapped call needs room for a signal frame, which is more than 2 KiB on this processor";

pub(crate) const LIMITS: [Limit; 19] = [
    Limit {
        probe: "stacks, large frames",
        why: LARGE_FRAMES,
        scenarios: &[
            ("alternate stack of the least size", Some("nothing")),
            ("alternate stack of the least size, its end", None),
        ],
    },
    // With musl, whose threads may have 2 KiB.
    Limit {
        probe: "processes, large frames",
        why: LARGE_FRAMES,
        scenarios: &[("threads", Some("nothing")), ("threads, its end", None)],
    },
    Limit {
        probe: "remap",
        why: "mremap(2) is not trapped: what grows beyond a direct run shows what follows in the image",
        scenarios: &[("grown", None), ("doubled", None)],
    },
    Limit {
        probe: "remap",
        why: "a file that is direct in part is mapped in pieces, which mremap(2) does not take as one",
        scenarios: &[("moved", None)],
    },
    Limit {
        probe: "remap, physical memory",
        why: NO_PAGES,
        scenarios: &[
            ("advised", None),
            ("synchronized", None),
            ("read by the kernel", None),
        ],
    },
    Limit {
        probe: "files, physical memory",
        why: NO_PAGES,
        scenarios: &[("stores after mprotect", None), ("resident", None)],
    },
    Limit {
        probe: "stacks",
        why: NEEDS_A_STACK,
        scenarios: &[
            ("alternate stack that was unmapped", Some("nothing")),
            ("alternate stack that was unmapped, its end", None),
            ("alternate stack without access", Some("nothing")),
            ("alternate stack without access, its end", None),
        ],
    },
    Limit {
        probe: "actions",
        why: NEVER_BLOCKED,
        scenarios: &[("signal 31", None)],
    },
    Limit {
        probe: "masks",
        why: NEVER_BLOCKED,
        scenarios: &[
            ("a mask that a handler returns", Some("nothing")),
            ("a mask that a handler returns, its end", None),
        ],
    },
    Limit {
        probe: "sigsys",
        why: NEVER_BLOCKED,
        scenarios: &[
            (
                "blocked",
                Some("2 early, pending 0000000000000000, mapped, 2 at last, mask 0000000000000000"),
            ),
            ("blocked, by default", Some("nothing")),
            ("over exec, pending", Some("nothing")),
            ("over exec, pending, pending", Some("nothing")),
            ("over exec, pending, its end", Some("killed by signal 31")),
            // By musl, which blocks all signals around the call.
            ("sent by", None),
            ("suspended", None),
            ("waited for", Some("nothing")),
            ("waited for, its end", Some("killed by signal 31")),
            ("which thread", Some("DIFFERENT")),
        ],
    },
    Limit {
        probe: "sigsys",
        why: "nor is a trap of the program's own filter, which would kill a program that blocks SIGSYS",
        scenarios: &[
            ("own trap, blocked, its end", Some("nothing")),
            ("own trap in its handler, blocked", Some("DIFFERENT: 4242")),
            ("own trap in its handler, blocked, its end", Some("nothing")),
        ],
    },
    Limit {
        probe: "sigsys",
        why: "a handler that does nothing is run for what is ignored: what the kernel does not take up again ends",
        scenarios: &[("poll while it is ignored", Some("EINTR"))],
    },
    Limit {
        probe: "sigsys",
        why: NEEDS_A_STACK,
        scenarios: &[("on which stack", Some("SA_ONSTACK there, without there"))],
    },
    Limit {
        probe: "sigsys",
        why: "a filter of the program's is for the session's handler too, whose calls it must allow",
        scenarios: &[("sandbox that kills", Some("nothing"))],
    },
    Limit {
        probe: "sigsys",
        why: "calls of another ABI would be other calls to the filter",
        scenarios: &[
            (
                "calls of 32 bits",
                Some(
                    "getpid DIFFERENT, rt_sigprocmask ENOSYS 0000000000000000, mapped, 0000000000000000",
                ),
            ),
            ("mmap of 32 bits", Some("ENOSYS, DIFFERENT")),
        ],
    },
    Limit {
        probe: "sigsys",
        why: "a session has a filter, and prctl(2) says so",
        scenarios: &[("seccomp mode", Some("2"))],
    },
    Limit {
        probe: "sigsys",
        why: "a process with a filter cannot have strict mode",
        scenarios: &[("strict mode", Some("EINVAL"))],
    },
    Limit {
        probe: "processes",
        why: "its arguments are in memory, where no filter can see them; C libraries go on with clone(2)",
        scenarios: &[
            ("clone3", Some("ENOSYS")),
            ("clone3, handlers cleared", Some("ENOSYS")),
            ("clone3, too short", Some("ENOSYS")),
            ("clone3 of nothing", Some("ENOSYS")),
        ],
    },
    Limit {
        probe: "descriptors",
        why: "a program that starts another needs three free descriptors for the time being",
        scenarios: &[
            ("limit 3, then a program", Some("exit 90")),
            ("limit 4, then a program", Some("exit 90")),
        ],
    },
];
