// Where a system call is made from: registers, small stacks, alternate stacks, and what they are afterwards.
#include "lines.h"
#include "waiting.h"
#include <stddef.h>

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif

static struct mapped file;

// ---- registers

// All of `before` into the registers, a system call, all of them into `after`.
void call_with_registers(void);
static const char *elsewhere = "";

#ifdef __x86_64__
// In the order in which the assembly below loads and stores them.
struct state {
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15, flags, behind;
    uint64_t red_zone[16];
    uint8_t vectors[16][32];
    uint32_t mxcsr;
    uint16_t x87;
    uint16_t pad;
    double top;
};
__attribute__((used)) static struct state before, after;
__attribute__((used)) static long have_avx;

#define EACH_VECTOR(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15)
#define LOAD_XMM(n) "movdqu 264+32*" #n "+before(%rip), %xmm" #n "\n"
#define LOAD_YMM(n) "vmovdqu 264+32*" #n "+before(%rip), %ymm" #n "\n"
#define STORE_XMM(n) "movdqu %xmm" #n ", 264+32*" #n "+after(%rip)\n"
#define STORE_YMM(n) "vmovdqu %ymm" #n ", 264+32*" #n "+after(%rip)\n"
#define EACH_WORD(M) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15) M(16)
#define LOAD_WORD(n) "mov 128+8*" #n "+before(%rip), %rax; mov %rax, -8*" #n "(%rsp)\n"
#define STORE_WORD(n) "mov -8*" #n "(%rsp), %rax; mov %rax, 128+8*" #n "+after(%rip)\n"
_Static_assert(offsetof(struct state, red_zone) == 136 && offsetof(struct state, vectors) == 264, "as used below");
_Static_assert(offsetof(struct state, mxcsr) == 776 && offsetof(struct state, top) == 784, "as used below");

// It has the red zone of a leaf function.
__asm__(".text\n.type call_with_registers, @function\ncall_with_registers:\n"
        "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "fldl 784+before(%rip); fldcw 780+before(%rip); ldmxcsr 776+before(%rip)\n"
        "cmpl $0, have_avx(%rip); je 1f\n" EACH_VECTOR(LOAD_YMM) "jmp 2f\n1:" EACH_VECTOR(LOAD_XMM) "2:\n"
        EACH_WORD(LOAD_WORD)
        "mov 8+before(%rip), %rbx; mov 24+before(%rip), %rdx; mov 32+before(%rip), %rsi\n"
        "mov 40+before(%rip), %rdi; mov 48+before(%rip), %rbp; mov 56+before(%rip), %r8; mov 64+before(%rip), %r9\n"
        "mov 72+before(%rip), %r10; mov 88+before(%rip), %r12; mov 96+before(%rip), %r13\n"
        "mov 104+before(%rip), %r14; mov 112+before(%rip), %r15; mov before(%rip), %rax\n"
        "stc; std\n"
        "syscall\n"
        "3: mov %rax, after(%rip); mov %rbx, 8+after(%rip); mov %rcx, 16+after(%rip); mov %rdx, 24+after(%rip)\n"
        "mov %rsi, 32+after(%rip); mov %rdi, 40+after(%rip); mov %rbp, 48+after(%rip); mov %r8, 56+after(%rip)\n"
        "mov %r9, 64+after(%rip); mov %r10, 72+after(%rip); mov %r11, 80+after(%rip); mov %r12, 88+after(%rip)\n"
        "mov %r13, 96+after(%rip); mov %r14, 104+after(%rip); mov %r15, 112+after(%rip)\n"
        EACH_WORD(STORE_WORD)
        "pushfq; pop %rax; mov %rax, 120+after(%rip); cld\n"
        "lea 3b(%rip), %rax; mov %rax, 128+after(%rip)\n"
        "cmpl $0, have_avx(%rip); je 4f\n" EACH_VECTOR(STORE_YMM) "vzeroupper; jmp 5f\n4:" EACH_VECTOR(STORE_XMM) "5:\n"
        "stmxcsr 776+after(%rip); fnstcw 780+after(%rip); fstpl 784+after(%rip); fninit\n"
        "push $0x1f80; ldmxcsr (%rsp); pop %rax\n"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "ret\n.size call_with_registers, .-call_with_registers\n");

