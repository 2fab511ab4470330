// Signal masks: rt_sigprocmask(2) and the calls that wait with a mask of their own. Whatever is blocked, files are mapped.
#include "lines.h"
#include "waiting.h"

static struct mapped file;

// ---- rt_sigprocmask

static const uint64_t sets[] = {0, ALL_SIGNALS, BIT(SIGSYS), ~BIT(SIGSYS), BIT(SIGKILL) | BIT(SIGSTOP), BIT(64),
                                BIT(SIGUSR1) | BIT(SIGSYS) | BIT(33)};

static void changes(void) {
    for (size_t start = 0; start < sizeof sets / sizeof *sets; start++)
        for (size_t set = 0; set < sizeof sets / sizeof *sets; set++) {
            char scenario[64], text[256];
            int at = 0;
            const int hows[] = {SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK, 3, -1};
            for (size_t how = 0; how < sizeof hows / sizeof *hows; how++) {
                uint64_t old = 1;
                mask_set(sets[start]);
                long result = mask_call(hows[how], &sets[set], &old);
                at += snprintf(text + at, sizeof text - at, " %s %016" PRIx64 " %016" PRIx64, err(result), old, mask_now());
            }
            mask_set(0);
            snprintf(scenario, sizeof scenario, "from %016" PRIx64 " with %016" PRIx64, sets[start], sets[set]);
            line(scenario, "%s", text + 1);
        }
}

// A page, and one that cannot be read behind it.
static char *last_page(int prot) {
    char *at = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(at, 0, 2 * PAGE);
    mprotect(at + PAGE, PAGE, PROT_NONE);
    mprotect(at, PAGE, prot);
    return at;
}

static void pointers(const char *scenario) {
    char *page = last_page(PROT_READ | PROT_WRITE), *constant = last_page(PROT_READ);
    struct {
        const char *name;
        void *at;
    } places[] = {{"null", NULL},           {"1", (void *)1},           {"kernel", (void *)-4096l},
                  {"not canonical", (void *)(1ul << (sizeof(long) * 8 - 4))}, {"no access", page + PAGE}, {"over the edge", page + PAGE - 4},
                  {"to the edge", page + PAGE - 8},       {"unaligned", page + 3},    {"read-only", constant}};
    char text[2048], name[128];
    const int hows[] = {SIG_BLOCK, SIG_SETMASK, 9};
    const long sizes[] = {8, 0, 4, 16, -1};
    for (size_t set = 0; set < sizeof places / sizeof *places; set++)
        for (size_t old = 0; old < sizeof places / sizeof *places; old++) {
            int at = 0;
            for (size_t how = 0; how < 3; how++) {
                mask_set(BIT(SIGUSR2) | BIT(SIGSYS));
                memset(page, 0x11, PAGE);
                long result = RAW(SYS_rt_sigprocmask, hows[how], places[set].at, places[old].at, 8);
                uint64_t got = 0;
                if (places[old].at == page + 3 || places[old].at == page + PAGE - 8)
                    memcpy(&got, places[old].at, 8);
                at += snprintf(text + at, sizeof text - at, " %s %016" PRIx64 " %016" PRIx64, err(result), got, mask_now());
            }
            snprintf(name, sizeof name, "%s, set %s, old %s", scenario, places[set].name, places[old].name);
            line(name, "%s", text + 1);
        }
    mask_set(0);
    for (size_t size = 0; size < sizeof sizes / sizeof *sizes; size++) {
        uint64_t set = BIT(SIGUSR1), old;
        snprintf(name, sizeof name, "%s, size %ld", scenario, sizes[size]);
        line(name, "%s %s %s", err(RAW(SYS_rt_sigprocmask, SIG_BLOCK, &set, &old, sizes[size])),
             err(RAW(SYS_rt_sigprocmask, SIG_BLOCK, 8, 8, sizes[size])),
             err(RAW(SYS_rt_sigprocmask, 99, 8, 8, sizes[size])));
    }
    // The same place for both; the upper half of an int is nobody's.
    uint64_t both = ALL_SIGNALS;
    mask_set(BIT(SIGSYS));
    long result = RAW(SYS_rt_sigprocmask, 0x7700000000l | SIG_SETMASK, &both, &both, 8);
    snprintf(name, sizeof name, "%s, both the same", scenario);
    line(name, "%s %016" PRIx64 " %016" PRIx64, err(result), both, mask_now());
}

