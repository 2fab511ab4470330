// What the probes of tests/session_calls.rs share. A probe prints a line for each scenario, "scenario: what was seen".
// The lines must be the same in a session as natively, so nothing is printed that changes from run to run: no address,
// no time, no process ID.
//
// A line that says DIFFERENT is wrong everywhere; BROKEN says that the scenario could not be set up.
#ifndef LINES_H
#define LINES_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "session_fds.h"

#ifndef PAGE
#define PAGE 4096L
#endif
#define UNUSED __attribute__((unused))
// How much slower an emulated machine is: so many times fewer rounds, and longer between signals.
#ifndef SLOWER
#define SLOWER 1
#endif
#define ROUNDS(count) ((count) / SLOWER)

// ---- system calls as the kernel has them: no libc in the way, no errno

// Not inlined: a child of vfork(2) shares the stack of its caller.
#if defined __aarch64__
static UNUSED __attribute__((noinline)) long raw(long number, long a, long b, long c, long d, long e, long f) {
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}
#elif defined __arm__
static UNUSED __attribute__((noinline)) long raw(long number, long a, long b, long c, long d, long e, long f) {
    register long r0 __asm__("r0") = a;
    register long r1 __asm__("r1") = b;
    register long r2 __asm__("r2") = c;
    register long r3 __asm__("r3") = d;
    register long r4 __asm__("r4") = e;
    register long r5 __asm__("r5") = f;
    // r7 is the frame pointer of Thumb code.
    __asm__ volatile("mov ip, r7; mov r7, %[number]; svc #0; mov r7, ip"
                     : "+r"(r0)
                     : [number] "r"(number), "r"(r1), "r"(r2), "r"(r3), "r"(r4), "r"(r5)
                     : "ip", "memory");
    return r0;
}
#else
static inline long raw(long number, long a, long b, long c, long d, long e, long f) {
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#endif
// What a mapping begins at is counted in pages where calls have 32 bits an argument.
#ifdef __arm__
#define SYS_mmap SYS_mmap2
#define MAP_OFFSET(at) ((at) / PAGE)
#else
#define MAP_OFFSET(at) (at)
#endif
// What newer architectures have not.
#ifndef SYS_dup2
#define SYS_dup2 SYS_dup3
#endif
#define RAW_(number, a, b, c, d, e, f, ...) \
    raw(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define RAW(...) RAW_(__VA_ARGS__, 0, 0, 0, 0, 0, 0)

static UNUSED long raw_poll(struct pollfd *poll, long count, long milliseconds) {
#ifdef SYS_poll
    return RAW(SYS_poll, poll, count, milliseconds);
#else
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    return RAW(SYS_ppoll, poll, count, &time, NULL, 8);
#endif
}

// Of what a signal handler is given: where a call's answer is, and the instruction that is next.
#if defined __aarch64__
#define ANSWER_OF(context) ((context)->uc_mcontext.regs[0])
#define NEXT_OF(context) ((context)->uc_mcontext.pc)
#elif defined __arm__
#define ANSWER_OF(context) ((context)->uc_mcontext.arm_r0)
#define NEXT_OF(context) ((context)->uc_mcontext.arm_pc)
#else
#define ANSWER_OF(context) ((context)->uc_mcontext.gregs[REG_RAX])
#define NEXT_OF(context) ((context)->uc_mcontext.gregs[REG_RIP])
#endif

static inline int failed(long result) { return result < 0 && result > -4096; }

// "ok", or the name of the error.
static UNUSED const char *err(long result) {
    static const struct {
        int number;
        const char *name;
    } names[] = {
#define NAME(error) {error, #error}
        NAME(EPERM),  NAME(ENOENT), NAME(ESRCH),  NAME(EINTR),  NAME(EIO),     NAME(ENXIO),   NAME(E2BIG),
        NAME(EBADF),  NAME(ECHILD), NAME(EAGAIN), NAME(ENOMEM), NAME(EACCES),  NAME(EFAULT),  NAME(EBUSY),
        NAME(EEXIST), NAME(ENODEV), NAME(EINVAL), NAME(EMFILE), NAME(ETXTBSY), NAME(ENOSYS),  NAME(EOPNOTSUPP),
        NAME(EROFS),  NAME(EDOM),   NAME(ENOTDIR), NAME(EISDIR), NAME(ENOEXEC), NAME(EOVERFLOW), NAME(ETIME),
#undef NAME
    };
    static char unnamed[32];
    if (!failed(result))
        return "ok";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].number == -result)
            return names[i].name;
    snprintf(unnamed, sizeof unnamed, "error %ld", -result);
    return unnamed;
}

