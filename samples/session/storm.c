// Everything at once: threads, timers, forks and jumps around system calls. Only mistakes are counted.
#include "lines.h"
#include <dlfcn.h>

static struct mapped file, other_file;
static const char *program;
static int wrong;

static void check(int right) {
    if (!right)
        __atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
}
static void check_maps(void) {
    check(!strcmp(maps(&file), "mapped"));
    check(!strcmp(maps(&other_file), "mapped"));
}

static int ticks;
static void tick(int number) {
    (void)number;
    __atomic_fetch_add(&ticks, 1, __ATOMIC_RELAXED);
    check_maps();
}

// Every so many microseconds, until stop(). fork(2) begins again with each signal, so it needs longer ones than it takes.
static void start(long period, void (*handler)(int), int flags, uint64_t mask) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART | flags};
    memcpy(&action.sa_mask, &mask, 8);
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &(struct itimerval){{0, period * SLOWER}, {0, period * SLOWER}}, NULL);
}
static void stop(void) {
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 0}}, NULL);
    signal(SIGALRM, SIG_IGN);
}

static void run_program(void) {
    pid_t child = fork();
    if (child == 0) {
        execl(program, program, "check", NULL);
        _exit(90);
    }
    int status = 0;
    check(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

// ---- a timer

static void *works(void *number) {
    long seed = (long)number;
    mask_set(seed == 0 ? 0 : seed % 2 ? BIT(SIGUSR1) : BIT(SIGSYS));
    for (int i = 0; i < ROUNDS(300); i++) {
        uint64_t some = ALL_SIGNALS & ~BIT(SIGALRM), all = ALL_SIGNALS, before = mask_now(), old = 0, open = BIT(SIGALRM);
        check_maps();
        mask_call(SIG_BLOCK, i % 2 ? &some : &all, &old);
        check(same_mask(old, before));
        check_maps();
        mask_call(SIG_SETMASK, &before, &old);
        check(same_mask(old, ((i % 2 ? some : all) | before) & ~(BIT(SIGKILL) | BIT(SIGSTOP))));
        mask_call(SIG_UNBLOCK, &open, NULL);
        check(same_mask(mask_now(), before & ~open));
        if (i % 60 == 0)
            run_program();
    }
    return NULL;
}
static void timer(const char *scenario) {
    pthread_t all[4];
    start(1000, tick, 0, ALL_SIGNALS);
    for (long i = 0; i < 4; i++)
        pthread_create(&all[i], NULL, works, (void *)i);
    for (int i = 0; i < 4; i++)
        pthread_join(all[i], NULL);
    stop();
    line(scenario, "%s, %s", mistakes(wrong), ticks > 10 / SLOWER ? "the timer rang" : "DIFFERENT");
}

// Handlers that may interrupt each other, on an alternate stack.
static void timer_nested(const char *scenario) {
    static char stack[1 << 20];
    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL);
    start(300, tick, SA_ONSTACK, 0);
    struct sigaction action = {.sa_handler = tick, .sa_flags = SA_ONSTACK | SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    for (int i = 0; i < ROUNDS(2000); i++) {
        raise(i % 2 ? SIGUSR1 : SIGUSR2);
        check_maps();
    }
    stop();
    line(scenario, "%s, %016" PRIx64, mistakes(wrong), mask_now());
}

// Out of whatever the timer interrupts, system calls too.
static sigjmp_buf back;
static volatile int jumps, saves;
static void jumping(int number) {
    (void)number;
    jumps++;
    siglongjmp(back, 1);
}
static void timer_jumps(const char *scenario) {
    for (saves = 0; saves < 2; saves++) {
        jumps = 0;
        mask_set(BIT(SIGALRM));
        start(100, jumping, 0, 0);
        uint64_t blocked = BIT(SIGALRM), open = 0;
        sigsetjmp(back, saves);
        while (jumps < ROUNDS(500)) {
            uint64_t old;
            mask_set(open);
            // What is mapped here when the jump comes stays; it is little.
            for (int i = 0; i < 20; i++) {
                check_maps();
                mask_call(SIG_BLOCK, &open, &old);
                check(same_mask(old, 0));
            }
            mask_set(blocked);
        }
        stop();
        mask_set(0);
    }
    line(scenario, "%s, %s, %016" PRIx64, mistakes(wrong), maps(&file), mask_now());
}

// Waits with a mask of their own, that the timer ends.
static void timer_waits(const char *scenario) {
    uint64_t all = ALL_SIGNALS, all_but = ~BIT(SIGALRM);
    start(100, tick, 0, ALL_SIGNALS);
    // After sigaction(3), where musl unblocks signals of its own.
    mask_set(all);
    for (int i = 0; i < ROUNDS(1000); i++) {
        struct timespec timeout = {10, 0};
        long result = i % 2 ? RAW(SYS_rt_sigsuspend, &all_but, 8) : RAW(SYS_ppoll, 0, 0, &timeout, &all_but, 8);
        check(result == -EINTR);
        check_maps();
        check(same_mask(mask_now(), all & ~(BIT(SIGKILL) | BIT(SIGSTOP))));
    }
    stop();
    line(scenario, "%s", mistakes(wrong));
}

// ---- threads

static void *libraries(void *unused) {
    (void)unused;
    char page[PAGE];
    for (int i = 0; i < ROUNDS(200); i++) {
        check_maps();
        FILE *stream = fopen("/var/files/mixed", "re");
        check(stream && fread(page, 1, PAGE, stream) == PAGE && hashed(HASH_START, page, PAGE) == other_file.hash);
        if (stream)
            fclose(stream);
#ifdef __GLIBC__
        // A static program would need the libraries of just its own version.
        if (!getauxval(AT_BASE))
            continue;
        void *library = dlopen("libm.so.6", RTLD_NOW);
        double (*cosine)(double) = library ? (double (*)(double))dlsym(library, "cos") : NULL;
        check(cosine && cosine(0) == 1);
        check(library && dlclose(library) == 0);
#endif
    }
    return NULL;
}
static void threads(const char *scenario) {
    pthread_t all[8];
    for (int i = 0; i < 8; i++)
        pthread_create(&all[i], NULL, libraries, NULL);
    for (int i = 0; i < 8; i++)
        pthread_join(all[i], NULL);
    line(scenario, "%s", mistakes(wrong));
}

// Threads that interrupt each other, each with its own mask.
static pthread_t group[4];
static pthread_barrier_t barrier;
static void *interrupts(void *number) {
    long own = (long)number;
    uint64_t mask = own == 0 ? 0 : own == 1 ? BIT(SIGSYS) : own == 2 ? ~(BIT(SIGUSR1) | BIT(SIGKILL) | BIT(SIGSTOP)) : BIT(SIGHUP);
    mask_set(mask);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < ROUNDS(500); i++) {
        pthread_kill(group[(own + 1 + i % 3) % 4], SIGUSR1);
        check_maps();
        check(same_mask(mask_now(), mask));
    }
    pthread_barrier_wait(&barrier);
    return NULL;
}
static void each_other(const char *scenario) {
    struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART};
    sigfillset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
    // With this thread, which has to tell who they are.
    pthread_barrier_init(&barrier, NULL, 5);
    for (long i = 0; i < 4; i++)
        pthread_create(&group[i], NULL, interrupts, (void *)i);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 4; i++)
        pthread_join(group[i], NULL);
    line(scenario, "%s, %s", mistakes(wrong), ticks > 10 / SLOWER ? "interrupted" : "DIFFERENT");
}

