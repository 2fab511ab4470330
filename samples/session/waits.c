// On which stack handlers run that come while a call waits with a mask of its own, with an alternate stack there.
#include "lines.h"
#include "waiting.h"

static struct mapped file;
static enum wait now_waiting;

// ---- an alternate stack with room for several frames, and what is below it

#define ALTERNATE 32768
#define BELOW 131072
static char *alternate;

static void set_alternate(int flags) {
    char *at = mmap(NULL, BELOW + ALTERNATE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        broken("alternate stack");
    memset(at, 0x5a, BELOW);
    alternate = at + BELOW;
    stack_t stack = {.ss_sp = alternate, .ss_size = ALTERNATE, .ss_flags = flags};
    if (sigaltstack(&stack, NULL))
        broken("sigaltstack");
}

static int damaged(void) {
    int bytes = 0;
    for (char *at = alternate - BELOW; at < alternate; at++)
        bytes += *at != 0x5a;
    return bytes;
}

// ---- handlers

static volatile int runs, on_alternate, flags_there;
static char seen_there[128];
static volatile size_t room_bytes;

// As much of the stack as a handler may have that has not asked for a small one.
static void handler(int number) {
    (void)number;
    volatile char room[room_bytes];
    memset((char *)room, 0xa5, sizeof room);
    stack_t now, other = {.ss_flags = SS_DISABLE};
    runs++;
    on_alternate = (char *)room >= alternate - BELOW && (char *)room < alternate + ALTERNATE;
    long asked = RAW(SYS_sigaltstack, NULL, &now);
    long changed = RAW(SYS_sigaltstack, &other, NULL);
    if (!failed(changed))
        RAW(SYS_sigaltstack, &now, NULL);
    snprintf(seen_there, sizeof seen_there, "%s %s, flags %x, change %s, mask %016" PRIx64 ", %s",
             on_alternate ? "alternate" : "own", err(asked), now.ss_flags, err(changed), mask_now(), maps(&file));
}

static void install(int number, void (*to)(int), int flags) {
    struct sigaction action = {.sa_handler = to, .sa_flags = flags};
    if (sigaction(number, &action, NULL))
        broken("sigaction");
}

// ---- scenarios, each in a process of its own

static long wait_long(uint64_t mask) {
    struct timespec timeout = {20, 0};
    return wait_with(now_waiting, &mask, 8, &timeout);
}

static void set_up(int stack_flags) {
    if (RAW(SYS_io_setup, 1, &aio))
        broken("io_setup");
    set_alternate(stack_flags);
    mask_set(BIT(SIGALRM) | BIT(SIGUSR2));
}

static void interrupted(const char *scenario, int flags, size_t room, int stack_flags) {
    set_up(stack_flags);
    room_bytes = room;
    install(SIGALRM, handler, flags);
    int wrong = 0;
    for (int i = 0; i < ROUNDS(20); i++) {
        ring_after(i % 2 ? 1 : 1000);
        wrong += wait_long(BIT(SIGUSR2)) != -EINTR;
        wrong += strcmp(maps(&file), "mapped") != 0;
    }
    stack_t now;
    RAW(SYS_sigaltstack, NULL, &now);
    line(scenario, "%s, %d runs, %s, %d bytes damaged, then flags %x, %s, mask %016" PRIx64, mistakes(wrong), runs, seen_there,
         damaged(), now.ss_flags, now.ss_sp == alternate && now.ss_size == ALTERNATE ? "kept" : "another", mask_now());
}
static void on_own(const char *scenario) { interrupted(scenario, 0, 60000, 0); }
static void on_own_restart(const char *scenario) { interrupted(scenario, SA_RESTART, 60000, 0); }
static void on_the_alternate(const char *scenario) { interrupted(scenario, SA_ONSTACK, 1000, 0); }
static void on_own_disarm(const char *scenario) { interrupted(scenario, 0, 60000, 1 << 31); }
static void on_alternate_disarm(const char *scenario) { interrupted(scenario, SA_ONSTACK, 1000, 1 << 31); }

// A handler on the alternate stack waits itself, for one that is not.
static char inner_seen[256];
static void waiting(int number) {
    (void)number;
    ring_after(1000);
    long result = wait_long(BIT(SIGUSR2));
    snprintf(inner_seen, sizeof inner_seen, "%s, %s", err(result), seen_there);
}
static void nested(const char *scenario) {
    set_up(0);
    room_bytes = 1000;
    install(SIGALRM, handler, 0);
    install(SIGUSR1, waiting, SA_ONSTACK);
    for (int i = 0; i < 3; i++)
        raise(SIGUSR1);
    line(scenario, "%d runs, %s, %d bytes damaged", runs, inner_seen, damaged());
}

// Stopped and continued, the call is taken up again where nothing is to be run; its mask still holds.
static void stopped(const char *scenario) {
    int pipes[2];
    char text[256] = "";
    if (pipe(pipes))
        broken("pipe");
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        set_up(0);
        room_bytes = 60000;
        install(SIGALRM, handler, 0);
        install(SIGUSR2, handler, 0);
        long result = wait_long(BIT(SIGUSR2));
        int len = snprintf(text, sizeof text, "%s, %d runs, %d bytes damaged, %s", err(result), runs, damaged(), seen_there);
        _exit(write(pipes[1], text, len) != len);
    }
    for (int i = 0; i < 3; i++) {
        int status;
        wait_until_asleep(pid);
        kill(pid, SIGSTOP);
        waitpid(pid, &status, WUNTRACED);
        kill(pid, SIGCONT);
    }
    wait_until_asleep(pid);
    kill(pid, SIGUSR2);
    kill(pid, SIGALRM);
    const char *end = awaited(pid);
    close(pipes[1]);
    if (read(pipes[0], text, sizeof text - 1) < 0)
        broken("read");
    line(scenario, "%s; %s", text, end);
}

