// New processes and threads, by every call that makes them: what they inherit, what they share, and that files are mapped
// in them. As /bin/sh it is a shell that only tells what it finds.
#include "lines.h"
#include <spawn.h>

static struct mapped file;
static const char *program;

static const char *handler_name(int number) {
    struct action now;
    if (action_call(number, NULL, &now))
        return "none";
    return now.handler == SIG_DFL ? "default" : now.handler == SIG_IGN ? "ignored" : "caught";
}

static int told(const char *scenario) {
    char name[256];
    snprintf(name, sizeof name, "%s, the program", scenario);
    line(name, "mask %016" PRIx64 ", HUP %s, USR1 %s, SYS %s, %s", mask_now(), handler_name(SIGHUP), handler_name(SIGUSR1),
         handler_name(SIGSYS), maps(&file));
    return 7;
}

static volatile int runs;
static void caught(int number) {
    (void)number;
    runs++;
}

// A process with something of everything.
static void prepare(uint64_t mask) {
    struct sigaction action = {.sa_handler = caught, .sa_flags = SA_RESTART};
    sigfillset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGSYS, &action, NULL);
    signal(SIGHUP, SIG_IGN);
    mask_set(mask);
}

// And what has become of it.
static void unchanged(const char *scenario, const char *what) {
    uint64_t mask = mask_now(), open = BIT(SIGSYS) | BIT(SIGUSR1);
    runs = 0;
    mask_call(SIG_UNBLOCK, &open, NULL);
    raise(SIGSYS);
    raise(SIGUSR1);
    mask_set(mask);
    struct action now;
    action_call(SIGSYS, NULL, &now);
    line(scenario, "%s, mask %016" PRIx64 ", HUP %s, USR1 %s, SYS %s with %016" PRIx64 ", %d runs, %s", what, mask, handler_name(SIGHUP),
         handler_name(SIGUSR1), handler_name(SIGSYS), now.mask, runs, maps(&file));
}

static const uint64_t some_masks[] = {0, ALL_SIGNALS, BIT(SIGSYS)};
#define EACH_MASK(mask) \
    for (volatile size_t at = 0; at < 3; at++)                                                                         \
        for (volatile uint64_t mask = some_masks[at], once = 1; once; once = 0)
static const char *mask_name(uint64_t mask) { return mask == 0 ? "nothing" : mask == ALL_SIGNALS ? "all" : "SYS"; }
static const char *with_mask(const char *scenario, uint64_t mask) {
    static char name[256];
    snprintf(name, sizeof name, "%s with %s blocked", scenario, mask_name(mask));
    return name;
}

// ---- fork, vfork

static int mapped_in_child(void) { return strcmp(maps(&file), "mapped") != 0; }

static void forks(const char *scenario) {
    EACH_MASK(mask) {
        prepare(mask);
        pid_t child = fork();
        if (child == 0) {
            int right = same_mask(mask_now(), mask & ~(BIT(SIGKILL) | BIT(SIGSTOP))) && !strcmp(handler_name(SIGSYS), "caught");
            signal(SIGSYS, SIG_IGN);
            mask_set(BIT(SIGUSR2));
            _exit(!right + 2 * mapped_in_child());
        }
        unchanged(with_mask(scenario, mask), awaited(child));
    }
    pid_t child;
#ifdef SYS_fork
    child = RAW(SYS_fork);
    if (child == 0)
        RAW(SYS_exit_group, mapped_in_child());
    unchanged("the call fork", awaited(child));
#endif
    child = RAW(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0)
        RAW(SYS_exit_group, mapped_in_child());
    unchanged("the call clone", awaited(child));
}

