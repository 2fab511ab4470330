// What the exec_*.c drivers share. A driver runs scenario after scenario, each in a child of its own, and prints a line for
// each: `name: what the child and the programs that it executed wrote`, and how the child ended if not with status 0. A
// scenario that returns has failed to execute what it wanted to: then errno's name is written.
//
//     //# missing: ENOENT
//     SCENARIO(missing) { execute("/missing"); }
//
// The comment is what Linux is known to answer: tests/session_exec.rs wants a line that begins so. A driver's arguments are
// names of scenarios; without any it runs them all.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// Programs of the tree: exec_show.c, and the same by a path that is longer than any that a loader would use.
#define SHOW "/bin/show"
#define SHOW_LONG "/bin/show-by-a-path-that-is-quite-long"
#define NOBODY 65534

// What a program may see of the session that keeps it in place, all of it here. It has descriptors of its own; programs of
// the tests use others, below 200. SIGSYS is how the session is entered: its handler, its mask bit.
#include "session_fds.h"
#define TEST_FDS 200
#define SESSION_SIGNALS (1ull << (SIGSYS - 1))

#define SECONDS_LIMIT 20

#ifndef AT_EXECVE_CHECK
#define AT_EXECVE_CHECK 0x10000
#endif

extern char **environ;

static inline const char *errno_name(int number) {
    static const struct {
        int number;
        const char *name;
    } names[] = {
#define E(name) {name, #name}
        {0, "no error"}, E(EPERM),   E(ENOENT), E(ESRCH),  E(EINTR),  E(EIO),      E(ENXIO),        E(E2BIG),   E(ENOEXEC),
        E(EBADF),        E(ECHILD),  E(EAGAIN), E(ENOMEM), E(EACCES), E(EFAULT),   E(EBUSY),        E(EEXIST),  E(ENODEV),
        E(ENOTDIR),      E(EISDIR),  E(EINVAL), E(ENFILE), E(EMFILE), E(ENOTTY),   E(ETXTBSY),      E(ENOSPC),  E(EROFS),
        E(ENOSYS),       E(ELOOP),   E(ESPIPE), E(ELIBBAD), E(ENOTSUP), E(ENAMETOOLONG), E(ESTALE), E(EOVERFLOW),
#undef E
    };
    static char other[20];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].number == number)
            return names[i].name;
    snprintf(other, sizeof other, "errno %d", number);
    return other;
}

static int say_to = 1;

// Writes to standard output, unbuffered: whatever comes next may be another program.
__attribute__((format(printf, 1, 2))) static inline void say(const char *format, ...) {
    char text[4096];
    va_list list;
    va_start(list, format);
    int len = vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (len >= (int)sizeof text)
        len = sizeof text - 1;
    for (int at = 0; at < len;) {
        ssize_t wrote = write(say_to, text + at, len - at);
        if (wrote <= 0)
            _exit(97);
        at += wrote;
    }
}