static sigjmp_buf back;
static volatile int jumps;
static void jumping(int number) {
    volatile char room[room_bytes];
    room[0] = number;
    memset((char *)room + 1, 0xa5, sizeof room - 1);
    jumps++;
    siglongjmp(back, 1);
}
static void left(const char *scenario, int flags, size_t room) {
    set_up(0);
    room_bytes = room;
    install(SIGALRM, jumping, flags);
    for (volatile int i = 0; i < ROUNDS(500); i++)
        if (!sigsetjmp(back, 1)) {
            ring_after(1);
            wait_long(BIT(SIGUSR2));
        }
    line(scenario, "%d jumps, %d bytes damaged, %s, mask %016" PRIx64, jumps, damaged(), maps(&file), mask_now());
}
static void left_own(const char *scenario) { left(scenario, 0, 60000); }
static void left_alternate(const char *scenario) { left(scenario, SA_ONSTACK, 1000); }

// With nothing to write to below the stack's pointer: no handler can run there, but one on the alternate stack can.
struct edge {
    long number, args[6];
};
#if defined __aarch64__
static __attribute__((noinline)) long at_the_edge(char *stack, const struct edge *call) {
    register long x8 __asm__("x8") = call->number;
    register long x0 __asm__("x0") = call->args[0];
    register long x1 __asm__("x1") = call->args[1];
    register long x2 __asm__("x2") = call->args[2];
    register long x3 __asm__("x3") = call->args[3];
    register long x4 __asm__("x4") = call->args[4];
    register long x5 __asm__("x5") = call->args[5];
    __asm__ volatile("mov x19, sp; mov sp, %[stack]; svc #0; mov sp, x19"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5), [stack] "r"(stack)
                     : "x19", "memory");
    return x0;
}
#elif defined __arm__
long at_the_edge(char *stack, const struct edge *call);
__asm__(".text\n.arm\n.type at_the_edge, %function\nat_the_edge:\n"
        "push {r4, r5, r6, r7, r8, lr}; mov r8, sp; mov r6, r0; ldm r1!, {r7}; ldm r1, {r0, r1, r2, r3, r4, r5}\n"
        "mov sp, r6; svc #0; mov sp, r8; pop {r4, r5, r6, r7, r8, pc}\n");
#else
static long at_the_edge(char *stack, const struct edge *call) {
    register long r10 __asm__("r10") = call->args[3];
    register long r8 __asm__("r8") = call->args[4];
    register long r9 __asm__("r9") = call->args[5];
    long result;
    __asm__ volatile("mov %%rsp, %%rbx; mov %[stack], %%rsp; syscall; mov %%rbx, %%rsp"
                     : "=a"(result)
                     : "0"(call->number), "D"(call->args[0]), "S"(call->args[1]), "d"(call->args[2]), "r"(r10), "r"(r8),
                       "r"(r9), [stack] "r"(stack)
                     : "rbx", "rcx", "r11", "memory");
    return result;
}
#endif
static void without_stack(const char *scenario) {
    set_up(0);
    room_bytes = 1000;
    install(SIGALRM, handler, SA_ONSTACK);
    char *page = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(page, PAGE, PROT_NONE);
    uint64_t mask = BIT(SIGUSR2);
    unsigned long sized[2] = {(unsigned long)&mask, 8};
    const struct edge calls[] = {{SYS_rt_sigsuspend, {(long)&mask, 8}}, {SYS_ppoll, {0, 0, 0, (long)&mask, 8}},
                                 {SYS_pselect6, {0, 0, 0, 0, 0, (long)sized}}};
    char text[512];
    int at = 0;
    const int offsets[] = {0, 8, 128, 160, 200, 256, PAGE};
    for (size_t call = 0; call < 3; call++)
        for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
            ring_after(1000);
            at += snprintf(text + at, sizeof text - at, "%s ", err(at_the_edge(page + PAGE + offsets[i], &calls[call])));
        }
    // No stack at all.
    ring_after(1000);
    snprintf(text + at, sizeof text - at, "%s", err(at_the_edge((char *)64, &calls[0])));
    line(scenario, "%s, %d runs, %s, %d bytes damaged", text, runs, seen_there, damaged());
}

int main(void) {
    char name[128];
    file = remember("/var/files/mixed");
    for (now_waiting = 0; now_waiting < WAITS; now_waiting++) {
        if (!can_wait(now_waiting))
            continue;
#define EACH(what, function) (snprintf(name, sizeof name, "%s, " what, wait_names[now_waiting]), apart(name, function))
        EACH("handler on its own stack", on_own);
        EACH("handler on its own stack, restarting", on_own_restart);
        EACH("handler on the alternate stack", on_the_alternate);
        EACH("handler on its own stack, the other disarmed", on_own_disarm);
        EACH("handler on the alternate stack, disarmed", on_alternate_disarm);
        EACH("in a handler", nested);
        // epoll_wait(2) and io_uring_enter(2) are not taken up again.
        if (now_waiting < EPOLL_PWAIT || now_waiting == AIO)
            EACH("stopped", stopped);
        EACH("left by a jump from its own stack", left_own);
        EACH("left by a jump from the alternate stack", left_alternate);
    }
    apart("without a stack", without_stack);
    line("end", "of waits");
}
