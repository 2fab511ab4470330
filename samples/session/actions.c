// rt_sigaction(2): what is set is what is read, of every signal, and what is not allowed is not done.
#include "lines.h"

#define KNOWN_FLAGS \
    (SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER | SA_RESETHAND | SA_RESTORER)

static struct mapped file;
static void first(int number) { (void)number; }
static void second(int number) { (void)number; }
// rt_sigreturn
#if defined __aarch64__
__asm__(".text\nown_restorer: mov x8, #139\nsvc #0\n");
#elif defined __arm__
__asm__(".text\n.arm\n.type own_restorer, %function\nown_restorer: mov r7, #173\nsvc #0\n");
#else
__asm__(".text\nown_restorer: mov $15, %eax\nsyscall\n");
#endif
void own_restorer(void);

static const char *handler_name(void *handler) {
    return handler == SIG_DFL ? "default" : handler == SIG_IGN ? "ignored" : handler == first ? "first"
           : handler == second ? "second" : handler == (void *)-1 ? "-1" : "other";
}
static const char *shown(const struct action *action) {
    static char texts[4][128], *text;
    static int next;
    text = texts[next++ % 4];
    snprintf(text, sizeof texts[0], "%s %lx %s %016" PRIx64, handler_name(action->handler), action->flags,
             action->restorer == own_restorer ? "own" : action->restorer ? "other" : "none", action->mask);
    return text;
}

// Every signal, one way after the other; each says what was there before.
static void every_signal(const char *scenario) {
    static const struct action ways[] = {
        {SIG_DFL, 0, NULL, 0},
        {SIG_IGN, 0, NULL, 0},
        {SIG_IGN, SA_RESTART | SA_SIGINFO, own_restorer, ALL_SIGNALS},
        {first, SA_RESTORER, own_restorer, 0},
        {second, SA_RESTORER | SA_SIGINFO | SA_NODEFER, own_restorer, BIT(SIGSYS)},
        {first, SA_RESTORER | SA_RESTART | SA_RESETHAND | SA_ONSTACK, own_restorer, ~BIT(SIGSYS)},
        {second, SA_RESTORER | SA_NOCLDSTOP | SA_NOCLDWAIT, own_restorer, ALL_SIGNALS},
        {first, ~0ul, own_restorer, BIT(SIGKILL) | BIT(SIGSTOP) | BIT(SIGUSR1)},
        {first, 0x400 /* SA_UNSUPPORTED */ | 0x800 /* SA_EXPOSE_TAGBITS */ | SA_RESTORER, own_restorer, BIT(64) | BIT(1)},
        {(void *)-1, 0, NULL, 0},
        {SIG_DFL, SA_RESTART, NULL, BIT(SIGSYS)},
        {SIG_DFL, 0, NULL, 0},
    };
    char name[64];
    for (int number = -1; number <= 66; number++) {
        char text[2048];
        int at = 0;
        struct action old;
        for (size_t way = 0; way < sizeof ways / sizeof *ways; way++) {
            memset(&old, 0x77, sizeof old);
            long result = action_call(number, &ways[way], &old);
            at += snprintf(text + at, sizeof text - at, " | %s %s", err(result), failed(result) ? "" : shown(&old));
        }
        memset(&old, 0x77, sizeof old);
        long result = action_call(number, NULL, &old);
        snprintf(text + at, sizeof text - at, " | %s %s", err(result), failed(result) ? "" : shown(&old));
        snprintf(name, sizeof name, "%s %d", scenario, number);
        line(name, "%s, %s", text + 3, maps(&file));
    }
}