// /proc shows what the kernel has: the session's SIGSYS is caught and never blocked, so its bit is left out, and of what is
// caught SIGBUS's, whose default the session replaces.
static void status(const char *scenario) {
    char row[256];
    struct words words = {.len = 0};
    signal(SIGUSR1, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    mask_set(ALL_SIGNALS);
    raise(SIGTERM);
    FILE *status = fopen("/proc/thread-self/status", "re");
    while (status && fgets(row, sizeof row, status)) {
        char name[32], text[64];
        uint64_t set;
        if (sscanf(row, "%31[SighdPnBlkICt]: %" SCNx64, name, &set) == 2 && (!strncmp(name, "Sig", 3) || !strncmp(name, "Shd", 3))) {
            uint64_t of_session = BIT(SIGSYS) | (strcmp(name, "SigCgt") ? 0 : BIT(SIGBUS));
            snprintf(text, sizeof text, "%s %" PRIx64, name, set & ~of_session);
            add_word(&words, text);
        }
    }
    fclose(status);
    line(scenario, "%s, %s", all_words(&words), maps(&file));
}

// ---- delivery

static volatile int order[64], delivered;
static volatile uint64_t handler_mask, handler_saved;
static const char *volatile handler_maps;
static void note(int number, siginfo_t *info, void *context) {
    (void)info;
    order[delivered++ % 64] = number;
    handler_mask = mask_now();
    memcpy((void *)&handler_saved, &((ucontext_t *)context)->uc_sigmask, 8);
    handler_maps = maps(&file);
}

static void catch (int number, uint64_t mask, int flags) {
    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO | flags};
    memcpy(&action.sa_mask, &mask, 8);
    if (sigaction(number, &action, NULL))
        broken("sigaction");
}

static const char *order_seen(void) {
    static char text[512];
    int at = 0;
    text[0] = 0;
    for (int i = 0; i < delivered; i++)
        at += snprintf(text + at, sizeof text - at, "%s%d", i ? " " : "", order[i]);
    delivered = 0;
    return text;
}

// What is pending comes before the call that unblocks it returns, the highest number's handler first.
static void unblocked(const char *scenario) {
    const int numbers[] = {SIGUSR1, SIGUSR2, SIGTERM, SIGRTMIN + 1, SIGRTMIN + 1, SIGRTMAX};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        catch (numbers[i], 0, 0);
    for (int how = 0; how < 2; how++) {
        mask_set(ALL_SIGNALS);
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
            sigqueue(getpid(), numbers[i], (union sigval){.sival_int = i});
        const char *blocked = maps(&file);
        int early = delivered;
        uint64_t pending = 0, none = 0, all = ALL_SIGNALS;
        RAW(SYS_rt_sigpending, &pending, 8);
        mask_call(how ? SIG_SETMASK : SIG_UNBLOCK, how ? &none : &all, NULL);
        char name[64];
        snprintf(name, sizeof name, "%s by %s", scenario, how ? "setting" : "unblocking");
        line(name, "%s, pending %016" PRIx64 ", %d early, then %s, mask %016" PRIx64 ", in the handler %s", blocked, pending, early,
             order_seen(), mask_now(), handler_maps);
    }
}

// One of several is unblocked, and blocked again.
static void one_by_one(const char *scenario) {
    for (int number = SIGRTMIN; number < SIGRTMIN + 4; number++)
        catch (number, ALL_SIGNALS, 0);
    mask_set(ALL_SIGNALS);
    for (int number = SIGRTMIN; number < SIGRTMIN + 4; number++)
        raise(number);
    for (int number = SIGRTMIN + 3; number >= SIGRTMIN; number--) {
        uint64_t one = BIT(number);
        mask_call(SIG_UNBLOCK, &one, NULL);
        mask_call(SIG_BLOCK, &one, NULL);
    }
    line(scenario, "%s, mask in the handler %016" PRIx64 ", saved %016" PRIx64 ", after %016" PRIx64, order_seen(), handler_mask,
         handler_saved, mask_now());
}