// One thread takes and gives handlers while others use them.
static volatile int done;
static void *actions(void *unused) {
    (void)unused;
    for (int i = 0; !done; i++) {
        struct sigaction action = {.sa_handler = tick, .sa_flags = i % 2 ? SA_NODEFER : 0}, old;
        if (i % 3)
            sigfillset(&action.sa_mask);
        int number = i % 4 == 0 ? SIGSYS : SIGUSR1 + i % 2 * 2; // SIGUSR1, SIGUSR2
        check(sigaction(number, &action, &old) == 0);
        check(old.sa_handler == SIG_DFL || old.sa_handler == tick);
    }
    return NULL;
}
static void *raises(void *unused) {
    (void)unused;
    for (int i = 0; i < ROUNDS(500); i++) {
        raise(i % 3 ? SIGUSR1 : SIGSYS);
        check_maps();
    }
    return NULL;
}
static void changing_handlers(const char *scenario) {
    pthread_t all[4];
    struct sigaction action = {.sa_handler = tick};
    const int numbers[] = {SIGUSR1, SIGUSR2, SIGSYS};
    for (int i = 0; i < 3; i++)
        sigaction(numbers[i], &action, NULL);
    for (int i = 0; i < 4; i++)
        pthread_create(&all[i], NULL, i ? raises : actions, NULL);
    for (int i = 1; i < 4; i++)
        pthread_join(all[i], NULL);
    done = 1;
    pthread_join(all[0], NULL);
    line(scenario, "%s, %d ticks", mistakes(wrong), ticks);
}

// ---- children

static volatile int reaped;
static void reap(int number) {
    (void)number;
    int saved = errno, status;
    while (waitpid(-1, &status, WNOHANG) > 0) {
        check(status == 0);
        reaped++;
    }
    check_maps();
    errno = saved;
}
static void children(const char *scenario) {
    struct sigaction action = {.sa_handler = reap, .sa_flags = SA_RESTART};
    sigfillset(&action.sa_mask);
    sigaction(SIGCHLD, &action, NULL);
    for (int i = 0; i < ROUNDS(200); i++) {
        pid_t child = fork();
        if (child == 0) {
            if (i % 10 == 0)
                execl(program, program, "check", NULL);
            check_maps();
            _exit(wrong);
        }
        check(child > 0);
        check_maps();
    }
    uint64_t block = BIT(SIGCHLD), none = 0;
    mask_call(SIG_BLOCK, &block, NULL);
    while (reaped < 200)
        RAW(SYS_rt_sigsuspend, &none, 8);
    line(scenario, "%s, %d reaped", mistakes(wrong), reaped);
}

int main(int argc, char **argv) {
    program = argv[0];
    file = remember("/var/files/direct");
    other_file = remember("/var/files/mixed");
    if (argc == 2) {
        check_maps();
        return wrong;
    }
    apart("timer", timer);
    apart("timer, nested", timer_nested);
    apart("timer, jumps", timer_jumps);
    apart("timer, waits", timer_waits);
    apart("threads and libraries", threads);
    apart("threads that interrupt each other", each_other);
    apart("handlers that change", changing_handlers);
    apart("children", children);
    line("end", "of the storm");
}