static void registers_of(const char *name, long number, const long args[6]) {
    char scenario[64];
    memset(&after, 0, sizeof after);
    uint8_t *byte = (uint8_t *)&before;
    for (size_t i = 0; i < sizeof before; i++)
        byte[i] = i * 37 + 11;
    before.rax = number;
    before.rdi = args[0], before.rsi = args[1], before.rdx = args[2];
    before.r10 = args[3], before.r8 = args[4], before.r9 = args[5];
    before.mxcsr = 0x3f80, before.x87 = 0x077f, before.top = 1.25; // other rounding, other precision
    have_avx = __builtin_cpu_supports("avx") != 0;
    call_with_registers();
    size_t wide = have_avx ? 32 : 16;
    int vectors = 1;
    for (int i = 0; i < 16; i++)
        vectors &= !memcmp(before.vectors[i], after.vectors[i], wide);
    int general = before.rbx == after.rbx && before.rdx == after.rdx && before.rsi == after.rsi &&
                  before.rdi == after.rdi && before.rbp == after.rbp && before.r8 == after.r8 &&
                  before.r9 == after.r9 && before.r10 == after.r10 && before.r12 == after.r12 &&
                  before.r13 == after.r13 && before.r14 == after.r14 && before.r15 == after.r15;
    snprintf(scenario, sizeof scenario, "registers%s, %s", elsewhere, name);
    line(scenario, "%s, general %s, rcx %s, r11 %s, flags %lx, vectors %s, x87 %s, red zone %s", err(after.rax),
         general ? "kept" : "DIFFERENT", after.rcx == after.behind ? "next" : "other",
         after.r11 == after.flags ? "flags" : "other", after.flags & 0xcd5, vectors ? "kept" : "DIFFERENT",
         before.mxcsr == after.mxcsr && before.x87 == after.x87 && before.top == after.top ? "kept" : "DIFFERENT",
         memcmp(before.red_zone, after.red_zone, sizeof after.red_zone) ? "DIFFERENT" : "kept");
}
#else
#if defined __aarch64__
#define GENERAL 31
#define NUMBER 8
#define FLOATS 64
__asm__(".text\n.type call_with_registers, %function\ncall_with_registers:\n"
        "stp x29, x30, [sp, #-160]!; stp x19, x20, [sp, #16]; stp x21, x22, [sp, #32]; stp x23, x24, [sp, #48]\n"
        "stp x25, x26, [sp, #64]; stp x27, x28, [sp, #80]; stp d8, d9, [sp, #96]; stp d10, d11, [sp, #112]\n"
        "stp d12, d13, [sp, #128]; stp d14, d15, [sp, #144]\n"
        "adrp x30, before; add x30, x30, :lo12:before; add x0, x30, #256\n"
        ".irp n,0,2,4,6,8,10,12,14,16,18,20,22,24,26,28,30\n ldr q\\n, [x0, #16*\\n]\n .endr\n"
        ".irp n,1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31\n ldr q\\n, [x0, #16*\\n]\n .endr\n"
        ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30\n"
        " ldr x\\n, [x30, #8*\\n]\n .endr\n"
        "svc #0\n"
        "stp x29, x30, [sp, #-16]!; adrp x30, after; add x30, x30, :lo12:after\n"
        ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28\n"
        " str x\\n, [x30, #8*\\n]\n .endr\n"
        "ldp x0, x1, [sp], #16; str x0, [x30, #232]; str x1, [x30, #240]; add x0, x30, #256\n"
        ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
        " str q\\n, [x0, #16*\\n]\n .endr\n"
        "ldp x19, x20, [sp, #16]; ldp x21, x22, [sp, #32]; ldp x23, x24, [sp, #48]; ldp x25, x26, [sp, #64]\n"
        "ldp x27, x28, [sp, #80]; ldp d8, d9, [sp, #96]; ldp d10, d11, [sp, #112]; ldp d12, d13, [sp, #128]\n"
        "ldp d14, d15, [sp, #144]; ldp x29, x30, [sp], #160; ret\n");
