// What a failing execve leaves behind: nothing. Each kind of failure two hundred times, by this process and by vfork
// children; then all descriptors, the session's too, the mappings and every byte of writable memory must be as before.
#include "exec.h"
#include "exec_show.h"

#define TIMES 200

// Not in static memory, which is compared.
struct snapshot {
    uint64_t descriptors, mappings, memory, mask;
    int descriptors_len, mappings_len;
};

// Reads all of a file of /proc; `text` is the caller's stack.
static size_t read_all(const char *path, char *text, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t len = 0;
    need(fd >= 0);
    for (ssize_t got; (got = read(fd, text + len, size - 1 - len)) > 0;)
        len += got;
    need(!close(fd) && len < size - 1);
    text[len] = 0;
    return len;
}

static void take(struct snapshot *of) {
    char text[1 << 16];
    memset(of, 0, sizeof *of);
    of->descriptors = of->mappings = of->memory = HASH_START;
    for (int fd = 0; fd < 1024; fd++) {
        char path[40], link[300];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t len = readlink(path, link, sizeof link);
        if (fcntl(fd, F_GETFD) < 0)
            continue;
        of->descriptors_len++;
        of->descriptors = hash_of(&fd, sizeof fd, of->descriptors);
        of->descriptors = hash_of(link, len < 0 ? 0 : len, of->descriptors);
    }
    read_all("/proc/self/maps", text, sizeof text);
    for (char *line = text, *next; *line; line = next) {
        unsigned long first, last;
        char kind[5];
        next = strchr(line, '\n') + 1;
        need(sscanf(line, "%lx-%lx %4s", &first, &last, kind) == 3);
        of->mappings_len++;
        // The stack grows with use.
        if ((uintptr_t)text >= first && (uintptr_t)text < last)
            continue;
        of->mappings = hash_of(line, next - line, of->mappings);
        if (kind[0] == 'r' && kind[1] == 'w' && kind[3] == 'p')
            of->memory = hash_of((void *)first, last - first, of->memory);
    }
    need(!syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &of->mask, sizeof of->mask));
    of->mask &= ~SESSION_SIGNALS;
}

static void compare(const struct snapshot *before) {
    struct snapshot after;
    take(&after);
    if (after.descriptors_len != before->descriptors_len)
        say(", %d DESCRIPTORS MORE", after.descriptors_len - before->descriptors_len);
    else if (after.descriptors != before->descriptors)
        say(", OTHER DESCRIPTORS");
    if (after.mappings_len != before->mappings_len)
        say(", %d MAPPINGS MORE", after.mappings_len - before->mappings_len);
    else if (after.mappings != before->mappings)
        say(", OTHER MAPPINGS");
    if (after.memory != before->memory)
        say(", OTHER MEMORY");
    if (after.mask != before->mask)
        say(", OTHER MASK");
}

struct call {
    int dir;
    const char *path;
    char **argv, **envp;
    int flags;
};

// Fails in this process, then in vfork children, and compares.
static void fails(struct call call) {
    struct snapshot before;
    volatile int first = 0, differing = 0;
    // What is made at first use is made now; what vfork and waitpid leave in errno is in memory too.
    int error = errno;
    syscall(SYS_execveat, call.dir, call.path, call.argv, call.envp, call.flags);
    first = errno;
    pid_t child = vfork();
    if (!child)
        _exit(0);
    waitpid(child, NULL, 0);
    errno = error;
    take(&before);
    errno = error;
    take(&before);
    for (volatile int i = 0; i < TIMES; i++) {
        syscall(SYS_execveat, call.dir, call.path, call.argv, call.envp, call.flags);
        differing += errno != first;
    }
    errno = error;
    say("%s", errno_name(first));
    compare(&before);
    say("; in vfork children");
    for (volatile int i = 0; i < TIMES; i++) {
        child = vfork();
        if (!child) {
            syscall(SYS_execveat, call.dir, call.path, call.argv, call.envp, call.flags);
            differing += errno != first;
            _exit(0);
        }
        waitpid(child, NULL, 0);
    }
    errno = error;
    compare(&before);
    if (differing)
        say(", %d OTHER ERRORS", differing);
    done();
}

static void path_fails(const char *path) { fails((struct call){AT_FDCWD, path, ARGV, ENV(""), 0}); }