// It shares the memory of its parent, but neither handlers nor mask.
static void vforks(const char *scenario) {
    static volatile long address;
    EACH_MASK(mask) {
        prepare(mask);
        pid_t child = vfork();
        if (child == 0) {
            struct action ignore = {.handler = SIG_IGN};
            for (int number = 1; number <= 64; number++)
                action_call(number, &ignore, NULL);
            mask_set(mask ? 0 : ALL_SIGNALS);
            address = RAW(SYS_mmap, 0, PAGE, PROT_READ, MAP_PRIVATE, file.fd, 0);
            _exit(mapped_in_child());
        }
        const char *end = awaited(child);
        uint64_t hash = hashed(HASH_START, (void *)address, PAGE);
        unchanged(with_mask(scenario, mask), hash == file.hash ? end : "DIFFERENT");
    }
}
static void vfork_exec(const char *scenario) {
    EACH_MASK(mask) {
        prepare(mask);
        const char *name = with_mask(scenario, mask);
        pid_t child = vfork();
        if (child == 0) {
            struct action standard = {.handler = SIG_DFL};
            for (int number = 1; number <= 64; number++)
                action_call(number, &standard, NULL);
            execl(program, program, "tell", name, NULL);
            _exit(90);
        }
        unchanged(name, awaited(child));
    }
    prepare(0);
    pid_t child = vfork();
    if (child == 0) {
        execl("/nowhere", "nowhere", NULL);
        _exit(errno);
    }
    unchanged("vfork and a program that is not there", awaited(child));
}

// ---- posix_spawn, system, popen

static void spawns(const char *scenario) {
    EACH_MASK(mask) {
        for (int way = 0; way < 4; way++) {
            char name[128];
            snprintf(name, sizeof name, "%s with %s blocked, %s", scenario, mask_name(mask),
                     (const char *[]){"nothing set", "default set", "mask set", "both set"}[way]);
            posix_spawnattr_t attributes;
            posix_spawn_file_actions_t actions;
            sigset_t all;
            pid_t child = 0;
            sigfillset(&all);
            posix_spawnattr_init(&attributes);
            posix_spawnattr_setsigdefault(&attributes, &all);
            posix_spawnattr_setsigmask(&attributes, &all);
            posix_spawnattr_setflags(&attributes, (way & 1 ? POSIX_SPAWN_SETSIGDEF : 0) | (way & 2 ? POSIX_SPAWN_SETSIGMASK : 0));
            posix_spawn_file_actions_init(&actions);
            posix_spawn_file_actions_addopen(&actions, 9, "/var/files/direct", O_RDONLY, 0);
            posix_spawn_file_actions_adddup2(&actions, 9, 0);
            posix_spawn_file_actions_addclose(&actions, 9);
            prepare(mask);
            char *arguments[] = {(char *)program, "tell", name, NULL};
            int result = posix_spawn(&child, program, &actions, &attributes, arguments, environ);
            unchanged(name, result ? err(-result) : awaited(child));
            if (way == 3) {
                result = posix_spawn(&child, "/nowhere", &actions, &attributes, arguments, environ);
                unchanged(with_mask("posix_spawn of nothing", mask), err(-result));
            }
        }
    }
}

static void shells(const char *scenario) {
    EACH_MASK(mask) {
        const char *name = with_mask(scenario, mask);
        char command[256], text[256] = "";
        snprintf(command, sizeof command, "%s", name);
        prepare(mask);
        int status = system(command);
        unchanged(name, ending(status));
        snprintf(command, sizeof command, "%s", with_mask("popen", mask));
        FILE *output = popen(command, "r");
        if (!output || !fgets(text, sizeof text, output))
            snprintf(text, sizeof text, "nothing");
        text[strcspn(text, "\n")] = 0;
        line(with_mask("popen", mask), "%s | %s, %016" PRIx64, text, ending(output ? pclose(output) : -1), mask_now());
    }
}

// ---- clone

static char *new_stack(void) {
    char *at = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        broken("stack");
    return at + 65536;
}

