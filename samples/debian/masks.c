// Signal masks and SIGSYS, which a session needs for itself and a program may use all the same: files can be mapped and
// programs started whatever is blocked, in handlers too, and SIGSYS is handled, ignored and deadly as it was set. Whether
// it is shown as blocked is left out: in a session it never is.
//#Layouts: dynamic static
//#Stdout: SIGSYS: default, not blocked
//#Stdout: all blocked: a file is mapped, a program started
//#Stdout: a handler with a full mask: a file is mapped, a program started
//#Stdout: in sigsuspend: a file is mapped, a program started
//#Stdout: in pselect: a file is mapped, a program started
//#Stdout: in ppoll: a file is mapped, a program started
//#Stdout: SIGSYS, raised: handled
//#Stdout: SIGSYS, blocked, raised and unblocked: handled
//#Stdout: SIGSYS, ignored and raised: nothing
//#Stdout: own filter: the handler was called for getppid, which said 1234
//#Stdout: a file is mapped, a program started
//#Stdout: child: SIGSYS default, not blocked, USR1 ignored, blocked
//#Stdout: child: SIGSYS default, not blocked, USR1 default, not blocked
//#Stdout: killed by SIGSYS: yes
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static char *self;
static sigset_t all, none;
static volatile sig_atomic_t handled, trapped;

static void map_and_start(const char *when) {
    unsigned char bytes[64];
    int status = -1, fd = open(self, O_RDONLY | O_CLOEXEC);
    unsigned char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    int mapped = page != MAP_FAILED && read(fd, bytes, sizeof bytes) == sizeof bytes &&
                 !memcmp(page, bytes, sizeof bytes) && !munmap(page, 4096);
    close(fd);
    pid_t pid = fork();
    if (pid == 0) {
        execl(self, self, "exit 5", (char *)NULL);
        _exit(255);
    }
    waitpid(pid, &status, 0);
    printf("%sa file is %s, a program %s\n", when, mapped ? "mapped" : "not mapped",
           WIFEXITED(status) && WEXITSTATUS(status) == 5 ? "started" : "lost");
}

static const char *handler_of(int number) {
    struct sigaction found;
    sigaction(number, NULL, &found);
    return found.sa_handler == SIG_DFL ? "default" : found.sa_handler == SIG_IGN ? "ignored" : "handled";
}

static const char *blocked(int number) {
    sigset_t found;
    sigprocmask(SIG_SETMASK, NULL, &found);
    return sigismember(&found, number) ? "blocked" : "not blocked";
}

static void on_usr1(int number) {
    (void)number;
    map_and_start("a handler with a full mask: ");
}

static const char *when;

static void on_alarm(int number) {
    (void)number;
    map_and_start(when);
}

static void on_sys(int number, siginfo_t *info, void *context) {
    (void)number;
    if (info->si_code == 1) { // SYS_SECCOMP
        trapped = info->si_syscall;
#if defined __x86_64__
        ((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = 1234;
#endif
    } else {
        handled++;
    }
}

// SIGALRM comes while everything else is blocked by the mask of the call that waits for it, and by its own.
static void wait_in(const char *name, int (*wait)(const sigset_t *)) {
    sigset_t mask = all, alarm_only = none, before;
    sigdelset(&mask, SIGALRM);
    sigaddset(&alarm_only, SIGALRM);
    sigprocmask(SIG_BLOCK, &alarm_only, &before);
    when = name;
    raise(SIGALRM);
    wait(&mask);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

static int by_pselect(const sigset_t *mask) { return pselect(0, NULL, NULL, NULL, NULL, mask); }

static int by_ppoll(const sigset_t *mask) { return ppoll(NULL, 0, NULL, mask); }

static void own_filter(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        puts("no filter");
}

static int start(const char *argument) {
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        execl(self, self, argument, (char *)NULL);
        _exit(255);
    }
    waitpid(pid, &status, 0);
    return status;
}

int main(int argc, char **argv) {
    setbuf(stdout, NULL);
    self = argv[0];
    if (argc > 1 && !strcmp(argv[1], "exit 5"))
        return 5;
    if (argc > 1 && !strcmp(argv[1], "die"))
        return setrlimit(RLIMIT_CORE, &(struct rlimit){0}) || raise(SIGSYS);
    if (argc > 1) {
        printf("child: SIGSYS %s, %s", handler_of(SIGSYS), blocked(SIGSYS));
        printf(", USR1 %s, %s\n", handler_of(SIGUSR1), blocked(SIGUSR1));
        return 0;
    }
    sigfillset(&all);
    sigemptyset(&none);
    printf("SIGSYS: %s, %s\n", handler_of(SIGSYS), blocked(SIGSYS));

    sigprocmask(SIG_BLOCK, &all, NULL);
    map_and_start("all blocked: ");
    sigprocmask(SIG_SETMASK, &none, NULL);

    struct sigaction action = {.sa_handler = on_usr1};
    action.sa_mask = all;
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    action.sa_handler = on_alarm;
    sigaction(SIGALRM, &action, NULL);
    wait_in("in sigsuspend: ", sigsuspend);
    wait_in("in pselect: ", by_pselect);
    wait_in("in ppoll: ", by_ppoll);

    struct sigaction sys = {.sa_sigaction = on_sys, .sa_flags = SA_SIGINFO};
    sigaction(SIGSYS, &sys, NULL);
    raise(SIGSYS);
    printf("SIGSYS, raised: %s\n", handled == 1 ? "handled" : "lost");
    sigprocmask(SIG_BLOCK, &all, NULL);
    raise(SIGSYS);
    sigprocmask(SIG_SETMASK, &none, NULL);
    printf("SIGSYS, blocked, raised and unblocked: %s\n", handled == 2 ? "handled" : "lost");
    signal(SIGSYS, SIG_IGN);
    raise(SIGSYS);
    printf("SIGSYS, ignored and raised: %s\n", handled == 2 ? "nothing" : "handled");

    // What a program ignores and blocks, those that it starts do too.
    sigaction(SIGSYS, &sys, NULL);
    pid_t pid = fork();
    if (pid == 0) {
        own_filter();
        long answer = syscall(SYS_getppid);
        printf("own filter: the handler was %s for getppid, which said %ld\n",
               trapped == SYS_getppid ? "called" : "not called", answer);
        map_and_start("");
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    sigset_t usr1 = none;
    sigaddset(&usr1, SIGUSR1);
    signal(SIGUSR1, SIG_IGN);
    sigprocmask(SIG_BLOCK, &usr1, NULL);
    start("child");
    sigprocmask(SIG_SETMASK, &none, NULL);
    sigaction(SIGUSR1, &action, NULL);
    start("child");
    signal(SIGSYS, SIG_DFL);
    int status = start("die");
    printf("killed by SIGSYS: %s\n", WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS ? "yes" : "no");
    return 0;
}
