// Tells what it was executed with: arguments, environment, AT_EXECFN, comm, cmdline, /proc/self/exe, and what else the words
// of $SHOW name. `SHOW=nothing` says nothing, `SHOW=generation N` executes itself N times, TO is the descriptor to write to.
#include "exec.h"
#include "exec_show.h"
#include <elf.h>
#include <link.h>
#include <sys/auxv.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>

extern const char __ehdr_start[], etext[];
extern void _start(void);

static const char *line_of(const char *file, const char *field) {
    static char text[8192], line[256];
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd < 0 || len < 0)
        return errno_name(errno);
    close(fd);
    text[len] = 0;
    char *at = strstr(text, field);
    if (!at)
        return "?";
    snprintf(line, sizeof line, "%.*s", (int)strcspn(at + strlen(field), "\n"), at + strlen(field));
    return line + strspn(line, " \t");
}

static unsigned long long mask_of(const char *field) {
    return strtoull(line_of("/proc/self/status", field), NULL, 16) & ~SESSION_SIGNALS;
}

static void show_basic(int argc, char **argv, char **envp) {
    add("argv=");
    add_list(argv);
    if (!argv[0] || argv[argc])
        add(" argc=%d?", argc);
    add(" env=");
    add_list(envp);
    add(" execfn=");
    add_quoted((char *)getauxval(AT_EXECFN));
    char text[1 << 13];
    memset(text, 0, sizeof text);
    prctl(PR_GET_NAME, text);
    add(" comm=");
    add_quoted(text);
    // Long ones are told by the hash of their whole.
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    uint64_t hash = HASH_START;
    size_t len = 0;
    ssize_t got;
    char first[400];
    while ((got = read(fd, text, sizeof text)) > 0) {
        if (!len)
            memcpy(first, text, (size_t)got < sizeof first ? (size_t)got : sizeof first);
        hash = hash_of(text, got, hash);
        len += got;
    }
    add(" cmdline=");
    if (fd < 0)
        add("not there");
    else if (len < sizeof first)
        add_bytes(first, len);
    else
        add("<%zu bytes %016llx>", len, (unsigned long long)hash);
    close(fd);
    add(" exe=");
    add_link("/proc/self/exe");
    struct stat stat_of;
    if (stat("/proc/self/exe", &stat_of))
        add(" (%s)", errno_name(errno));
    else
        add(" (%o, %lld bytes)", stat_of.st_mode, (long long)stat_of.st_size);
}

// Descriptors: where they lead, O_* flags, FD_CLOEXEC, offset.
static void show_fds(void) {
    add(" fds=");
    for (int fd = 0; fd < TEST_FDS; fd++) {
        int flags = fcntl(fd, F_GETFD), status = fcntl(fd, F_GETFL);
        if (flags < 0 || of_session(fd))
            continue;
        char path[40];
        struct stat of;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        add("%d:", fd);
        add_link(path);
        add("%s%s", flags ? "(cloexec)" : "", status & O_PATH ? "(path)" : "");
        if (status & (O_APPEND | O_NONBLOCK | O_ACCMODE))
            add("(%o)", status & (O_APPEND | O_NONBLOCK | O_ACCMODE));
        if (!fstat(fd, &of) && S_ISREG(of.st_mode) && !(status & O_PATH))
            add("@%lld", (long long)lseek(fd, 0, SEEK_CUR));
        add(",");
    }
}

// Can the interpreter of a script read the script?
static void show_script(char **argv) {
    char text[40];
    for (int i = 1; argv[i]; i++) {
        int fd = open(argv[i], O_RDONLY | O_CLOEXEC);
        ssize_t len = fd < 0 ? -1 : read(fd, text, sizeof text);
        add(" open(");
        add_quoted(argv[i]);
        add(")=");
        if (len < 0)
            add("%s", errno_name(errno));
        else
            add_bytes(text, len);
        close(fd);
    }
}

static void show_signals(void) {
    add(" blocked=%llx", mask_of("SigBlk:"));
    add(" ignored=%llx", mask_of("SigIgn:"));
    // The session's handler is in the place of SIGBUS's default too.
    add(" caught=%llx", mask_of("SigCgt:") & ~(1ull << (SIGBUS - 1)));
    add(" pending=%llx", mask_of("SigPnd:"));
    add(" process-pending=%llx", mask_of("ShdPnd:"));
    stack_t stack;
    sigaltstack(NULL, &stack);
    add(" altstack=%s", stack.ss_flags & SS_DISABLE ? "none" : "kept");
    // As the C library sees it: what it is told of SIGSYS is not the session's either.
    struct sigaction action;
    sigset_t blocked;
    sigprocmask(SIG_SETMASK, NULL, &blocked);
    add(" dispositions=");
    for (int number = 1; number < 65; number++)
        if (!(SESSION_SIGNALS >> (number - 1) & 1) && !sigaction(number, NULL, &action))
            if (action.sa_handler != SIG_DFL || sigismember(&blocked, number) == 1)
                add("%d:%s%s,", number, action.sa_handler == SIG_IGN ? "ignored" : action.sa_handler ? "caught" : "",
                    sigismember(&blocked, number) == 1 ? "+blocked" : "");
}

