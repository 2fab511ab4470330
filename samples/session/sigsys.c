// SIGSYS as the program's own: sent, caught, ignored, blocked, waited for; and seccomp filters that the program installs.
// What is the session's is nobody else's business, and what is not is the program's.
#include "lines.h"
#include <stddef.h>

// linux/seccomp.h, linux/filter.h and linux/audit.h, which musl's compiler does not find.
struct seccomp_data {
    int nr;
    uint32_t arch;
    uint64_t instruction_pointer, args[6];
};
struct sock_filter {
    uint16_t code;
    uint8_t jt, jf;
    uint32_t k;
};
struct sock_fprog {
    unsigned short len;
    struct sock_filter *filter;
};
enum {
    SECCOMP_MODE_STRICT = 1,
    SECCOMP_MODE_FILTER = 2,
    SECCOMP_SET_MODE_FILTER = 1,
    SECCOMP_FILTER_FLAG_TSYNC = 1,
};
#define SECCOMP_RET_KILL_PROCESS 0x80000000u
#define SECCOMP_RET_TRAP 0x00030000u
#define SECCOMP_RET_ERRNO 0x00050000u
#define SECCOMP_RET_ALLOW 0x7fff0000u
#define AUDIT_ARCH_X86_64 0xc000003eu

static struct mapped file;
static const char *program;

// ---- sent

static volatile int runs, on_alternate, trap_depth, deepest;
static siginfo_t info;
static volatile uint64_t mask_in, saved;
static const char *volatile maps_in;
static char *alternate;
#define ALTERNATE_LEN 65536

static void caught(int number, siginfo_t *received, void *context) {
    char here;
    (void)number;
    runs++;
    info = *received;
    on_alternate = alternate && &here >= alternate && &here < alternate + ALTERNATE_LEN;
    mask_in = mask_now();
    memcpy((void *)&saved, &((ucontext_t *)context)->uc_sigmask, 8);
    maps_in = maps(&file);
}

static void install(void (*function)(int, siginfo_t *, void *), int flags, uint64_t mask) {
    struct sigaction action = {.sa_sigaction = function, .sa_flags = SA_SIGINFO | flags};
    memcpy(&action.sa_mask, &mask, 8);
    if (sigaction(SIGSYS, &action, NULL))
        broken("sigaction");
}

static void ignore(void) {
    if (signal(SIGSYS, SIG_IGN) == SIG_ERR)
        broken("signal");
}

static void sent(const char *scenario, const char *how) {
    char name[128];
    snprintf(name, sizeof name, "%s by %s", scenario, how);
    line(name, "%d runs, signal %d code %d error %d, sender %s, value %d, mask %016" PRIx64 ", saved %016" PRIx64 ", %s, then %016" PRIx64, runs,
         info.si_signo, info.si_code, info.si_errno, info.si_pid == getpid() ? "itself" : info.si_pid ? "another" : "none",
         info.si_code == SI_QUEUE || info.si_code == SI_TIMER ? info.si_value.sival_int : 0, mask_in, saved, maps_in,
         mask_now());
    runs = 0;
    memset(&info, 0, sizeof info);
}

static void each_way(const char *scenario) {
    install(caught, 0, BIT(SIGUSR1));
    raise(SIGSYS);
    sent(scenario, "raise");
    kill(getpid(), SIGSYS);
    sent(scenario, "kill");
    sigqueue(getpid(), SIGSYS, (union sigval){.sival_int = 4711});
    sent(scenario, "sigqueue");
    pthread_kill(pthread_self(), SIGSYS);
    sent(scenario, "pthread_kill");
    pid_t parent = getpid(), child = fork();
    if (child == 0)
        _exit(kill(parent, SIGSYS));
    awaited(child);
    sent(scenario, "a child");
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGSYS, .sigev_value.sival_int = 17};
    if (timer_create(CLOCK_MONOTONIC, &event, &timer))
        broken("timer_create");
    timer_settime(timer, 0, &(struct itimerspec){.it_value = {0, 1}}, NULL);
    while (!runs)
        ;
    sent(scenario, "a timer");
    // What looks like a trap, but is none.
    siginfo_t forged = {.si_signo = SIGSYS, .si_code = 1 /* SYS_SECCOMP */};
    forged.si_syscall = SYS_mmap;
    forged.si_arch = AUDIT_ARCH_X86_64;
    long result = RAW(SYS_rt_sigqueueinfo, getpid(), SIGSYS, &forged);
    int number = info.si_syscall;
    char name[128];
    snprintf(name, sizeof name, "%s as a trap that is none", scenario);
    line(name, "%s, %d runs, code %d call %d", err(result), runs, info.si_code, number);
}

