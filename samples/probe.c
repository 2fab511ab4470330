// Says all that a new process can find out about itself, before anything else has run in it: tests/differential.rs
// compares what it says after execve(2) and after xip-run.
//
// Written to standard output as sections: `@NAME LENGTH`, newline, that many bytes, newline. There is no C library in it:
// nothing may have changed a register, the stack or a signal's disposition before it looks.
#include "bare.h"

typedef unsigned long word;

enum { O_DIRECTORY = 0200000 };

// ---- registers at entry

struct state {
    word general[16]; // rax rbx rcx rdx rsi rdi rbp rsp r8 ... r15
    word flags;
    unsigned char vector[16][16];
    unsigned mxcsr;
    unsigned short x87_control;
} state_at_entry;

// Instead of bare.h's entry, which has no interest in the registers.
__asm__(".globl probe_start\nprobe_start:\n"
        " mov %rax, state_at_entry+0(%rip)\n mov %rbx, state_at_entry+8(%rip)\n"
        " mov %rcx, state_at_entry+16(%rip)\n mov %rdx, state_at_entry+24(%rip)\n"
        " mov %rsi, state_at_entry+32(%rip)\n mov %rdi, state_at_entry+40(%rip)\n"
        " mov %rbp, state_at_entry+48(%rip)\n mov %rsp, state_at_entry+56(%rip)\n"
        " mov %r8, state_at_entry+64(%rip)\n mov %r9, state_at_entry+72(%rip)\n"
        " mov %r10, state_at_entry+80(%rip)\n mov %r11, state_at_entry+88(%rip)\n"
        " mov %r12, state_at_entry+96(%rip)\n mov %r13, state_at_entry+104(%rip)\n"
        " mov %r14, state_at_entry+112(%rip)\n mov %r15, state_at_entry+120(%rip)\n"
        " pushfq\n popq state_at_entry+128(%rip)\n"
        " movups %xmm0, state_at_entry+136(%rip)\n movups %xmm1, state_at_entry+152(%rip)\n"
        " movups %xmm2, state_at_entry+168(%rip)\n movups %xmm3, state_at_entry+184(%rip)\n"
        " movups %xmm4, state_at_entry+200(%rip)\n movups %xmm5, state_at_entry+216(%rip)\n"
        " movups %xmm6, state_at_entry+232(%rip)\n movups %xmm7, state_at_entry+248(%rip)\n"
        " movups %xmm8, state_at_entry+264(%rip)\n movups %xmm9, state_at_entry+280(%rip)\n"
        " movups %xmm10, state_at_entry+296(%rip)\n movups %xmm11, state_at_entry+312(%rip)\n"
        " movups %xmm12, state_at_entry+328(%rip)\n movups %xmm13, state_at_entry+344(%rip)\n"
        " movups %xmm14, state_at_entry+360(%rip)\n movups %xmm15, state_at_entry+376(%rip)\n"
        " stmxcsr state_at_entry+392(%rip)\n fnstcw state_at_entry+396(%rip)\n"
        " xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call bare_main\n ud2\n");

// ---- system calls