// A step that must succeed for the scenario to mean anything.
#define need(condition)                                                                                                 \
    do {                                                                                                                \
        if (!(condition)) {                                                                                             \
            say("%s, line %d: %s: %s", __func__, __LINE__, #condition, errno_name(errno));                              \
            _exit(96);                                                                                                  \
        }                                                                                                               \
    } while (0)

// Ends a scenario that has said all.
static inline void done(void) { _exit(0); }

static inline int is_root(void) { return geteuid() == 0; }

// What a `su` does.
static inline void become_nobody(void) {
    if (is_root())
        need(!setgroups(0, NULL) && !setresgid(NOBODY, NOBODY, NOBODY) && !setresuid(NOBODY, NOBODY, NOBODY));
}

// How a child ended; nothing if as it should.
static inline void say_status(int status) {
    if (WIFSIGNALED(status))
        say("; killed by SIG%s", WTERMSIG(status) == SIGSEGV   ? "SEGV"
                                 : WTERMSIG(status) == SIGBUS  ? "BUS"
                                 : WTERMSIG(status) == SIGSYS  ? "SYS"
                                 : WTERMSIG(status) == SIGKILL ? "KILL"
                                 : WTERMSIG(status) == SIGALRM ? "ALRM"
                                 : WTERMSIG(status) == SIGTERM ? "TERM"
                                 : WTERMSIG(status) == SIGUSR1 ? "USR1"
                                                               : "(another)");
    else if (WIFEXITED(status) && WEXITSTATUS(status))
        say("; exit %d", WEXITSTATUS(status));
}

// Reads what a child writes until all have closed the pipe; 0 if that takes too long.
static inline int collect(int from, char *text, size_t size) {
    size_t len = 0;
    time_t end = time(NULL) + SECONDS_LIMIT;
    for (;;) {
        struct pollfd wait = {from, POLLIN, 0};
        if (poll(&wait, 1, 1000) <= 0) {
            text[len] = 0;
            if (time(NULL) >= end)
                return 0;
            continue;
        }
        char part[4096];
        ssize_t got = read(from, part, sizeof part);
        if (got <= 0)
            break;
        for (ssize_t i = 0; i < got && len + 4 < size; i++)
            if (part[i] == '\n')
                len += sprintf(text + len, " / ");
            else
                text[len++] = part[i];
    }
    while (len >= 3 && !memcmp(text + len - 3, " / ", 3))
        len -= 3;
    text[len] = 0;
    return 1;
}

// Runs a scenario in a child and prints its line.
static inline void run(const char *name, void (*scenario)(void)) {
    static char text[1 << 16];
    int ends[2];
    need(!pipe2(ends, O_CLOEXEC));
    pid_t child = fork();
    need(child >= 0);
    if (!child) {
        need(dup2(ends[1], 1) == 1 && dup2(ends[1], 2) == 2 && !close(ends[0]) && !close(ends[1]));
        errno = 0;
        scenario();
        say("%s", errno_name(errno));
        _exit(0);
    }
    close(ends[1]);
    int in_time = collect(ends[0], text, sizeof text), status;
    close(ends[0]);
    if (!in_time)
        kill(child, SIGKILL);
    waitpid(child, &status, 0);
    say("%s: ", name);
    for (size_t at = 0, len = strlen(text); at < len; at += 4000)
        say("%.4000s", text + at);
    say_status(status);
    say("%s\n", in_time ? "" : "; HANGS");
}

static struct scenario {
    const char *name;
    void (*function)(void);
} scenarios[200];
static size_t scenarios_len;

static inline void add_scenario(const char *name, void (*function)(void)) {
    need(scenarios_len < sizeof scenarios / sizeof *scenarios);
    scenarios[scenarios_len++] = (struct scenario){name, function};
}

#define SCENARIO(name)                                                                                                  \
    static void name(void);                                                                                             \
    __attribute__((constructor)) static void add_##name(void) { add_scenario(#name, name); }                           \
    static void name(void)

// The same once more, by somebody else.
#define AS_NOBODY(name)                                                                                                 \
    SCENARIO(nobody_##name) {                                                                                           \
        become_nobody();                                                                                                \
        name();                                                                                                         \
    }

// For a scenario that only root can set up.
static inline void as_root_only(void) {
    if (!is_root()) {
        say("for root only");
        done();
    }
}

// Forgets what only this run has inherited: descriptors, ignored and blocked signals. SIGSYS and the descriptors that are
// the session's are left alone.
static inline void begin(void) {
    uint64_t none = 0, action[8] = {0};
    for (int fd = 3; fd < TEST_FDS; fd++)
        if (!of_session(fd))
            close(fd);
    for (int number = 1; number < 65; number++)
        if (number != SIGSYS)
            syscall(SYS_rt_sigaction, number, action, NULL, sizeof none);
    need(!syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof none));
    need(!setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}));
}

// Runs the scenarios of these names, or all.
static inline int run_scenarios(char **names) {
    begin();
    for (size_t i = 0; i < scenarios_len; i++) {
        char name[100];
        snprintf(name, sizeof name, "%s", scenarios[i].name);
        for (char *at = name; *at; at++)
            if (*at == '_')
                *at = at[1] ? '-' : 0;
        int wanted = !*names;
        for (char **one = names; *one; one++)
            wanted |= !strcmp(*one, name);
        if (wanted)
            run(name, scenarios[i].function);
    }
    return 0;
}

// Waits for a child and says how it ended.
static inline void finish(pid_t child) {
    int status;
    need(child > 0 && waitpid(child, &status, 0) == child);
    say_status(status);
}

// Moves a descriptor to a number that every run has: the number is a part of what the program sees.
static inline int at_number(int fd, int number, int flags) {
    need(fd >= 0);
    if (fd == number)
        need(!fcntl(fd, F_SETFD, flags & O_CLOEXEC ? FD_CLOEXEC : 0));
    else
        need(dup3(fd, number, flags & O_CLOEXEC) == number && !close(fd));
    return number;
}

static inline int open_at(const char *path, int flags, int number) {
    return at_number(open(path, flags), number, flags);
}

// Copies a file: the tree cannot be written to, /tmp can.
static inline void copy(const char *from, const char *to, mode_t mode) {
    static char part[1 << 16];
    unlink(to);
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_EXCL, 0700);
    need(in >= 0 && out >= 0);
    for (ssize_t len; (len = read(in, part, sizeof part)) > 0;)
        need(write(out, part, len) == len);
    need(!fchmod(out, mode) && !close(in) && !close(out));
}

static inline void write_file(const char *path, const char *text, mode_t mode) {
    unlink(path);
    int out = open(path, O_WRONLY | O_CREAT | O_EXCL, 0700);
    need(out >= 0 && write(out, text, strlen(text)) == (ssize_t)strlen(text) && !fchmod(out, mode) && !close(out));
}

#define ARGS(...) ((char *[]){__VA_ARGS__, NULL})
// The usual arguments and environment.
#define ARGV ARGS("arg0", "one", "two words", "")
#define ENV(show) ARGS("A=1", "SHOW=" show, "B=2")

static inline void execute(const char *path) { execve(path, ARGV, ENV("")); }