static void ignored(const char *scenario) {
    ignore();
    raise(SIGSYS);
    kill(getpid(), SIGSYS);
    line(scenario, "%s", maps(&file));
}
static void by_default(const char *scenario) {
    line(scenario, "%s", maps(&file));
    raise(SIGSYS);
}
static void default_again(const char *scenario) {
    install(caught, 0, 0);
    raise(SIGSYS);
    signal(SIGSYS, SIG_DFL);
    line(scenario, "%d runs, %s", runs, maps(&file));
    kill(getpid(), SIGSYS);
    pause();
}
static void once(const char *scenario) {
    install(caught, SA_RESETHAND, 0);
    raise(SIGSYS);
    struct action now;
    action_call(SIGSYS, NULL, &now);
    line(scenario, "%d runs, then %s, %s", runs, now.handler == SIG_DFL ? "default" : "DIFFERENT", maps(&file));
    raise(SIGSYS);
}

static void stack(const char *scenario) {
    alternate = mmap(NULL, ALTERNATE_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sigaltstack(&(stack_t){.ss_sp = alternate, .ss_size = ALTERNATE_LEN}, NULL);
    install(caught, SA_ONSTACK, 0);
    raise(SIGSYS);
    int with = on_alternate;
    install(caught, 0, 0);
    raise(SIGSYS);
    line(scenario, "SA_ONSTACK %s, without %s", with ? "there" : "elsewhere", on_alternate ? "there" : "elsewhere");
}

static sigjmp_buf back;
static void jumping(int number, siginfo_t *received, void *context) {
    (void)number, (void)received, (void)context;
    runs++;
    siglongjmp(back, 1);
}
static void jumps(const char *scenario) {
    install(jumping, 0, ALL_SIGNALS);
    const char *volatile all = "mapped";
    for (volatile int i = 0; i < ROUNDS(1000); i++) {
        if (!sigsetjmp(back, 1))
            raise(SIGSYS);
        if (strcmp(maps(&file), "mapped"))
            all = "DIFFERENT";
    }
    line(scenario, "%d, %s, mask %016" PRIx64, runs, all, mask_now());
}

// ---- blocked

static void blocked(const char *scenario) {
    uint64_t pending = 0;
    install(caught, 0, 0);
    mask_set(BIT(SIGSYS));
    raise(SIGSYS);
    kill(getpid(), SIGSYS);
    int early = runs;
    RAW(SYS_rt_sigpending, &pending, 8);
    const char *between = maps(&file);
    mask_set(0);
    line(scenario, "%d early, pending %016" PRIx64 ", %s, %d at last, mask %016" PRIx64, early, pending, between, runs, mask_in);
}
static void blocked_by_default(const char *scenario) {
    mask_set(ALL_SIGNALS);
    kill(getpid(), SIGSYS);
    line(scenario, "%s", maps(&file));
    mask_set(0);
    line(scenario, "DIFFERENT: alive");
}
static void waited_for(const char *scenario) {
    uint64_t set = BIT(SIGSYS), pending = 0;
    siginfo_t got = {0};
    mask_set(BIT(SIGSYS));
    sigqueue(getpid(), SIGSYS, (union sigval){.sival_int = 5});
    struct timespec second = {1, 0};
    long number = RAW(SYS_rt_sigtimedwait, &set, &got, &second, 8);
    RAW(SYS_rt_sigpending, &pending, 8);
    line(scenario, "signal %ld code %d value %d, pending %016" PRIx64, number, got.si_code, got.si_value.sival_int, pending);
}
static void suspended(const char *scenario) {
    install(caught, 0, 0);
    mask_set(BIT(SIGSYS) | BIT(SIGUSR1));
    raise(SIGSYS);
    uint64_t mask = BIT(SIGUSR1);
    int early = runs;
    // What has come early comes no more.
    long result = early ? 0 : RAW(SYS_rt_sigsuspend, &mask, 8);
    line(scenario, "%d early, %s, %d at last, mask %016" PRIx64 " saved %016" PRIx64 ", after %016" PRIx64, early, err(result), runs, mask_in, saved,
         mask_now());
}

static pthread_barrier_t barrier;
static volatile pid_t ran_in;
static void which(int number, siginfo_t *received, void *context) {
    (void)number, (void)received, (void)context;
    ran_in = RAW(SYS_gettid);
}
static void *open_thread(void *tid) {
    mask_set(0);
    *(pid_t *)tid = RAW(SYS_gettid);
    pthread_barrier_wait(&barrier);
    while (!ran_in)
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    return NULL;
}
static void other_thread(const char *scenario) {
    pid_t tid = 0;
    pthread_t other;
    install(which, 0, 0);
    pthread_barrier_init(&barrier, NULL, 2);
    mask_set(BIT(SIGSYS));
    pthread_create(&other, NULL, open_thread, &tid);
    pthread_barrier_wait(&barrier);
    kill(getpid(), SIGSYS);
    pthread_join(other, NULL);
    line(scenario, "%s", ran_in == tid ? "the one that does not block it" : "DIFFERENT");
}

// A signal that is ignored interrupts nothing.
static void undisturbed(const char *scenario) {
    int pipes[2];
    ignore();
    if (pipe(pipes))
        broken("pipe");
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        wait_until_asleep(parent);
        kill(parent, SIGSYS);
        wait_until_asleep(parent);
        _exit(write(pipes[1], "x", 1) != 1);
    }
    struct pollfd poll = {pipes[0], POLLIN, 0};
    long result = raw_poll(&poll, 1, 20000);
    line(scenario, "%s", failed(result) ? err(result) : "a byte");
    awaited(child);
}