static void pointers(const char *scenario) {
    char *page = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *constant = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(page + PAGE, PAGE, PROT_NONE);
    struct {
        const char *name;
        void *at;
    } places[] = {{"null", NULL},
                  {"1", (void *)1},
                  {"kernel", (void *)-4096l},
                  {"not canonical", (void *)(1ul << (sizeof(long) * 8 - 4))},
                  {"no access", page + PAGE},
                  {"over the edge", page + PAGE - 16},
                  {"to the edge", page + PAGE - sizeof(struct action)},
                  {"unaligned", page + 3},
                  {"read-only", constant}};
    const int numbers[] = {SIGUSR1, SIGSYS, SIGKILL, 0, 65, -1};
    const long sizes[] = {8, 0, 4, 16};
    char name[128], text[1024];
    for (size_t set = 0; set < sizeof places / sizeof *places; set++)
        for (size_t old = 0; old < sizeof places / sizeof *places; old++) {
            int at = 0;
            for (size_t number = 0; number < sizeof numbers / sizeof *numbers; number++) {
                struct action before = {first, SA_RESTORER, own_restorer, BIT(SIGSYS)}, now = {0, 0, 0, 0};
                action_call(numbers[number], &before, NULL);
                memset(page, 0, PAGE);
                long result = RAW(SYS_rt_sigaction, numbers[number], places[set].at, places[old].at, 8);
                action_call(numbers[number], NULL, &now);
                at += snprintf(text + at, sizeof text - at, " %s %s", err(result), handler_name(now.handler));
            }
            snprintf(name, sizeof name, "%s, set %s, old %s", scenario, places[set].name, places[old].name);
            line(name, "%s", text + 1);
        }
    for (size_t size = 0; size < sizeof sizes / sizeof *sizes; size++) {
        struct action set = {second, SA_RESTORER, own_restorer, 0}, old;
        int at = 0;
        for (size_t number = 0; number < sizeof numbers / sizeof *numbers; number++)
            at += snprintf(text + at, sizeof text - at, " %s %s",
                           err(RAW(SYS_rt_sigaction, numbers[number], &set, &old, sizes[size])),
                           err(RAW(SYS_rt_sigaction, numbers[number], 8, 8, sizes[size])));
        snprintf(name, sizeof name, "%s, size %ld", scenario, sizes[size]);
        line(name, "%s", text + 1);
    }
    // The same place for both; the upper half of an int is nobody's.
    struct action both = {second, SA_RESTORER, own_restorer, ALL_SIGNALS};
    action_call(SIGUSR2, &(struct action){first, SA_RESTORER, own_restorer, BIT(SIGSYS)}, NULL);
    long result = RAW(SYS_rt_sigaction, 0x500000000l | SIGUSR2, &both, &both, 8);
    struct action now;
    action_call(SIGUSR2, NULL, &now);
    snprintf(name, sizeof name, "%s, both the same", scenario);
    line(name, "%s %s, then %s", err(result), shown(&both), shown(&now));
}

// ---- what the flags do

static volatile int runs, depth, deepest;
static volatile uint64_t masks[8];
static const char *volatile maps_seen;
static void again(int number, siginfo_t *info, void *context) {
    (void)info, (void)context;
    masks[runs++ % 8] = mask_now();
    if (++depth > deepest)
        deepest = depth;
    if (runs < 3)
        raise(number);
    maps_seen = maps(&file);
    depth--;
}
static void flags(const char *scenario) {
    static const struct {
        const char *name;
        int flags;
    } cases[] = {{"none", 0},
                 {"SA_NODEFER", SA_NODEFER},
                 {"SA_NODEFER, SA_SIGINFO", SA_NODEFER | SA_SIGINFO},
                 {"SA_SIGINFO, SA_ONSTACK", SA_SIGINFO | SA_ONSTACK}};
    const int numbers[] = {SIGUSR1, SIGSYS, SIGRTMIN};
    for (size_t number = 0; number < 3; number++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            char name[128];
            struct sigaction action = {.sa_sigaction = again, .sa_flags = cases[i].flags};
            sigaction(numbers[number], &action, NULL);
            runs = deepest = 0;
            masks[0] = masks[1] = masks[2] = 0;
            raise(numbers[number]);
            snprintf(name, sizeof name, "%s %s, signal %d", scenario, cases[i].name, numbers[number]);
            line(name, "%d runs, %d deep, masks %016" PRIx64 " %016" PRIx64 " %016" PRIx64 ", %s, then %016" PRIx64, runs, deepest, masks[0], masks[1],
                 masks[2], maps_seen, mask_now());
        }
}

static void reset(const char *scenario) {
    const int numbers[] = {SIGUSR1, SIGCHLD, SIGURG};
    for (size_t i = 0; i < 3; i++) {
        struct action now;
        char name[64];
        struct sigaction action = {.sa_sigaction = again, .sa_flags = SA_RESETHAND | SA_SIGINFO | SA_RESTART};
        sigfillset(&action.sa_mask);
        sigaction(numbers[i], &action, NULL);
        runs = 7;
        raise(numbers[i]);
        action_call(numbers[i], NULL, &now);
        now.restorer = NULL; // the C library's
        snprintf(name, sizeof name, "%s, signal %d", scenario, numbers[i]);
        line(name, "%s, then %s", maps_seen, shown(&now));
    }
}