#else
#define GENERAL 15
#define NUMBER 7
#define FLOATS 16
// r13 is the stack pointer; what is loaded for it is passed over. Once in ARM code, once in Thumb code.
#define CALL(name, state)                                                                                            \
    "." state "\n.type " name ", %function\n" name ":\n"                                                           \
    "push {r4, r5, r6, r7, r8, r9, r10, r11, lr}; vpush {d8-d15}; sub sp, sp, #4\n"                                 \
    "movw lr, #:lower16:before; movt lr, #:upper16:before; add r0, lr, #64; vldm r0, {d0-d15}\n"                    \
    "ldm lr, {r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, r12}; ldr lr, [lr, #56]\n"                          \
    "svc #0\n"                                                                                                      \
    "push {r12, lr}; movw lr, #:lower16:after; movt lr, #:upper16:after\n"                                          \
    "stm lr, {r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11}; pop {r0, r1}; str r0, [lr, #48]; str r1, [lr, #56]\n" \
    "add r0, lr, #64; vstm r0, {d0-d15}\n"                                                                          \
    "add sp, sp, #4; vpop {d8-d15}; pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}\n"
__asm__(".text\n.syntax unified\n.fpu vfpv3-d16\n" CALL("call_with_registers", "arm") CALL("call_in_thumb", "thumb\n.thumb_func"));
void call_in_thumb(void);
#endif
struct state {
    unsigned long general[GENERAL + 1];
    uint64_t floats[FLOATS];
};
__attribute__((used)) struct state before, after;
static void registers_of(const char *name, long number, const long args[6]) {
    uint8_t *byte = (uint8_t *)&before;
    for (size_t i = 0; i < sizeof before; i++)
        byte[i] = i * 37 + 11;
    for (int i = 0; i < 6; i++)
        before.general[i] = args[i];
    before.general[NUMBER] = number;
    memset(&after, 0, sizeof after);
#ifdef __arm__
    // By turns, and the other way round with an alternate stack.
    static int calls;
    (calls++ % 2 ? call_in_thumb : call_with_registers)();
#else
    call_with_registers();
#endif
    int general = 1;
    for (int i = 1; i < GENERAL; i++)
        general &= before.general[i] == after.general[i] || (GENERAL == 15 && i == 13);
    char scenario[64];
    snprintf(scenario, sizeof scenario, "registers%s, %s", elsewhere, name);
    line(scenario, "%s, general %s, floats %s", err(after.general[0]), general ? "kept" : "DIFFERENT",
         memcmp(before.floats, after.floats, sizeof after.floats) ? "DIFFERENT" : "kept");
}
#endif

// A stack of so many bytes, and pages that are not there on both sides of it.
static char *guarded(size_t len) {
    size_t room = pages_of(len) * PAGE;
    char *at = mmap(NULL, room + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED || mprotect(at + PAGE, room, PROT_READ | PROT_WRITE))
        broken("stack");
    return at + PAGE + room - len;
}

static void ring(int number) { (void)number; }