// ---- lines

static UNUSED void line(const char *scenario, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void line(const char *scenario, const char *format, ...) {
    char text[4096];
    int at = snprintf(text, sizeof text, "%s: ", scenario);
    va_list args;
    va_start(args, format);
    at += vsnprintf(text + at, sizeof text - at, format, args);
    va_end(args);
    if (at > (int)sizeof text - 1)
        at = sizeof text - 1;
    text[at++] = '\n';
    if (write(1, text, at) != at)
        _exit(99);
}

// Words one after the other; the same again and again is counted: "ok*3 EBADF".
struct words {
    char text[3000], last[32];
    int len, same;
};
static UNUSED void add_word(struct words *words, const char *word) {
    if (words->same && !strcmp(word, words->last)) {
        words->same++;
        return;
    }
    if (words->same && words->len < (int)sizeof words->text - 64) {
        words->len += sprintf(words->text + words->len, "%s%s", words->len ? " " : "", words->last);
        if (words->same > 1)
            words->len += sprintf(words->text + words->len, "*%d", words->same);
    }
    snprintf(words->last, sizeof words->last, "%s", word);
    words->same = 1;
}
static UNUSED const char *all_words(struct words *words) {
    add_word(words, "");
    return words->text;
}

static UNUSED void broken(const char *what) __attribute__((noreturn));
static void broken(const char *what) {
    line(what, "BROKEN: %s", strerror(errno));
    _exit(98);
}

static UNUSED const char *mistakes(int count) {
    static char text[64];
    snprintf(text, sizeof text, "%d wrong: DIFFERENT", count);
    return count ? text : "nothing wrong";
}

// How a process ended, as its parent sees it.
static UNUSED const char *ending(int status) {
    static char text[64];
    if (WIFEXITED(status))
        snprintf(text, sizeof text, "exit %d", WEXITSTATUS(status));
    else
        snprintf(text, sizeof text, "killed by signal %d", WTERMSIG(status));
    return text;
}

// Waits for a child, which is killed if it hangs.
static UNUSED const char *awaited(pid_t pid) {
    int status = 0;
    for (int step = 0; step < 100000; step++) {
        pid_t ended = waitpid(pid, &status, WNOHANG);
        if (ended == pid)
            return ending(status);
        if (ended < 0 && errno != EINTR)
            return "not waited for";
        nanosleep(&(struct timespec){0, 200000}, NULL);
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return "hung";
}

// Waits until a process waits itself, and goes on waiting.
static UNUSED void wait_until_asleep(pid_t pid) {
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    for (int asleep = 0, step = 0; asleep < 5 && step < 5000; step++) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t len = read(fd, text, sizeof text - 1);
        close(fd);
        text[len < 0 ? 0 : len] = 0;
        const char *state = strrchr(text, ')');
        asleep = state && state[2] == 'S' ? asleep + 1 : 0;
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
}

// A scenario in a process of its own, so that the others are seen whatever becomes of it.
static UNUSED void apart(const char *scenario, void (*run)(const char *)) {
    pid_t pid = fork();
    if (pid < 0)
        broken(scenario);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run(scenario);
        _exit(0);
    }
    const char *end = awaited(pid);
    if (strcmp(end, "exit 0")) {
        char name[256];
        snprintf(name, sizeof name, "%s, its end", scenario);
        line(name, "%s", end);
    }
}

// ---- files of the image, and what is mapped of them

static UNUSED int open_file(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        broken(path);
    return fd;
}

static UNUSED size_t size_of(int fd) {
    struct stat stat;
    if (fstat(fd, &stat))
        broken("fstat");
    return stat.st_size;
}

static inline size_t pages_of(size_t size) { return (size + PAGE - 1) / PAGE; }

static UNUSED uint64_t hashed(uint64_t hash, const void *bytes, size_t len) {
    for (const unsigned char *byte = bytes; len--; byte++)
        hash = (hash ^ *byte) * 0x100000001b3;
    return hash;
}
#define HASH_START 0xcbf29ce484222325u

// A page of a file, with zeros behind the file's end.
static UNUSED void file_page(int fd, off_t at, char page[PAGE]) {
    memset(page, 0, PAGE);
    for (ssize_t len = 0, got; len < PAGE; len += got) {
        got = pread(fd, page + len, PAGE - len, at + len);
        if (got < 0)
            broken("pread");
        if (got == 0)
            break;
    }
}

static sigjmp_buf fault_back;
static volatile int fault_code;
static void *volatile fault_at;
static UNUSED void fault(int number, siginfo_t *info, void *context) {
    (void)context;
    fault_code = info->si_code;
    fault_at = info->si_addr;
    siglongjmp(fault_back, number);
}

static UNUSED void catch_faults(void) {
    struct sigaction action = {.sa_sigaction = fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
}

// What reading or (`store`) writing a byte does: 0, SIGBUS or SIGSEGV. The handlers of catch_faults().
static UNUSED int touch(volatile char *at, int store) {
    int number = sigsetjmp(fault_back, 1);
    if (number)
        return number;
    char byte = *at;
    if (store)
        *at = byte;
    return 0;
}

// What a mapping of a file shows, page by page: '=' the file's bytes, '!' others, 'B' SIGBUS, 'S' SIGSEGV; and how many
// of each: "=6B2".
static UNUSED const char *seen(char *map, size_t pages, int fd, off_t at) {
    static char text[2048], bytes[PAGE];
    char last = 0;
    int count = 0, len = 0;
    text[0] = 0;
    for (size_t page = 0; page <= pages; page++) {
        char now = 0;
        if (page < pages) {
            int number = touch(map + page * PAGE, 0);
            file_page(fd, at + page * PAGE, bytes);
            now = number == SIGBUS ? 'B' : number ? 'S' : memcmp(map + page * PAGE, bytes, PAGE) ? '!' : '=';
        }
        if (now == last) {
            count++;
            continue;
        }
        if (last && len < (int)sizeof text - 16)
            len += snprintf(text + len, sizeof text - len, "%c%d", last, count);
        last = now;
        count = 1;
    }
    return strchr(text, '!') ? strcat(text, " DIFFERENT") : text;
}

// A file and its first pages mapped: is the file there? For scenarios whose point is that mmap works at all. Needs
// little stack, no signal and no libc.
struct mapped {
    int fd;
    uint64_t hash;
};
static UNUSED struct mapped remember(const char *path) {
    struct mapped file = {open_file(path), HASH_START};
    char page[PAGE];
    file_page(file.fd, 0, page);
    file.hash = hashed(file.hash, page, PAGE);
    return file;
}
static inline __attribute__((always_inline)) const char *maps(const struct mapped *file) {
    long at = RAW(SYS_mmap, 0, PAGE, PROT_READ, MAP_PRIVATE, file->fd, 0);
    if (failed(at))
        return "mmap fails";
    uint64_t hash = hashed(HASH_START, (void *)at, PAGE);
    if (RAW(SYS_munmap, at, PAGE))
        return "munmap fails";
    return hash == file->hash ? "mapped" : "DIFFERENT";
}

// ---- signal masks as the kernel has them

#define BIT(number) (UINT64_C(1) << ((number) - 1))
#define ALL_SIGNALS (~UINT64_C(0))

// THE place where a mask is compared by a probe itself: a session never blocks SIGSYS, and does not pretend that it does. What
// is printed of masks the test compares in the same way.
static inline int same_mask(uint64_t a, uint64_t b) { return ((a ^ b) & ~BIT(SIGSYS)) == 0; }

static inline long mask_call(int how, const uint64_t *set, uint64_t *old) {
    return RAW(SYS_rt_sigprocmask, how, set, old, 8);
}
static inline uint64_t mask_now(void) {
    uint64_t mask = 0;
    mask_call(SIG_BLOCK, NULL, &mask);
    return mask;
}
static inline void mask_set(uint64_t mask) { mask_call(SIG_SETMASK, &mask, NULL); }

// What rt_sigaction(2) takes.
struct action {
    void *handler;
    unsigned long flags;
    void *restorer;
    // Nowhere aligned to more than a word.
    uint64_t mask __attribute__((packed, aligned(sizeof(long))));
};
static inline long action_call(int number, const struct action *set, struct action *old) {
    return RAW(SYS_rt_sigaction, number, set, old, 8);
}
#ifndef SA_RESTORER
#define SA_RESTORER 0x04000000
#endif

#endif