// In a handler whose mask is full, and after it.
static void in_handlers(const char *scenario) {
    static const struct {
        const char *name;
        uint64_t before, mask;
        int flags;
    } cases[] = {{"nothing", 0, 0, 0},
                 {"all", 0, ALL_SIGNALS, 0},
                 {"all, not deferred", 0, ALL_SIGNALS, SA_NODEFER},
                 {"only SIGSYS", 0, BIT(SIGSYS), 0},
                 {"nothing, all but it before", ~BIT(SIGUSR1), 0, 0},
                 {"all, all but it before", ~BIT(SIGUSR1), ALL_SIGNALS, 0},
                 {"nothing, SIGSYS before", BIT(SIGSYS), 0, SA_NODEFER}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[128];
        catch (SIGUSR1, cases[i].mask, cases[i].flags);
        mask_set(cases[i].before);
        raise(SIGUSR1);
        snprintf(name, sizeof name, "%s that blocks %s", scenario, cases[i].name);
        line(name, "%s, mask %016" PRIx64 ", saved %016" PRIx64 ", after %016" PRIx64 ", then %s", handler_maps, handler_mask, handler_saved,
             mask_now(), maps(&file));
        delivered = 0;
        mask_set(0);
    }
}

// The handler says what shall be blocked when it returns.
static uint64_t returned_mask;
static void returning(int number, siginfo_t *info, void *context) {
    (void)number, (void)info;
    memcpy(&((ucontext_t *)context)->uc_sigmask, &returned_mask, 8);
}
static void returned(const char *scenario) {
    struct sigaction action = {.sa_sigaction = returning, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, NULL);
    returned_mask = ALL_SIGNALS;
    raise(SIGUSR1);
    line(scenario, "%016" PRIx64 ", %s", mask_now(), maps(&file));
}

static sigjmp_buf back;
static volatile int jumps;
static void jumping(int number) {
    (void)number;
    jumps++;
    siglongjmp(back, 1);
}
static void jump_out(const char *scenario, int save, uint64_t mask) {
    struct sigaction action = {.sa_handler = jumping};
    memcpy(&action.sa_mask, &mask, 8);
    sigaction(SIGUSR1, &action, NULL);
    const char *volatile all = "mapped";
    for (volatile int i = 0; i < ROUNDS(1000); i++) {
        if (!sigsetjmp(back, save))
            raise(SIGUSR1);
        if (strcmp(maps(&file), "mapped"))
            all = "DIFFERENT";
        uint64_t again = BIT(SIGUSR1);
        mask_call(SIG_UNBLOCK, &again, NULL);
    }
    line(scenario, "%d, %s, mask %016" PRIx64, jumps, all, mask_now());
}
static void jump_saved(const char *scenario) { jump_out(scenario, 1, ALL_SIGNALS); }
static void jump_unsaved(const char *scenario) { jump_out(scenario, 0, ALL_SIGNALS); }
static void jump_unsaved_alone(const char *scenario) { jump_out(scenario, 0, 0); }

// ---- waiting with another mask

static enum wait now_waiting;

// A handler in the middle of it, and then another, all of whose masks are full but for what is waited for.
static void interrupted(const char *scenario) {
    uint64_t all_but = ~BIT(SIGALRM);
    struct timespec timeout = {20, 0};
    char name[128];
    for (int full = 0; full < 2; full++) {
        catch (SIGALRM, full ? ALL_SIGNALS : 0, SA_RESTART);
        mask_set(ALL_SIGNALS);
        int wrong = 0;
        long result = 0;
        for (int i = 0; i < ROUNDS(50); i++) {
            ring_after(i % 2 ? 1 : 1000);
            timeout = (struct timespec){20, 0};
            result = wait_with(now_waiting, &all_but, 8, &timeout);
            wrong += result != -EINTR || strcmp(handler_maps, "mapped") || strcmp(maps(&file), "mapped");
        }
        snprintf(name, sizeof name, "%s, %s", scenario, full ? "full mask in the handler" : "its mask in the handler");
        line(name, "%s, %s, %d delivered, mask %016" PRIx64 ", saved %016" PRIx64 ", after %016" PRIx64 ", time %s", err(result),
             mistakes(wrong),
             delivered, handler_mask, handler_saved, mask_now(),
             timeout.tv_sec < 20 && timeout.tv_sec > 0 ? "left" : "as it was");
        delivered = 0;
    }
}