static void registers(void) {
    uint64_t mask = ALL_SIGNALS, none = 0;
    unsigned long set[2] = {(unsigned long)&mask, 8};
    struct action ignore = {.handler = SIG_IGN};
    int64_t now[2] = {0, 0}; // whatever the times of a call are
    int fd = dup(0), poll = epoll_create1(0);
    struct epoll_event event;
    registers_of("mmap", SYS_mmap, (long[]){0, PAGE, PROT_READ, MAP_PRIVATE, file.fd, 0});
    registers_of("mmap that fails", SYS_mmap, (long[]){0, PAGE, PROT_READ, MAP_PRIVATE, -1, 0});
    registers_of("rt_sigprocmask", SYS_rt_sigprocmask, (long[]){SIG_SETMASK, (long)&mask, 0, 8, 1, 2});
    registers_of("rt_sigprocmask back", SYS_rt_sigprocmask, (long[]){SIG_SETMASK, (long)&none, 0, 8, 1, 2});
    registers_of("rt_sigaction", SYS_rt_sigaction, (long[]){SIGUSR2, (long)&ignore, 0, 8, 1, 2});
    registers_of("ppoll", SYS_ppoll, (long[]){0, 0, (long)&now, (long)&mask, 8, 2});
    registers_of("pselect6", SYS_pselect6, (long[]){0, 0, 0, 0, (long)&now, (long)set});
    registers_of("epoll_pwait", SYS_epoll_pwait, (long[]){poll, (long)&event, 1, 0, (long)&mask, 8});
    struct timespec long_time = {20, 0};
    signal(SIGALRM, ring);
    RAW(SYS_io_setup, 1, &aio);
    registers_of("epoll_pwait2", SYS_epoll_pwait2, (long[]){poll, (long)&event, 1, (long)&now, (long)&mask, 8});
    registers_of("io_pgetevents", SYS_io_pgetevents, (long[]){aio, 1, 1, (long)&event, (long)&now, (long)set});
    RAW(SYS_io_destroy, aio);
    registers_of("mask that is nowhere", SYS_ppoll, (long[]){0, 0, (long)&now, 8, 8, 2});
    registers_of("mask of a wrong size", SYS_pselect6, (long[]){0, 0, 0, 0, (long)&now, (long)(unsigned long[2]){set[0], 7}});
    registers_of("no mask", SYS_pselect6, (long[]){0, 0, 0, 0, (long)&now, (long)(unsigned long[2]){0, 7}});
    // It waits until the call does.
    mask_set(BIT(SIGALRM));
    ring_after(1000);
    registers_of("rt_sigsuspend", SYS_rt_sigsuspend, (long[]){(long)&none, 8, 2, 3, 4, 5});
    ring_after(1000);
    registers_of("ppoll that is interrupted", SYS_ppoll, (long[]){0, 0, (long)&long_time, (long)&none, 8, 2});
    ring_after(1000);
    registers_of("pselect6 that is interrupted", SYS_pselect6, (long[]){0, 0, 0, 0, 0, (long)(unsigned long[2]){(long)&none, 8}});
    mask_set(0);
    registers_of("close", SYS_close, (long[]){fd, 1, 2, 3, 4, 5});
    registers_of("dup2", SYS_dup2, (long[]){0, 77, 2, 3, 4, 5});
    registers_of("close_range", SYS_close_range, (long[]){77, 77, 0, 3, 4, 5});
    registers_of("fcntl", SYS_fcntl, (long[]){0, F_SETFD, 0, 3, 4, 5});
    registers_of("execve that fails", SYS_execve, (long[]){(long)"/nowhere", 0, 0, 3, 4, 5});
    registers_of("getppid", SYS_getppid, (long[]){0, 1, 2, 3, 4, 5});
    close(poll);
}

// The same with an alternate stack, where a handler is elsewhere than what it interrupts.
static void registers_elsewhere(const char *name) {
    stack_t stack = {.ss_sp = guarded(65536), .ss_size = 65536};
    elsewhere = name;
    if (sigaltstack(&stack, NULL))
        broken(name);
    registers();
}

// ---- small stacks

static volatile int small_done;
static const char *volatile small_seen;
static volatile uint64_t small_mask;
static char *small_alternate;
static size_t small_alternate_len;

static int on_small_stack(void *unused) {
    (void)unused;
    if (small_alternate) {
        stack_t stack = {.ss_sp = small_alternate, .ss_size = small_alternate_len};
        RAW(SYS_sigaltstack, &stack, 0);
    }
    uint64_t all = ALL_SIGNALS;
    small_seen = maps(&file);
    RAW(SYS_rt_sigprocmask, SIG_SETMASK, &all, 0, 8);
    const char *blocked = maps(&file);
    if (strcmp(blocked, "mapped"))
        small_seen = blocked;
    for (int i = 0; i < 100; i++)
        small_seen = strcmp(maps(&file), "mapped") ? "DIFFERENT" : small_seen;
    RAW(SYS_rt_sigprocmask, SIG_BLOCK, 0, &all, 8);
    small_mask = all;
    __atomic_store_n(&small_done, 1, __ATOMIC_RELEASE);
    return 0;
}