static int changes_everything(void *unused) {
    (void)unused;
    struct action ignore = {.handler = SIG_IGN};
    action_call(SIGSYS, &ignore, NULL);
    action_call(SIGUSR1, &ignore, NULL);
    mask_set(BIT(SIGUSR2));
    int right = mask_now() == BIT(SIGUSR2) && !strcmp(handler_name(SIGSYS), "ignored");
    return !right + 2 * mapped_in_child();
}
static void clones(const char *scenario) {
    static const struct {
        const char *name;
        int flags;
    } cases[] = {{"nothing shared", 0},
                 {"memory", CLONE_VM},
                 {"memory, the parent waits", CLONE_VM | CLONE_VFORK},
                 {"memory and handlers", CLONE_VM | CLONE_SIGHAND},
                 {"memory, handlers and the rest", CLONE_VM | CLONE_SIGHAND | CLONE_FS | CLONE_FILES | CLONE_SYSVSEM},
                 {"handlers only", CLONE_SIGHAND},
                 {"a thread without handlers", CLONE_VM | CLONE_THREAD}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[128];
        prepare(BIT(SIGHUP) | BIT(SIGSYS));
        pid_t child = clone(changes_everything, new_stack(), cases[i].flags | SIGCHLD, NULL);
        snprintf(name, sizeof name, "%s, %s", scenario, cases[i].name);
        if (child < 0)
            line(name, "%s", err(-errno));
        else
            unchanged(name, awaited(child));
    }
}

// Two at once, in the same memory, each with its own mask and handlers.
static volatile int turn;
static int takes_turns(void *unused) {
    (void)unused;
    mask_set(BIT(SIGUSR2));
    signal(SIGSYS, SIG_IGN);
    turn = 1;
    while (turn != 2)
        RAW(SYS_sched_yield);
    int right = mask_now() == BIT(SIGUSR2) && !strcmp(handler_name(SIGSYS), "ignored");
    return !right + 2 * mapped_in_child();
}
static void concurrent(const char *scenario) {
    prepare(0);
    pid_t child = clone(takes_turns, new_stack(), CLONE_VM | SIGCHLD, NULL);
    while (turn != 1)
        RAW(SYS_sched_yield);
    const char *during = handler_name(SIGSYS);
    mask_set(ALL_SIGNALS & ~BIT(SIGSYS));
    uint64_t mask = mask_now();
    signal(SIGSYS, SIG_DFL);
    turn = 2;
    const char *end = awaited(child);
    line(scenario, "SYS %s, then %s, mask %016" PRIx64 ", child %s, %s", during, handler_name(SIGSYS), mask, end, maps(&file));
}

// A kernel, or a session, may know nothing of it: then it says ENOSYS, and C libraries do without.
struct clone3_args {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};
#define CLONE3 435
static void clone3_of(const char *scenario, uint64_t flags, size_t size) {
    struct clone3_args args = {.flags = flags, .exit_signal = SIGCHLD};
    prepare(BIT(SIGHUP));
    long child = RAW(CLONE3, &args, size);
    if (child == 0)
        RAW(SYS_exit_group, mapped_in_child() + 2 * strcmp(handler_name(SIGSYS), flags ? "default" : "caught"));
    if (failed(child))
        line(scenario, "%s", err(child));
    else
        line(scenario, "child %s", awaited(child));
}
static void clone3_plain(const char *scenario) { clone3_of(scenario, 0, sizeof(struct clone3_args)); }
static void clone3_clear(const char *scenario) { clone3_of(scenario, 0x100000000, sizeof(struct clone3_args)); }
static void clone3_short(const char *scenario) { clone3_of(scenario, 0, 8); }
static void clone3_null(const char *scenario) { line(scenario, "%s", err(RAW(CLONE3, 0, sizeof(struct clone3_args)))); }

// ---- threads

static void *maps_often(void *wrong) {
    for (int i = 0; i < 20; i++)
        if (mapped_in_child())
            __atomic_fetch_add((int *)wrong, 1, __ATOMIC_RELAXED);
    return NULL;
}
static void threads(const char *scenario) {
    static int wrong;
    pthread_t all[20];
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, sysconf(_SC_THREAD_STACK_MIN) > 0 ? sysconf(_SC_THREAD_STACK_MIN) : 16384);
    for (int round = 0; round < ROUNDS(10); round++) {
        for (int i = 0; i < 20; i++)
            if (pthread_create(&all[i], i % 2 ? &small : NULL, maps_often, &wrong))
                broken(scenario);
        for (int i = 0; i < 20; i++)
            pthread_join(all[i], NULL);
    }
    line(scenario, "%s", mistakes(wrong));
}