static void show_ids(void) {
    static const char *const fields[] = {"Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:", "CapAmb:"};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        add(" %s", fields[i]);
        add_quoted(line_of("/proc/self/status", fields[i]));
    }
    add(" secure=%lu dumpable=%d keepcaps=%d securebits=%x nnp=%s", getauxval(AT_SECURE), prctl(PR_GET_DUMPABLE),
        prctl(PR_GET_KEEPCAPS), prctl(PR_GET_SECUREBITS), getenv("NNP") ? line_of("/proc/self/status", "NoNewPrivs:") : "-");
}

static void show_process(void) {
    char text[PATH_MAX];
    int number = -1;
    mode_t mask = umask(0);
    umask(mask);
    add(" umask=%o cwd=", mask);
    add("%s", getcwd(text, sizeof text) ? text : errno_name(errno));
    errno = 0;
    add(" nice=%d policy=%d", getpriority(PRIO_PROCESS, 0), (int)syscall(SYS_sched_getscheduler, 0));
    prctl(PR_GET_PDEATHSIG, &number);
    add(" pdeathsig=%d", number);
    number = -1;
    prctl(PR_GET_CHILD_SUBREAPER, &number);
    add(" subreaper=%d timerslack=%d", number, prctl(PR_GET_TIMERSLACK));
    add(" thp-disabled=%d", prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
    add(" personality=%x", personality(0xffffffff));
    unsigned left = alarm(0);
    alarm(left);
    add(" alarm=%s", !left ? "none" : left > 9000 ? "kept" : "short");
    add(" threads=%s tid-is-pid=%d", line_of("/proc/self/status", "Threads:"), getpid() == syscall(SYS_gettid));
    add(" leads-session=%d leads-group=%d", getsid(0) == getpid(), getpgid(0) == getpid());
    add(" coredump-filter=%s", line_of("/proc/self/coredump_filter", ""));
    add(" oom-score-adj=%s", line_of("/proc/self/oom_score_adj", ""));
    add(" timers=");
    add_quoted(line_of("/proc/self/timers", ""));
    add(" locked=%s", line_of("/proc/self/status", "VmLck:"));
}

static void show_limits(void) {
    static const int limits[] = {RLIMIT_NOFILE, RLIMIT_STACK, RLIMIT_FSIZE, RLIMIT_CORE,
                                 RLIMIT_AS,     RLIMIT_DATA,  RLIMIT_NPROC, RLIMIT_MEMLOCK};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct rlimit limit;
        getrlimit(limits[i], &limit);
        add(" limit%d=%lld,%lld", limits[i], (long long)limit.rlim_cur, (long long)limit.rlim_max);
    }
}

// The mapping that an address lies in, `first` to `last`; its name.
static const char *mapping_of(const void *address, unsigned long *first, unsigned long *last) {
    static char text[1 << 16], name[64];
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    size_t len = 0;
    for (ssize_t got; fd >= 0 && (got = read(fd, text + len, sizeof text - 1 - len)) > 0;)
        len += got;
    close(fd);
    text[len] = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        int at = 0;
        if (sscanf(line, "%lx-%lx %*s %*s %*s %*s %n", first, last, &at) >= 2 && *first <= (unsigned long)address &&
            (unsigned long)address < *last) {
            snprintf(name, sizeof name, "%s", at ? line + at : "");
            return name;
        }
    }
    *first = *last = 0;
    return "nothing";
}

static void show_auxv(char **envp) {
    while (*envp)
        envp++;
    // Not always right after it: in secure mode the C library has made the environment shorter.
    unsigned long vdso = getauxval(AT_SYSINFO_EHDR);
    ElfW(auxv_t) *auxv = (void *)(envp + 1);
    while (vdso && (auxv->a_type != AT_SYSINFO_EHDR || auxv->a_un.a_val != vdso))
        auxv = (void *)((char *)auxv + sizeof(long));
    unsigned long first, last;
    size_t count = 0;
    add(" auxv=");
    do {
        unsigned long type = auxv[count].a_type, value = auxv[count].a_un.a_val;
        const ElfW(Ehdr) *header = (void *)value;
        add("%lu:", type);
        switch (type) {
        case AT_PHDR: {
            const ElfW(Ehdr) *own = (void *)__ehdr_start;
            add("%s", value == (unsigned long)__ehdr_start + own->e_phoff ? "own" : "WRONG");
            break;
        }
        case AT_ENTRY:
            add("%s", value == (unsigned long)_start ? "own" : "WRONG");
            break;
        case AT_BASE:
            add("%s", !value ? "none" : !memcmp(header, ELFMAG, SELFMAG) && header->e_type == ET_DYN ? "an object" : "WRONG");
            break;
        case AT_SYSINFO_EHDR:
            add("%s,%s", !memcmp(header, ELFMAG, SELFMAG) ? "an object" : "WRONG", mapping_of(header, &first, &last));
            break;
        case AT_EXECFN:
        case AT_PLATFORM:
        case AT_BASE_PLATFORM:
            add_quoted((char *)value);
            break;
        case AT_RANDOM:
            add("%s", mapping_of((void *)value, &first, &last));
            break;
        default:
            add("%lx", value);
        }
        add(",");
    } while (auxv[count++].a_type != AT_NULL);
    // What the kernel shows of it to others.
    static char shown[4096];
    int fd = open("/proc/self/auxv", O_RDONLY | O_CLOEXEC);
    ssize_t len = read(fd, shown, sizeof shown);
    close(fd);
    int same = len == (ssize_t)(count * sizeof *auxv) && !memcmp(shown, auxv, len);
    add(" proc-auxv=%s", fd < 0 ? "not there" : same ? "same" : "DIFFERS");
}