// A thread that no C library knows, as those of Go and of others are.
static void thread_with_stack(const char *scenario, size_t len) {
    char *stack = guarded(len);
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    if (clone(on_small_stack, stack + len, flags, NULL) < 0)
        broken(scenario);
    while (!__atomic_load_n(&small_done, __ATOMIC_ACQUIRE))
        nanosleep(&(struct timespec){0, 100000}, NULL);
    line(scenario, "%s, mask %016" PRIx64 ", ours %016" PRIx64, small_seen, small_mask, mask_now());
}
static void thread_8k(const char *scenario) { thread_with_stack(scenario, 8192); }
static void thread_8k_alternate(const char *scenario) {
    small_alternate_len = getauxval(AT_MINSIGSTKSZ) + PAGE;
    small_alternate = guarded(small_alternate_len);
    thread_with_stack(scenario, 8192);
}

// ---- alternate stacks

static char *alternate;
static size_t alternate_len;
static struct handled {
    const char *maps;
    int on_alternate, flags;
    uint64_t mask;
    long change;
    int runs;
} handled;

static void handler(int number) {
    char here;
    stack_t now;
    (void)number;
    handled.runs++;
    handled.on_alternate = &here >= alternate && &here < alternate + alternate_len;
    handled.maps = maps(&file);
    handled.mask = mask_now();
    RAW(SYS_sigaltstack, 0, &now);
    handled.flags = now.ss_flags;
    stack_t other = {.ss_flags = SS_DISABLE};
    handled.change = RAW(SYS_sigaltstack, &other, 0);
}

static void install(int number, void (*function)(int), int flags, int all_blocked) {
    struct sigaction action = {.sa_handler = function, .sa_flags = flags};
    if (all_blocked)
        sigfillset(&action.sa_mask);
    if (sigaction(number, &action, NULL))
        broken("sigaction");
}

static void set_alternate(char *at, size_t len, int flags) {
    stack_t stack = {.ss_sp = at, .ss_size = len, .ss_flags = flags};
    alternate = at;
    alternate_len = len;
    long result = RAW(SYS_sigaltstack, &stack, 0);
    if (result)
        line("sigaltstack", "BROKEN %s", err(result));
}

static void handler_on(const char *scenario, size_t len, int stack_flags, int flags, int all_blocked) {
    // What lies below it must stay as it is.
    char *at = guarded(len + 64) + 64;
    memset(at - 64, 0x5a, 64);
    set_alternate(at, len, stack_flags);
    install(SIGUSR1, handler, flags, all_blocked);
    const char *outside = maps(&file);
    raise(SIGUSR1);
    raise(SIGUSR1);
    stack_t now;
    sigaltstack(NULL, &now);
    int kept = 1;
    for (int i = 1; i <= 64; i++)
        kept &= at[-i] == 0x5a;
    line(scenario, "%s, in the handler %s, %s, flags %x, mask %016" PRIx64 ", change %s, %d runs, then %s flags %x, %s", outside,
         handled.maps, handled.on_alternate ? "there" : "elsewhere", handled.flags, handled.mask, err(handled.change),
         handled.runs, now.ss_sp == at && now.ss_size == len ? "the same" : "another", now.ss_flags,
         kept ? "nothing below" : "DIFFERENT");
}
// A session needs room for a frame of its own and 3 KiB more: on AArch64, where a frame has 4.5 KiB, a page is not enough.
#ifdef __aarch64__
#define FRAMES 2
#else
#define FRAMES 1
#endif
static size_t least(void) { return FRAMES * getauxval(AT_MINSIGSTKSZ) + PAGE; }
static void small(const char *scenario) { handler_on(scenario, least(), 0, SA_ONSTACK, 0); }
static void small_blocked(const char *scenario) { handler_on(scenario, least(), 0, SA_ONSTACK, 1); }
static void small_info(const char *scenario) { handler_on(scenario, least(), 0, SA_ONSTACK | SA_SIGINFO, 1); }
static void small_nodefer(const char *scenario) { handler_on(scenario, least(), 0, SA_ONSTACK | SA_NODEFER, 0); }
static void large(const char *scenario) { handler_on(scenario, 65536, 0, SA_ONSTACK, 1); }
static void autodisarm(const char *scenario) { handler_on(scenario, 65536, SS_AUTODISARM, SA_ONSTACK, 1); }
static void not_on_it(const char *scenario) { handler_on(scenario, 65536, 0, 0, 1); }