static void jump_from_wait(const char *scenario) {
    struct sigaction action = {.sa_handler = jumping};
    sigfillset(&action.sa_mask);
    sigaction(SIGALRM, &action, NULL);
    uint64_t all_but = ~BIT(SIGALRM);
    const char *volatile all = "mapped";
    char name[128];
    for (int save = 0; save < 2; save++) {
        jumps = 0;
        mask_set(ALL_SIGNALS);
        for (volatile int i = 0; i < ROUNDS(500); i++) {
            if (!sigsetjmp(back, save)) {
                ring_after(1);
                struct timespec timeout = {20, 0};
                wait_with(now_waiting, &all_but, 8, &timeout);
            }
            if (strcmp(maps(&file), "mapped"))
                all = "DIFFERENT";
        }
        snprintf(name, sizeof name, "%s, mask %s", scenario, save ? "saved" : "not saved");
        line(name, "%d, %s, mask %016" PRIx64, jumps, all, mask_now());
    }
}

// Several are pending: all their handlers run, then the call returns.
static void several(const char *scenario) {
    uint64_t none = 0, all = ALL_SIGNALS;
    struct timespec timeout = {20, 0};
    catch (SIGUSR1, 0, 0);
    catch (SIGUSR2, ALL_SIGNALS, 0);
    catch (SIGRTMIN, ALL_SIGNALS, 0);
    mask_set(all);
    raise(SIGRTMIN), raise(SIGUSR2), raise(SIGUSR1), raise(SIGRTMIN);
    long result = wait_with(now_waiting, &none, 8, &timeout);
    line(scenario, "%s, %s, mask after %016" PRIx64, err(result), order_seen(), mask_now());
}

static void at_once(const char *scenario) {
    uint64_t all = ALL_SIGNALS, none = 0;
    struct timespec zero = {0, 0}, bad = {0, -1};
    catch (SIGUSR1, 0, 0);
    mask_set(BIT(SIGUSR1) | BIT(SIGSYS));
    raise(SIGUSR1);
    const char *results[8];
    static char copies[8][16];
    long calls[] = {wait_with(now_waiting, &all, 8, &zero), wait_with(now_waiting, NULL, 8, &zero),
                    wait_with(now_waiting, &all, 4, &zero), wait_with(now_waiting, (void *)8, 8, &zero),
                    wait_with(now_waiting, NULL, 3, &zero), wait_with(now_waiting, &all, 8, &bad),
                    wait_with(now_waiting, &all, 8, (void *)8), wait_with(now_waiting, (void *)8, 3, (void *)8)};
    int early = delivered;
    for (int i = 0; i < 8; i++)
        results[i] = strncpy(copies[i], err(calls[i]), 15);
    char seen[64] = "", *mapped = (char *)maps(&file);
    uint64_t mask = mask_now();
    long last = wait_with(now_waiting, &none, 8, &zero);
    snprintf(seen, sizeof seen, "%s", order_seen());
    line(scenario, "%s, null %s, size %s, pointer %s, null of a size %s, bad time %s, no time %s, all wrong %s; %d early, %s, "
         "%016" PRIx64 "; none blocked %s, %s", results[0], results[1], results[2], results[3], results[4], results[5], results[6],
         results[7], early, mapped, mask, err(last), seen);
}

// What is ready is answered, whatever the mask.
static void ready(const char *scenario) {
    int pipes[2];
    uint64_t all = ALL_SIGNALS;
    if (pipe(pipes) || write(pipes[1], "x", 1) != 1)
        broken("pipe");
    struct pollfd poll = {pipes[0], POLLIN, 0};
    fd_set reads;
    FD_ZERO(&reads);
    FD_SET(pipes[0], &reads);
    struct epoll_event event = {EPOLLIN, {.u64 = 77}}, got;
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, pipes[0], &event);
    struct {
        uint64_t *mask;
        size_t size;
    } sized = {&all, 8};
    long polled = RAW(SYS_ppoll, &poll, 1, NULL, &all, 8);
    long selected = RAW(SYS_pselect6, pipes[0] + 1, &reads, NULL, NULL, NULL, &sized);
    long waited = RAW(SYS_epoll_pwait, poll_fd, &got, 1, -1, &all, 8);
    line(scenario, "ppoll %ld %d, pselect %ld %d, epoll %ld %lu, %s, %016" PRIx64, polled, poll.revents, selected,
         FD_ISSET(pipes[0], &reads) != 0, waited, (unsigned long)got.data.u64, maps(&file), mask_now());
}