//# missing: ENOENT; in vfork children
SCENARIO(missing) { path_fails("/missing"); }
SCENARIO(empty) { path_fails(""); }
SCENARIO(null) { path_fails(NULL); }
SCENARIO(below_a_file) { path_fails(SHOW "/x"); }
SCENARIO(link_loop) { path_fails("/links/loop"); }
SCENARIO(too_long) {
    static char path[5000];
    memset(path, 'x', sizeof path - 1);
    path_fails(path);
}
//# directory: EACCES; in vfork children
SCENARIO(directory) { path_fails("/bin"); }
SCENARIO(fifo) { path_fails("/files/fifo"); }
SCENARIO(device) { path_fails("/dev/null"); }
//# not-executable: EACCES; in vfork children
SCENARIO(not_executable) { path_fails("/files/mode-0644"); }
SCENARIO(nobody_private) {
    become_nobody();
    path_fails("/private/show");
}
//# text: ENOEXEC; in vfork children
SCENARIO(text) { path_fails("/elf/text"); }
SCENARIO(empty_file) { path_fails("/elf/empty"); }
SCENARIO(truncated) { path_fails("/elf/truncated-header"); }
SCENARIO(other_machine) { path_fails("/elf/other-machine"); }
//# missing-loader: ENOENT; in vfork children
SCENARIO(missing_loader) { path_fails("/elf/interp-missing"); }
SCENARIO(text_loader) { path_fails("/elf/interp-text"); }
//# missing-interpreter: ENOENT; in vfork children
SCENARIO(missing_interpreter) { path_fails("/scripts/interpreter-missing"); }
SCENARIO(text_interpreter) { path_fails("/scripts/interpreter-text"); }
//# nested-too-deep: ELOOP; in vfork children
SCENARIO(nested_too_deep) { path_fails("/scripts/nested-9"); }
SCENARIO(bad_argv) { fails((struct call){AT_FDCWD, SHOW, (char **)1, ENV(""), 0}); }
SCENARIO(bad_argument) { fails((struct call){AT_FDCWD, SHOW, ARGS("arg0", (char *)1), ENV(""), 0}); }
SCENARIO(bad_envp) { fails((struct call){AT_FDCWD, SHOW, ARGV, (char **)1, 0}); }
SCENARIO(bad_argument_script) { fails((struct call){AT_FDCWD, "/scripts/plain", ARGS("arg0", (char *)1), ENV(""), 0}); }
static char huge[200000];
//# argument-too-long: E2BIG; in vfork children
SCENARIO(argument_too_long) {
    memset(huge, 'x', sizeof huge - 1);
    fails((struct call){AT_FDCWD, SHOW, ARGS("arg0", huge), ENV(""), 0});
}
// No string too long, but all of them: more than the least limit, 128 KiB.
static char **too_much_by_all(void) {
    static char *many[3];
    need(!setrlimit(RLIMIT_STACK, &(struct rlimit){512 << 10, 8 << 20}));
    memset(huge, 'x', 100000);
    many[0] = many[1] = huge;
    return many;
}
//# too-much: E2BIG; in vfork children
SCENARIO(too_much) { fails((struct call){AT_FDCWD, SHOW, too_much_by_all(), ENV(""), 0}); }
SCENARIO(too_much_script) { fails((struct call){AT_FDCWD, "/scripts/argument", too_much_by_all(), ENV(""), 0}); }
SCENARIO(bad_fd) { fails((struct call){99, "", ARGV, ENV(""), AT_EMPTY_PATH}); }
SCENARIO(bad_flags) { fails((struct call){AT_FDCWD, SHOW, ARGV, ENV(""), 0x4000}); }
SCENARIO(nofollow) { fails((struct call){AT_FDCWD, "/links/1", ARGV, ENV(""), AT_SYMLINK_NOFOLLOW}); }
SCENARIO(script_cloexec) {
    fails((struct call){open_at("/scripts/plain", O_RDONLY | O_CLOEXEC, 10), "", ARGV, ENV(""), AT_EMPTY_PATH});
}
SCENARIO(fd_of_text) { fails((struct call){open_at("/elf/text", O_RDONLY, 10), "", ARGV, ENV(""), AT_EMPTY_PATH}); }
SCENARIO(fd_of_pipe) {
    int ends[2];
    need(!pipe(ends));
    fails((struct call){at_number(ends[0], 10, 0), "", ARGV, ENV(""), AT_EMPTY_PATH});
}
SCENARIO(being_written) {
    copy(SHOW, "/tmp/busy", 0755);
    need(open("/tmp/busy", O_WRONLY | O_CLOEXEC) >= 0);
    path_fails("/tmp/busy");
}
SCENARIO(table_full) {
    need(!setrlimit(RLIMIT_NOFILE, &(struct rlimit){30, 30}));
    // One is left for reading /proc.
    while (open("/dev/null", O_RDONLY) >= 0)
        ;
    need(!close(29));
    path_fails("/elf/text");
}

// A success of a vfork child leaves nothing in its parent either.
//# success: nothing changed
SCENARIO(success) {
    struct snapshot before;
    int error = errno;
    for (volatile int i = 0; i < TIMES + 2; i++) {
        // The first two make what is made at first use.
        if (i == 2) {
            errno = error;
            take(&before);
        }
        pid_t child = vfork();
        if (!child) {
            syscall(SYS_execve, i % 2 ? SHOW : "/scripts/plain", ARGS("arg0"), ENV("nothing"));
            _exit(93);
        }
        waitpid(child, NULL, 0);
    }
    errno = error;
    say("nothing changed");
    compare(&before);
    done();
}

int main(int argc, char **argv) {
    (void)argc;
    // Without what writes to memory on its own: the kernel to the C library's rseq area, the dynamic linker to tables.
    if (!getenv("LD_BIND_NOW")) {
        need(!setenv("LD_BIND_NOW", "1", 1) && !setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0", 1));
        execv(argv[0], argv);
    }
    return run_scenarios(argv + 1);
}