// No handler of the program's ever runs on it.
static void not_used(const char *scenario, char *at, size_t len) {
    set_alternate(at, len, 0);
    const char *first = maps(&file);
    mask_set(ALL_SIGNALS);
    line(scenario, "%s, all blocked %s, %016" PRIx64, first, maps(&file), mask_now());
}
static void unusable(const char *scenario) {
    char *at = guarded(4 * PAGE);
    mprotect(at, 4 * PAGE, PROT_NONE);
    not_used(scenario, at, 4 * PAGE);
}
// What is allowed (the kernel's MINSIGSTKSZ), and may be too little for a frame all the same.
#ifdef __aarch64__
#define LEAST_ALLOWED (5120 + 3072)
#else
#define LEAST_ALLOWED 2048
#endif
static void too_small(const char *scenario) { not_used(scenario, guarded(4 * PAGE), LEAST_ALLOWED); }
static void unmapped(const char *scenario) {
    char *at = guarded(65536);
    set_alternate(at, 65536, 0);
    munmap(at, 65536);
    line(scenario, "%s", maps(&file));
}

static sigjmp_buf back;
static char *deepest;
static void overflown(int number) {
    (void)number;
    handled.maps = maps(&file);
    siglongjmp(back, 1);
}
// Not a loop, whatever the optimizer thinks.
static __attribute__((noinline)) int deeper(int depth) {
    volatile char frame[1024];
    frame[0] = depth;
    deepest = (char *)frame;
    return depth < 0 ? 0 : deeper(depth + 1) + frame[0];
}
static void overflow(const char *scenario) {
    set_alternate(guarded(65536), 65536, 0);
    install(SIGSEGV, overflown, SA_ONSTACK, 0);
    int rounds = 0;
    for (volatile int i = 0; i < 3; i++)
        if (!sigsetjmp(back, 1))
            deeper(0);
        else
            rounds++;
    stack_t now;
    sigaltstack(NULL, &now);
    line(scenario, "%d times, in the handler %s, then %s flags %x", rounds, handled.maps, maps(&file), now.ss_flags);
}

// Out of a handler by a jump, again and again: nothing may pile up on the alternate stack, or in the mask.
static volatile int jumps;
static void jumping(int number) {
    (void)number;
    if (strcmp(maps(&file), "mapped"))
        handled.maps = "DIFFERENT";
    jumps++;
    siglongjmp(back, 1);
}
static void jump_out(const char *scenario, int flags, size_t len) {
    set_alternate(guarded(len), len, 0);
    handled.maps = "mapped";
    install(SIGUSR1, jumping, flags, 1);
    for (volatile int i = 0; i < ROUNDS(2000); i++)
        if (!sigsetjmp(back, 1))
            raise(SIGUSR1);
    line(scenario, "%d jumps, in the handler %s, then %s, mask %016" PRIx64, jumps, handled.maps, maps(&file), mask_now());
}
static void jump_out_small(const char *scenario) { jump_out(scenario, SA_ONSTACK, least() + 1024); }
static void jump_out_own(const char *scenario) { jump_out(scenario, 0, 65536); }

// One handler in another, both on the alternate stack.
static const char *inner_maps;
static void inner(int number) {
    (void)number;
    inner_maps = maps(&file);
}
static void outer(int number) {
    (void)number;
    const char *first = maps(&file);
    raise(SIGUSR2);
    handled.maps = strcmp(first, maps(&file)) ? "DIFFERENT" : first;
}
static void nested(const char *scenario) {
    set_alternate(guarded(65536), 65536, 0);
    install(SIGUSR1, outer, SA_ONSTACK, 0);
    install(SIGUSR2, inner, SA_ONSTACK, 1);
    raise(SIGUSR1);
    line(scenario, "outer %s, inner %s", handled.maps, inner_maps);
}