// ---- inherited

// The same program again, which tells what it finds.
static void inherits(const char *scenario, const char *what) {
    pid_t child = fork();
    if (child == 0) {
        execl(program, program, "inherited", scenario, what, NULL);
        _exit(97);
    }
    const char *end = awaited(child);
    if (strcmp(end, "exit 0"))
        line(scenario, "%s, %s", what, end);
}
static int inherited(const char *scenario, const char *what) {
    struct action now;
    char name[128];
    action_call(SIGSYS, NULL, &now);
    snprintf(name, sizeof name, "%s, %s", scenario, what);
    line(name, "mask %016" PRIx64 ", action %s %lx %016" PRIx64 ", %s", mask_now(),
         now.handler == SIG_DFL ? "default" : now.handler == SIG_IGN ? "ignored" : "DIFFERENT", now.flags & ~SA_RESTORER,
         now.mask, maps(&file));
    if (strstr(what, "pending")) {
        uint64_t pending = 0;
        RAW(SYS_rt_sigpending, &pending, 8);
        install(caught, 0, 0);
        int early = runs;
        mask_set(0);
        line(scenario, "pending %016" PRIx64 ", %d early, %d at last", pending, early, runs);
    }
    if (!strcmp(what, "traps"))
        RAW(SYS_getppid);
    return 0;
}
static void over_exec(const char *scenario) {
    inherits(scenario, "nothing");
    install(caught, SA_NODEFER, ALL_SIGNALS);
    inherits(scenario, "a handler");
    ignore();
    inherits(scenario, "ignored");
    mask_set(BIT(SIGSYS));
    inherits(scenario, "ignored and blocked");
    signal(SIGSYS, SIG_DFL);
    mask_set(ALL_SIGNALS);
    inherits(scenario, "all blocked");
    install(caught, 0, 0);
    mask_set(~BIT(SIGSYS));
    inherits(scenario, "all but it blocked");
}
static void over_exec_pending(const char *scenario) {
    mask_set(BIT(SIGSYS));
    raise(SIGSYS);
    execl(program, program, "inherited", scenario, "pending", NULL);
}

// ---- the program's own filters

#define LOAD(field) {0x20, 0, 0, offsetof(struct seccomp_data, field)}
#define RETURN(value) {0x06, 0, 0, value}
#define EQUALS(value, then, otherwise) {0x15, then, otherwise, value}

static void filter(struct sock_filter *code, size_t count) {
    struct sock_fprog whole = {count, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &whole, 0, 0))
        broken("filter");
}
#define FILTER(...) filter((struct sock_filter[]){__VA_ARGS__}, \
                           sizeof(struct sock_filter[]){__VA_ARGS__} / sizeof(struct sock_filter))

static void trap_getppid(void) {
    FILTER(LOAD(nr), EQUALS(SYS_getppid, 0, 1), RETURN(SECCOMP_RET_TRAP | 0x123), RETURN(SECCOMP_RET_ALLOW));
}

