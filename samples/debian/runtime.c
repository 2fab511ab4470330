// What the runtime of Go does: threads of clone(2) with stacks of their own and alternate signal stacks, a handler for every
// signal there is, threads interrupted all the time, children started by clone(2) with CLONE_VFORK by a thread that
// blocks all signals meanwhile; no C library below it all.
//#Layouts: dynamic static
//#Stdout: 6 threads mapped 60 files, 0 wrongly
//#Stdout: they started 60 programs, 60 ended as they should
//#Stdout: they were interrupted, on their alternate stacks
//#Stdout: SIGSYS has a handler
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 6, ROUNDS = 10, STACK = 8192, SIGNAL_STACK = 8192, PAGE = 4096 };

struct thread {
    int id, ready;
    char *stack, *signal_stack;
};

static char *self;
static struct thread threads[THREADS];
static int mapped, wrong, right, running = THREADS, interrupted, off_stack;

static void count(int *counter) { __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST); }

static void handler(int number, siginfo_t *info, void *context) {
    char here;
    int on_stack = 0;
    (void)info, (void)context;
    if (number != SIGURG)
        return;
    for (int thread = 0; thread < THREADS; thread++)
        on_stack |= &here > threads[thread].signal_stack && &here < threads[thread].signal_stack + SIGNAL_STACK;
    count(on_stack ? &interrupted : &off_stack);
}

static int child(void *arguments) {
    execve(self, arguments, NULL);
    _exit(255);
}

static int run(void *argument) {
    struct thread *thread = argument;
    char *arguments[] = {self, "7", NULL};
    sigset_t all, before;
    sigfillset(&all);
    sigaltstack(&(stack_t){.ss_sp = thread->signal_stack, .ss_size = SIGNAL_STACK}, NULL);
    __atomic_store_n(&thread->ready, 1, __ATOMIC_SEQ_CST);
    for (int round = 0; round < ROUNDS; round++) {
        char bytes[64];
        int status = -1, fd = open(self, O_RDONLY | O_CLOEXEC);
        char *page = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
        count(&mapped);
        if (page == MAP_FAILED || pread(fd, bytes, sizeof bytes, 0) != sizeof bytes || memcmp(page, bytes, sizeof bytes) ||
            munmap(page, PAGE))
            count(&wrong);
        close(fd);
        // The child borrows the memory, but not the stack.
        static char stacks[THREADS][PAGE] __attribute__((aligned(16)));
        sigprocmask(SIG_BLOCK, &all, &before);
        pid_t pid = clone(child, stacks[thread - threads] + PAGE, CLONE_VFORK | CLONE_VM | SIGCHLD, arguments);
        sigprocmask(SIG_SETMASK, &before, NULL);
        while (syscall(SYS_wait4, pid, &status, 0, NULL) != pid)
            ;
        if (status == 7 << 8)
            count(&right);
    }
    __atomic_sub_fetch(&running, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_exit, 0);
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1)
        return 7;
    self = argv[0];
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    sigfillset(&action.sa_mask);
    for (int number = 1; number < 65; number++)
        sigaction(number, &action, NULL);
    for (int number = 0; number < THREADS; number++) {
        struct thread *thread = &threads[number];
        thread->stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        thread->signal_stack = mmap(NULL, SIGNAL_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
        thread->id = clone(run, thread->stack + STACK, flags, thread);
    }
    while (__atomic_load_n(&running, __ATOMIC_SEQ_CST)) {
        for (int thread = 0; thread < THREADS; thread++)
            if (__atomic_load_n(&threads[thread].ready, __ATOMIC_SEQ_CST))
                syscall(SYS_tgkill, getpid(), threads[thread].id, SIGURG);
        usleep(200);
    }
    printf("%d threads mapped %d files, %d wrongly\n", THREADS, mapped, wrong);
    printf("they started %d programs, %d ended as they should\n", THREADS * ROUNDS, right);
    printf("they were %s, %s\n", interrupted ? "interrupted" : "left alone",
           off_stack ? "and not on their alternate stacks" : "on their alternate stacks");
    struct sigaction found;
    sigaction(SIGSYS, NULL, &found);
    puts(found.sa_sigaction == handler ? "SIGSYS has a handler" : "SIGSYS has lost its handler");
    return 0;
}