static long call(long number, word a, word b, word c, word d, word e) {
    long answer;
    register word r10 __asm__("r10") = d;
    register word r8 __asm__("r8") = e;
    __asm__ volatile("syscall"
                     : "=a"(answer)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return answer;
}

#define CALL(number, ...) CALL_(number, ##__VA_ARGS__, 0, 0, 0, 0, 0)
#define CALL_(number, a, b, c, d, e, ...) call(number, (word)(a), (word)(b), (word)(c), (word)(d), (word)(e))

enum {
    READ = 0, WRITE = 1, OPEN = 2, CLOSE = 3, BRK = 12, SIGACTION = 13, SIGPROCMASK = 14, GETITIMER = 36, GETPID = 39,
    FCNTL = 72, GETCWD = 79, READLINK = 89, UMASK = 95, GETPPID = 110, GETPGID = 121, GETSID = 124, SIGPENDING = 127,
    SIGALTSTACK = 131, PERSONALITY = 135, GETPRIORITY = 140, GETSCHEDULER = 145, PRCTL = 157, ARCH_PRCTL = 158,
    GETAFFINITY = 204, GETDENTS64 = 217, EXIT_GROUP = 231, IOPRIO_GET = 252, GET_ROBUST_LIST = 274, PRLIMIT64 = 302,
    RSEQ = 334,
};

// ---- output

static word length(const char *string) {
    word len = 0;
    while (string[len])
        len++;
    return len;
}

static char *append(char *to, const char *string) {
    while (*string)
        *to++ = *string++;
    return to;
}

static char *append_number(char *to, word number, unsigned base) {
    char digits[24];
    int count = 0;
    do
        digits[count++] = "0123456789abcdef"[number % base];
    while (number /= base);
    while (count)
        *to++ = digits[--count];
    return to;
}

static void write_all(const char *bytes, word len) {
    while (len) {
        long written = CALL(WRITE, 1, bytes, len);
        if (written <= 0)
            CALL(EXIT_GROUP, 3);
        bytes += written;
        len -= written;
    }
}

// `name` and, if it is not negative, `number` after a dot.
static void section(const char *name, long number, const void *bytes, word len) {
    char head[4400], *at = head;
    *at++ = '@';
    at = append(at, name);
    if (number >= 0) {
        *at++ = '.';
        at = append_number(at, number, 10);
    }
    *at++ = ' ';
    at = append_number(at, len, 10);
    *at++ = '\n';
    write_all(head, at - head);
    write_all(bytes, len);
    write_all("\n", 1);
}

static void say(const char *name, long number, word value) {
    char text[24];
    section(name, number, text, append_number(text, value, 16) - text);
}

static void say_string(const char *name, long number, const char *string) {
    section(name, number, string, length(string));
}

static char buffer[1 << 20];

static void say_file(const char *path) {
    long fd = CALL(OPEN, path, 0), len = 0, got = 1;
    while (fd >= 0 && got > 0 && len < (long)sizeof buffer) {
        got = CALL(READ, fd, buffer + len, sizeof buffer - len);
        len += got > 0 ? got : 0;
    }
    CALL(CLOSE, fd);
    if (fd < 0)
        say(path, -1, fd);
    else
        section(path, -1, buffer, len);
}

static void say_link(const char *path) {
    long len = CALL(READLINK, path, buffer, sizeof buffer);
    section(path, -1, buffer, len > 0 ? len : 0);
}

// ---- what there is to say

static void say_descriptors(void) {
    long dir = CALL(OPEN, "/proc/self/fd", O_DIRECTORY);
    long len = CALL(GETDENTS64, dir, buffer, sizeof buffer / 2);
    for (long at = 0; at < len; at += *(unsigned short *)(buffer + at + 16)) {
        const char *name = buffer + at + 19;
        if (*name == '.')
            continue;
        long fd = 0;
        for (const char *digit = name; *digit; digit++)
            fd = fd * 10 + *digit - '0';
        if (fd == dir)
            continue;
        char path[64] = "/proc/self/fd/", *target = buffer + sizeof buffer / 2;
        *append(append(path, "/proc/self/fd/"), name) = 0;
        long target_len = CALL(READLINK, path, target, sizeof buffer / 2);
        section("fd", fd, target, target_len > 0 ? target_len : 0);
        say("fd.flags", fd, CALL(FCNTL, fd, 1));
        say("fd.status", fd, CALL(FCNTL, fd, 3));
    }
    CALL(CLOSE, dir);
}

static void say_stack(long *block) {
    char **argv = (char **)(block + 1), **envp = argv + *block + 1;
    say("argc", -1, *block);
    for (long i = 0; argv[i]; i++) {
        say_string("argv", i, argv[i]);
        say("argv.at", i, (word)argv[i]);
    }
    long i = 0;
    for (; envp[i]; i++) {
        say_string("envp", i, envp[i]);
        say("envp.at", i, (word)envp[i]);
    }
    word *aux = (word *)(envp + i + 1), phdr = 0, phnum = 0;
    for (i = 0;; i++, aux += 2) {
        say("auxv.kind", i, aux[0]);
        say("auxv.value", i, aux[1]);
        if (aux[0] == 31)
            say_string("execfn", -1, (char *)aux[1]);
        if (aux[0] == 15)
            say_string("platform", -1, (char *)aux[1]);
        if (aux[0] == 25)
            section("random", -1, (void *)aux[1], 16);
        if (aux[0] == 33)
            section("vdso", -1, (void *)aux[1], 64);
        if (aux[0] == 3)
            phdr = aux[1];
        if (aux[0] == 5)
            phnum = aux[1];
        if (aux[0] == 0)
            break;
    }
    say("block.end", -1, (word)(aux + 2));
    section("phdrs", -1, (void *)phdr, phnum * 56);
}

static void say_signals(void) {
    for (long number = 1; number <= 64; number++) {
        word action[4] = {0};
        long answer = CALL(SIGACTION, number, 0, action, 8);
        say("signal.handler", number, answer ? (word)answer : action[0]);
        say("signal.flags", number, action[1]);
        say("signal.mask", number, action[3]);
    }
    word set = 0, stack[3] = {0};
    CALL(SIGPROCMASK, 0, 0, &set, 8);
    say("signal.blocked", -1, set);
    CALL(SIGPENDING, &set, 8);
    say("signal.pending", -1, set);
    CALL(SIGALTSTACK, 0, stack);
    section("signal.stack", -1, stack, sizeof stack);
}

static void say_attributes(void) {
    say("pid", -1, CALL(GETPID));
    say("ppid", -1, CALL(GETPPID));
    say("pgid", -1, CALL(GETPGID));
    say("sid", -1, CALL(GETSID));
    word mask = CALL(UMASK, 0);
    CALL(UMASK, mask);
    say("umask", -1, mask);
    say("priority", -1, CALL(GETPRIORITY));
    say("scheduler", -1, CALL(GETSCHEDULER));
    say("ioprio", -1, CALL(IOPRIO_GET, 1));
    say("personality", -1, CALL(PERSONALITY, 0xffffffff));
    long len = CALL(GETAFFINITY, 0, 128, buffer);
    section("affinity", -1, buffer, len > 0 ? len : 0);
    len = CALL(GETCWD, buffer, sizeof buffer);
    section("cwd", -1, buffer, len > 0 ? len : 0);
    for (long which = 0; which < 3; which++) {
        word timer[4] = {0};
        CALL(GETITIMER, which, timer);
        // Which are armed, and with which interval; how much is left depends on the moment.
        say("timer.armed", which, timer[2] || timer[3]);
        say("timer.interval", which, timer[0] * 1000000 + timer[1]);
    }
    for (long resource = 0; resource < 16; resource++) {
        word limit[2] = {0};
        CALL(PRLIMIT64, 0, resource, 0, limit);
        section("rlimit", resource, limit, sizeof limit);
    }
    word head = 1, head_len = 1;
    CALL(GET_ROBUST_LIST, 0, &head, &head_len);
    say("robust_list", -1, head);
    int number = 0;
    CALL(PRCTL, 2, &number);
    say("prctl.pdeathsig", -1, number);
    number = 0;
    CALL(PRCTL, 37, &number);
    say("prctl.child_subreaper", -1, number);
    // Dumpable, keepcaps, timing, seccomp, securebits, timer slack, no_new_privs, THP, MDWE.
    static const short getters[] = {3, 7, 13, 21, 27, 30, 39, 42, 66};
    for (unsigned i = 0; i < sizeof getters / sizeof *getters; i++)
        say("prctl", getters[i], CALL(PRCTL, getters[i]));
    char name[17] = {0};
    CALL(PRCTL, 16, name);
    say_string("prctl.name", -1, name);
    word base = 1;
    CALL(ARCH_PRCTL, 0x1003, &base);
    say("fs_base", -1, base);
    base = 1;
    CALL(ARCH_PRCTL, 0x1004, &base);
    say("gs_base", -1, base);
}

// What changes the process comes last.
static void say_what_can_be_done(void) {
    static struct {
        unsigned cpu_id_start, cpu_id;
        word critical;
        unsigned flags, rest[3];
    } rseq_area __attribute__((aligned(32)));
    // Of no use where the C library has done it.
    say("rseq.register", -1, CALL(RSEQ, &rseq_area, 32, 0, 0x53053053));
    word start = CALL(BRK, 0);
    say("brk", -1, start);
    say("brk.grows", -1, CALL(BRK, start + 12345) - start);
    if ((word)CALL(BRK, 0) > start) {
        say("brk.last", -1, *(char *)(start + 12344));
        *(volatile char *)start = 1;
    }
}

void bare_main(long *block) {
    // Before anything is opened.
    say_descriptors();
    section("registers", -1, state_at_entry.general, sizeof state_at_entry.general);
    say("flags", -1, state_at_entry.flags);
    section("vector", -1, state_at_entry.vector, sizeof state_at_entry.vector);
    say("mxcsr", -1, state_at_entry.mxcsr);
    say("x87_control", -1, state_at_entry.x87_control);
    say_stack(block);
    say_signals();
    say_attributes();
    // No table of them: its addresses would have to be relocated.
    say_file("/proc/self/auxv");
    say_file("/proc/self/cmdline");
    say_file("/proc/self/comm");
    say_file("/proc/self/environ");
    say_file("/proc/self/limits");
    say_file("/proc/self/maps");
    say_file("/proc/self/stat");
    say_file("/proc/self/status");
    say_file("/proc/self/coredump_filter");
    say_file("/proc/self/oom_score_adj");
    say_file("/proc/self/timerslack_ns");
    say_link("/proc/self/exe");
    say_link("/proc/self/cwd");
    say_link("/proc/self/root");
    say_what_can_be_done();
    say_file("/proc/self/smaps");
    CALL(EXIT_GROUP, 0);
}