static volatile int nests;
static void trapped(int number, siginfo_t *received, void *context) {
    ucontext_t *at = context;
    (void)number;
    if (++trap_depth > deepest)
        deepest = trap_depth;
    info = *received;
    runs++;
    mask_in = mask_now();
    maps_in = maps(&file);
    if (nests && runs == 1)
        RAW(SYS_getppid);
    // The answer to the caller, if the address is where it goes on.
    ANSWER_OF(at) = received->si_call_addr == (void *)NEXT_OF(at) ? 4242 : -EDOM;
    trap_depth--;
}

static void own_trap(const char *scenario) {
    install(trapped, 0, BIT(SIGUSR2));
    trap_getppid();
    long answer = RAW(SYS_getppid);
    line(scenario, "%ld, %d runs, code %d error %x call %s arch %x, mask %016" PRIx64 ", %s, then %s, %016" PRIx64, answer, runs,
         info.si_code, info.si_errno, info.si_syscall == SYS_getppid ? "getppid" : "DIFFERENT", info.si_arch, mask_in,
         maps_in, maps(&file), mask_now());
    for (int i = 0; i < ROUNDS(1000); i++)
        answer += RAW(SYS_getppid) == 4242;
    mask_set(ALL_SIGNALS & ~BIT(SIGSYS));
    answer += RAW(SYS_getppid);
    line("own trap again", "%ld, %s, %016" PRIx64, answer, maps(&file), mask_now());
}
static void own_trap_by_default(const char *scenario) {
    trap_getppid();
    line(scenario, "%s", maps(&file));
    RAW(SYS_getppid);
}
static void own_trap_ignored(const char *scenario) {
    ignore();
    own_trap_by_default(scenario);
}
static void own_trap_blocked(const char *scenario) {
    install(trapped, 0, 0);
    mask_set(BIT(SIGSYS));
    own_trap_by_default(scenario);
}
static void own_trap_once(const char *scenario) {
    install(trapped, SA_RESETHAND, 0);
    trap_getppid();
    long answer = RAW(SYS_getppid);
    line(scenario, "%ld, %s", answer, maps(&file));
    RAW(SYS_getppid);
}
static void own_trap_nested(const char *scenario) {
    install(trapped, SA_NODEFER, 0);
    trap_getppid();
    nests = 1;
    long answer = RAW(SYS_getppid);
    line(scenario, "%ld, %d runs, %d deep", answer, runs, deepest);
}
static void own_trap_nested_blocked(const char *scenario) {
    install(trapped, 0, 0);
    trap_getppid();
    nests = 1;
    line(scenario, "DIFFERENT: %ld", RAW(SYS_getppid));
}
static void *own_trap_of_thread(void *unused) {
    (void)unused;
    return (void *)RAW(SYS_getppid);
}
static void own_trap_threads(const char *scenario) {
    pthread_t other;
    void *answer;
    install(trapped, 0, ALL_SIGNALS);
    trap_getppid();
    pthread_create(&other, NULL, own_trap_of_thread, NULL);
    pthread_join(other, &answer);
    pid_t child = fork();
    if (child == 0)
        _exit(RAW(SYS_getppid) == 4242 ? 0 : 1);
    line(scenario, "thread %ld, child %s", (long)answer, awaited(child));
}
static void own_trap_over_exec(const char *scenario) {
    install(trapped, 0, 0);
    trap_getppid();
    inherits(scenario, "traps");
}

// It traps a call that the session traps too: the program's filter is the later one, and its handler is asked.
static void mapping(int number, siginfo_t *received, void *context) {
    (void)number;
    runs++;
    info = *received;
    ANSWER_OF((ucontext_t *)context) = -EDOM;
}
static void own_trap_of_mmap(const char *scenario) {
    install(mapping, 0, 0);
    FILTER(LOAD(nr), EQUALS(SYS_mmap, 0, 3), LOAD(args[1]), EQUALS(0x77000, 0, 1), RETURN(SECCOMP_RET_TRAP | 5),
           RETURN(SECCOMP_RET_ALLOW));
    long answer = RAW(SYS_mmap, 0, 0x77000, PROT_READ, MAP_PRIVATE, file.fd, 0);
    line(scenario, "%s, %d runs, error %d call %s, other lengths %s", err(answer), runs, info.si_errno,
         info.si_syscall == SYS_mmap ? "mmap" : "DIFFERENT", maps(&file));
}

// A sandbox: the file is open, and all that is left is to map it and to say so.
#define ALLOW_ONLY(otherwise)                                                                                        \
    FILTER(LOAD(nr), EQUALS(SYS_mmap, 5, 0), EQUALS(SYS_munmap, 4, 0), EQUALS(SYS_write, 3, 0),                      \
           EQUALS(SYS_exit_group, 2, 0), EQUALS(SYS_rt_sigreturn, 1, 0), RETURN(otherwise), RETURN(SECCOMP_RET_ALLOW))