static void arguments(const char *scenario) {
    char *at = guarded(65536), text[512];
    stack_t stacks[] = {{.ss_sp = at, .ss_size = 65536},
                        {.ss_sp = at, .ss_size = 100},
                        {.ss_sp = at, .ss_size = 65536, .ss_flags = 77},
                        {.ss_sp = at, .ss_size = 65536, .ss_flags = SS_ONSTACK},
                        {.ss_sp = at, .ss_size = 65536, .ss_flags = SS_AUTODISARM},
                        {.ss_flags = SS_DISABLE}};
    int to = 0;
    for (size_t i = 0; i < sizeof stacks / sizeof *stacks; i++) {
        stack_t old = {.ss_flags = -1};
        long result = RAW(SYS_sigaltstack, &stacks[i], &old);
        to += snprintf(text + to, sizeof text - to, "%s after %x %zu, ", err(result), old.ss_flags, old.ss_size);
    }
    line(scenario, "%s%s %s", text, err(RAW(SYS_sigaltstack, 8, 0)), err(RAW(SYS_sigaltstack, 0, 8)));
}

// ---- contexts

#ifdef __GLIBC__
static ucontext_t main_context, other_context;
static const char *context_maps[3];
static void in_context(void) {
    context_maps[0] = maps(&file);
    mask_set(ALL_SIGNALS);
    context_maps[1] = maps(&file);
    swapcontext(&other_context, &main_context);
    context_maps[2] = maps(&file);
}
static void contexts(const char *scenario) {
    static char stack[8192];
    getcontext(&other_context);
    other_context.uc_stack.ss_sp = stack;
    other_context.uc_stack.ss_size = sizeof stack;
    other_context.uc_link = &main_context;
    sigfillset(&other_context.uc_sigmask);
    makecontext(&other_context, in_context, 0);
    uint64_t masks[2];
    swapcontext(&main_context, &other_context);
    masks[0] = mask_now();
    const char *between = maps(&file);
    swapcontext(&main_context, &other_context);
    masks[1] = mask_now();
    line(scenario, "%s %s %s %s, masks %016" PRIx64 " %016" PRIx64, context_maps[0], context_maps[1], between, context_maps[2],
         masks[0], masks[1]);
    volatile int rounds = 0;
    getcontext(&main_context);
    if (rounds++ < ROUNDS(1000)) {
        sigfillset(&main_context.uc_sigmask);
        setcontext(&main_context);
    }
    line("setcontext", "%d rounds, %s, mask %016" PRIx64, rounds, maps(&file), mask_now());
}
#endif

int main(void) {
    file = remember("/var/files/direct");
    registers();
    apart(" with an alternate stack", registers_elsewhere);
    file = remember("/var/files/mixed");
    apart("thread with 8 KiB", thread_8k);
    apart("thread with 8 KiB and a small alternate stack", thread_8k_alternate);
    apart("handler on the smallest stack", small);
    apart("handler on the smallest stack, all blocked", small_blocked);
    apart("handler on the smallest stack, with information", small_info);
    apart("handler on the smallest stack, not deferred", small_nodefer);
    apart("handler on a large stack", large);
    apart("handler on a stack that is disarmed", autodisarm);
    apart("handler not on the alternate stack", not_on_it);
    apart("alternate stack without access", unusable);
    apart("alternate stack of the least size", too_small);
    apart("alternate stack that was unmapped", unmapped);
    apart("stack overflow", overflow);
    apart("jumps out of a small alternate stack", jump_out_small);
    apart("jumps out of the own stack", jump_out_own);
    apart("nested handlers", nested);
    apart("sigaltstack", arguments);
#ifdef __GLIBC__
    apart("swapcontext", contexts);
#endif
    line("end", "of stacks");
}