// ---- threads

static void *thread(void *unused) {
    static uint64_t masks[2];
    (void)unused;
    masks[0] = mask_now();
    handler_maps = maps(&file);
    mask_set(BIT(SIGSYS));
    masks[1] = mask_now();
    return masks;
}
static void threads(const char *scenario) {
    const uint64_t masks[] = {0, ALL_SIGNALS, BIT(SIGSYS), ~BIT(SIGSYS)};
    for (size_t i = 0; i < sizeof masks / sizeof *masks; i++) {
        char name[128];
        pthread_t other;
        void *seen;
        mask_set(masks[i]);
        if (pthread_create(&other, NULL, thread, NULL) || pthread_join(other, &seen))
            broken(scenario);
        snprintf(name, sizeof name, "%s with %016" PRIx64, scenario, masks[i]);
        line(name, "has %016" PRIx64 ", then %016" PRIx64 ", %s, ours %016" PRIx64, ((uint64_t *)seen)[0], ((uint64_t *)seen)[1], handler_maps,
             mask_now());
    }
}

// A thread that waits is cancelled: its clean-up runs.
static volatile int cleaned;
static void cleanup(void *unused) {
    (void)unused;
    cleaned = !strcmp(maps(&file), "mapped");
}
static void *cancelled_thread(void *unused) {
    (void)unused;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    struct epoll_event event;
    pthread_cleanup_push(cleanup, NULL);
    switch (now_waiting) {
    case SUSPEND:
        sigsuspend(&all);
        break;
    case PPOLL:
        ppoll(NULL, 0, NULL, &all);
        break;
    case PSELECT:
        pselect(0, NULL, NULL, NULL, NULL, &all);
        break;
    default:
        epoll_pwait(poll_fd, &event, 1, -1, &all);
    }
    pthread_cleanup_pop(1);
    return NULL;
}
static void cancelled(const char *scenario) {
    pthread_t other;
    void *end = NULL;
    if (pthread_create(&other, NULL, cancelled_thread, NULL))
        broken(scenario);
    nanosleep(&(struct timespec){0, 5000000}, NULL);
    pthread_cancel(other);
    pthread_join(other, &end);
    line(scenario, "%s, clean-up %s", end == PTHREAD_CANCELED ? "cancelled" : "DIFFERENT", cleaned ? "ran" : "DIFFERENT");
}

int main(void) {
    char name[128];
    file = remember("/var/files/mixed");
    changes();
    apart("pointers", pointers);
    apart("/proc", status);
    apart("unblocked", unblocked);
    apart("one by one", one_by_one);
    apart("a handler", in_handlers);
    apart("a mask that a handler returns", returned);
    apart("jumps with the mask saved", jump_saved);
    apart("jumps without", jump_unsaved);
    apart("jumps without, nothing else blocked", jump_unsaved_alone);
    if (RAW(SYS_io_setup, 1, &aio))
        broken("io_setup");
    for (now_waiting = 0; now_waiting < WAITS; now_waiting++) {
        const char *wait = wait_names[now_waiting];
#define EACH(what, function) snprintf(name, sizeof name, "%s, " what, wait), apart(name, function)
        if (!can_wait(now_waiting))
            continue;
        // A child has no such context.
        if (now_waiting == AIO) {
            interrupted("io_pgetevents, interrupted");
            break;
        }
        EACH("interrupted", interrupted);
        EACH("left by a jump", jump_from_wait);
        EACH("with several pending", several);
        if (now_waiting != SUSPEND)
            EACH("at once", at_once);
        if (now_waiting <= EPOLL_PWAIT)
            EACH("cancelled", cancelled);
    }
    mask_set(0);
    apart("ready", ready);
    apart("thread", threads);
    line("end", "of masks");
}