static void sandbox_refuses(const char *scenario) {
    ALLOW_ONLY(SECCOMP_RET_ERRNO | EPERM);
    line(scenario, "%s, another call %s", maps(&file), err(RAW(SYS_getppid)));
}
static void sandbox_kills(const char *scenario) {
    ALLOW_ONLY(SECCOMP_RET_KILL_PROCESS);
    line(scenario, "%s", maps(&file));
    RAW(SYS_getppid);
}
static void all_threads(const char *scenario) {
    struct sock_filter code[] = {LOAD(nr), EQUALS(SYS_getppid, 0, 1), RETURN(SECCOMP_RET_ERRNO | 5),
                                 RETURN(SECCOMP_RET_ALLOW)};
    struct sock_fprog whole = {4, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    long result = RAW(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &whole);
    line(scenario, "%s, then %s, %s", err(result), err(RAW(SYS_getppid)), maps(&file));
}

// What a process can see of the session's filter.
static void modes(const char *scenario) {
    line("no new privileges", "%d", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    line("seccomp mode", "%d", prctl(PR_GET_SECCOMP, 0, 0, 0, 0));
    long result = RAW(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0);
    line(scenario, "%s", err(result));
    RAW(SYS_exit, 0);
}

// ---- the other way into the kernel

#ifdef __x86_64__
static long by_int80(long number, long a, long b, long c, long d) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "0"(number), "b"(a), "c"(b), "d"(c), "S"(d) : "memory", "r8", "r9", "r10", "r11");
    return (int)result;
}
static void calls_of_32_bits(const char *scenario) {
    // Below 4 GiB: set, old.
    uint64_t *low = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    int pid = by_int80(20, 0, 0, 0, 0) == getpid();
    low[0] = ALL_SIGNALS;
    long masked = by_int80(175, SIG_SETMASK, (long)low, (long)(low + 1), 8);
    line(scenario, "getpid %s, rt_sigprocmask %s %016" PRIx64 ", %s, %016" PRIx64, pid ? "right" : "DIFFERENT", err(masked), low[1],
         maps(&file), mask_now());
    // mmap2 has six arguments.
    uint32_t *args = (uint32_t *)(low + 8);
    uint32_t values[] = {0, PAGE, PROT_READ, MAP_PRIVATE, file.fd, 0};
    memcpy(args, values, sizeof values);
    long at = by_int80(90, (long)args, 0, 0, 0); // mmap, its arguments in memory
    uint32_t address = at;
    uint64_t hash = failed(at) ? 0 : hashed(HASH_START, (void *)(unsigned long)address, PAGE);
    line("mmap of 32 bits", "%s, %s", err(at), hash == file.hash ? "mapped" : "DIFFERENT");
}
#endif

int main(int argc, char **argv) {
    program = argv[0];
    file = remember("/var/files/mixed");
    if (argc == 4)
        return inherited(argv[2], argv[3]);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    apart("sent", each_way);
    apart("ignored", ignored);
    apart("by default", by_default);
    apart("default again", default_again);
    apart("once", once);
    apart("on which stack", stack);
    apart("jumps", jumps);
    apart("blocked", blocked);
    apart("blocked, by default", blocked_by_default);
    apart("waited for", waited_for);
    apart("suspended", suspended);
    apart("which thread", other_thread);
    apart("poll while it is ignored", undisturbed);
    apart("over exec", over_exec);
    apart("over exec, pending", over_exec_pending);
    apart("own trap", own_trap);
    apart("own trap, by default", own_trap_by_default);
    apart("own trap, ignored", own_trap_ignored);
    apart("own trap, blocked", own_trap_blocked);
    apart("own trap, once", own_trap_once);
    apart("own trap in its handler", own_trap_nested);
    apart("own trap in its handler, blocked", own_trap_nested_blocked);
    apart("own trap, threads and children", own_trap_threads);
    apart("own trap over exec", own_trap_over_exec);
    apart("own trap of mmap", own_trap_of_mmap);
    apart("sandbox that refuses", sandbox_refuses);
    apart("sandbox that kills", sandbox_kills);
    apart("filter for all threads", all_threads);
    apart("strict mode", modes);
#ifdef __x86_64__
    apart("calls of 32 bits", calls_of_32_bits);
#endif
    line("end", "of SIGSYS");
}