// A read(2) that a signal interrupts is taken up again, or is not.
static void restart(const char *scenario) {
    const int numbers[] = {SIGALRM, SIGSYS};
    for (int restart = 0; restart < 2; restart++)
        for (int which = 0; which < 2; which++) {
            int pipes[2], status;
            char name[64], byte;
            struct sigaction action = {.sa_handler = first, .sa_flags = restart ? SA_RESTART : 0};
            sigaction(numbers[which], &action, NULL);
            if (pipe(pipes))
                broken(scenario);
            pid_t parent = getpid(), child = fork();
            if (child == 0) {
                wait_until_asleep(parent);
                kill(parent, numbers[which]);
                wait_until_asleep(parent);
                _exit(write(pipes[1], "x", 1) != 1);
            }
            long got = RAW(SYS_read, pipes[0], &byte, 1);
            snprintf(name, sizeof name, "%s, signal %d, %s", scenario, numbers[which], restart ? "SA_RESTART" : "without");
            line(name, "%s", failed(got) ? err(got) : "a byte");
            while (waitpid(child, &status, 0) < 0)
                ;
        }
}

// What is pending of a signal that becomes ignored is gone.
static void discarded(const char *scenario) {
    const int numbers[] = {SIGUSR1, SIGSYS, SIGCHLD};
    for (size_t i = 0; i < 3; i++) {
        uint64_t pending[2] = {0, 0};
        char name[64];
        struct action ignore = {.handler = i == 2 ? SIG_DFL : SIG_IGN};
        struct sigaction action = {.sa_handler = first};
        sigaction(numbers[i], &action, NULL);
        mask_set(BIT(numbers[i]));
        raise(numbers[i]);
        RAW(SYS_rt_sigpending, &pending[0], 8);
        action_call(numbers[i], &ignore, NULL);
        RAW(SYS_rt_sigpending, &pending[1], 8);
        mask_set(0);
        snprintf(name, sizeof name, "%s, signal %d", scenario, numbers[i]);
        line(name, "pending %016" PRIx64 ", then %016" PRIx64, pending[0], pending[1]);
    }
}

// Children that are not waited for.
static void no_zombies(const char *scenario) {
    struct sigaction action = {.sa_handler = first, .sa_flags = SA_NOCLDWAIT};
    sigaction(SIGCHLD, &action, NULL);
    pid_t child = fork();
    if (child == 0)
        _exit(3);
    int status;
    long waited = waitpid(child, &status, 0);
    line(scenario, "%s", err(waited < 0 ? -errno : waited));
}

// The handlers of a process are its threads', and not its children's.
static void *in_thread(void *unused) {
    (void)unused;
    struct action set = {second, SA_RESTORER, own_restorer, BIT(SIGSYS)};
    action_call(SIGUSR1, &set, NULL);
    action_call(SIGSYS, &set, NULL);
    return NULL;
}
static void shared(const char *scenario) {
    struct action now[2];
    pthread_t other;
    pthread_create(&other, NULL, in_thread, NULL);
    pthread_join(other, NULL);
    pid_t child = fork();
    if (child == 0) {
        struct action old, ignore = {.handler = SIG_IGN};
        action_call(SIGUSR1, &ignore, &old);
        int right = old.handler == second && same_mask(old.mask, BIT(SIGSYS));
        action_call(SIGSYS, &ignore, &old);
        _exit(right && old.handler == second && same_mask(old.mask, BIT(SIGSYS)) ? 0 : 1);
    }
    const char *end = awaited(child);
    action_call(SIGUSR1, NULL, &now[0]);
    action_call(SIGSYS, NULL, &now[1]);
    line(scenario, "child %s, then %s, %s", end, shown(&now[0]), shown(&now[1]));
}

int main(void) {
    file = remember("/var/files/direct-foreign");
    apart("signal", every_signal);
    apart("pointers", pointers);
    apart("flags", flags);
    apart("reset", reset);
    apart("interrupted read", restart);
    apart("pending, then ignored", discarded);
    apart("no zombies", no_zombies);
    apart("shared with threads, copied for children", shared);
    line("end", "of actions");
}