static void *execs(void *name) {
    mask_set(ALL_SIGNALS & ~BIT(SIGUSR1));
    execl(program, program, "tell", name, NULL);
    return NULL;
}
static void exec_of_a_thread(const char *scenario) {
    pthread_t other;
    prepare(0);
    pthread_create(&other, NULL, execs, (void *)scenario);
    pthread_join(other, NULL);
}

static const char *handler_scenario;
static void forks_and_execs(int number) {
    (void)number;
    pid_t child = fork();
    if (child == 0)
        execs((void *)handler_scenario);
    line(handler_scenario, "%s, %s", awaited(child), maps(&file));
    execl(program, program, "tell", "program of a handler", NULL);
}
static void exec_of_a_handler(const char *scenario) {
    struct sigaction action = {.sa_handler = forks_and_execs};
    sigfillset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
    handler_scenario = scenario;
    raise(SIGUSR1);
}

static volatile int cleaned;
static void cleanup(void *unused) {
    (void)unused;
    cleaned += !mapped_in_child();
}
static void *never_ends(void *started) {
    int before;
    pthread_cleanup_push(cleanup, NULL);
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &before);
    for (;;) {
        mapped_in_child();
        mask_set(0);
        *(volatile int *)started = 1;
    }
    pthread_cleanup_pop(0);
    return NULL;
}
static void cancelled(const char *scenario) {
    int ends = 0;
    for (int round = 0; round < ROUNDS(100); round++) {
        volatile int started = 0;
        pthread_t other;
        void *end;
        pthread_create(&other, NULL, never_ends, (void *)&started);
        while (!started)
            sched_yield();
        pthread_cancel(other);
        pthread_join(other, &end);
        ends += end == PTHREAD_CANCELED;
    }
    line(scenario, "%d ends, %d clean-ups, %s", ends, cleaned, maps(&file));
}

// The user is a process's, the kernel's are its threads': C libraries tell them by a signal.
static void *waits(void *go_on) {
    uint64_t all = ALL_SIGNALS & ~(BIT(32) | BIT(33) | BIT(34));
    mask_set(all);
    while (!__atomic_load_n((int *)go_on, __ATOMIC_ACQUIRE))
        mapped_in_child();
    return (void *)(long)(getuid() == 65534 && same_mask(mask_now(), all & ~(BIT(SIGKILL) | BIT(SIGSTOP))));
}
static void new_user(const char *scenario) {
    pthread_t all[4];
    int go_on = 0, right = 0;
    for (int i = 0; i < 4; i++)
        pthread_create(&all[i], NULL, waits, &go_on);
    int result = setuid(65534) ? -errno : 0;
    __atomic_store_n(&go_on, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < 4; i++) {
        void *is;
        pthread_join(all[i], &is);
        right += is != NULL;
    }
    line(scenario, "%s, %d right, %s", err(result), right, maps(&file));
}

int main(int argc, char **argv) {
    program = argv[0];
    file = remember("/var/files/direct");
    const char *name = strrchr(program, '/');
    if (!strcmp(name ? name + 1 : program, "sh"))
        return told(argv[argc - 1]);
    if (argc == 3)
        return told(argv[2]);
    file = remember("/var/files/mixed");
    apart("fork", forks);
    apart("vfork", vforks);
    apart("vfork and exec", vfork_exec);
    apart("posix_spawn", spawns);
    apart("system", shells);
    apart("clone", clones);
    apart("clone, both at once", concurrent);
    apart("clone3", clone3_plain);
    apart("clone3, handlers cleared", clone3_clear);
    apart("clone3, too short", clone3_short);
    apart("clone3 of nothing", clone3_null);
    apart("threads", threads);
    apart("program of a thread", exec_of_a_thread);
    apart("fork in a handler", exec_of_a_handler);
    apart("cancelled at any time", cancelled);
    apart("another user", new_user);
    line("end", "of processes");
}