// What /proc/self/stat says of the program's memory, by its relation to where things are.
static void show_memory(int argc, char **argv, char **envp) {
    unsigned long field[53] = {0}, first, last;
    static char text[4096];
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    ssize_t len = read(fd, text, sizeof text - 1);
    close(fd);
    text[len < 0 ? 0 : len] = 0;
    char *at = strrchr(text, ')');
    int number = 2;
    for (at = at ? at + 1 : text; at && number < 52; at = strchr(at + 1, ' '))
        field[++number] = strtoul(at, NULL, 10);
    unsigned long entry = (unsigned long)_start, brk_now = syscall(SYS_brk, 0);
    add(" code=%d", field[26] <= entry && entry < field[27] && (unsigned long)etext <= field[27]);
    add(" stack=%d,%s", field[28] == (unsigned long)(argv - 1) && (long)argv[-1] == argc, mapping_of(argv, &first, &last));
    add(" data=%d", field[45] <= (unsigned long)&environ && field[45] < field[46]);
    add(" brk=%d", field[47] <= brk_now);
    add(" arguments=%d", !argv[0] || field[48] == (unsigned long)argv[0]);
    add(" environment=%d", !envp[0] || field[50] == (unsigned long)envp[0]);
    char *end = envp[0];
    for (char **string = envp; *string; string++)
        end = *string + strlen(*string) + 1;
    add(" end=%d", !envp[0] || field[51] == (unsigned long)end);
    if ((unsigned long)syscall(SYS_brk, brk_now + (1 << 20)) != brk_now + (1 << 20))
        add(" more=%s", errno_name(errno));
    else
        add(" more=%s", (memset((void *)brk_now, 1, 1 << 20), mapping_of((void *)(brk_now + (1 << 19)), &first, &last)));
    mapping_of(__ehdr_start, &first, &last);
    add(" header-mapped=%d", first == (unsigned long)__ehdr_start);
}

// Executes itself again and again, and tells in the end whether something has grown.
static int generation(char **argv, long left) {
    static char show[60], early[60];
    unsigned long size = strtoul(line_of("/proc/self/status", "VmSize:"), NULL, 10);
    int fds = count_descriptors();
    if (!getenv("EARLY")) {
        snprintf(early, sizeof early, "EARLY=%d %lu", fds, size);
        putenv(early);
    }
    if (left) {
        snprintf(show, sizeof show, "SHOW=generation %ld", left - 1);
        putenv(show);
        execve(argv[0], argv, environ);
        say("generation %ld: %s", left, errno_name(errno));
        return 1;
    }
    int early_fds;
    unsigned long early_size;
    sscanf(getenv("EARLY"), "%d %lu", &early_fds, &early_size);
    // The stack's random place decides on a page or two.
    say("descriptors grew by %d, VmSize %s", fds - early_fds, size <= early_size + 64 ? "did not grow" : "GREW");
    return 0;
}

int main(int argc, char **argv, char **envp) {
    const char *what = getenv("SHOW");
    if (getenv("TO"))
        say_to = atoi(getenv("TO"));
    if (what && !strcmp(what, "nothing"))
        return 0;
    if (what && !strncmp(what, "generation ", 11))
        return generation(argv, atol(what + 11));
    show_basic(argc, argv, envp);
    if (what) {
        if (strstr(what, "fds"))
            show_fds();
        if (strstr(what, "script"))
            show_script(argv);
        if (strstr(what, "signals"))
            show_signals();
        if (strstr(what, "ids"))
            show_ids();
        if (strstr(what, "process"))
            show_process();
        if (strstr(what, "limits"))
            show_limits();
        if (strstr(what, "auxv"))
            show_auxv(envp);
        if (strstr(what, "memory"))
            show_memory(argc, argv, envp);
    }
    print_added();
    return 0;
}
