// Sets up what execve(2) passes on or resets, then executes the command: `inherit WHAT… -- COMMAND ARGUMENT…`. Used by
// tests/differential.rs, which looks what a program started natively and one started in place find of it.
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

static void handler(int number) { (void)number; }

static int limit(int resource, rlim_t soft, rlim_t hard) {
    return setrlimit(resource, &(struct rlimit){soft, hard});
}

static int set_up(const char *what) {
    if (!strcmp(what, "signals")) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGUSR2);
        sigaddset(&set, 40);
        static char stack[65536];
        return signal(SIGPIPE, SIG_IGN) == SIG_ERR || signal(SIGUSR1, SIG_IGN) == SIG_ERR ||
               signal(50, SIG_IGN) == SIG_ERR || signal(SIGINT, handler) == SIG_ERR ||
               signal(SIGSYS, SIG_IGN) == SIG_ERR || sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = 65536}, NULL) ||
               sigprocmask(SIG_BLOCK, &set, NULL) || raise(SIGUSR2) || raise(40);
    }
    if (!strcmp(what, "timers")) {
        struct itimerval timer = {{7, 0}, {100000, 0}};
        return setitimer(ITIMER_REAL, &timer, NULL) || setitimer(ITIMER_PROF, &timer, NULL);
    }
    if (!strcmp(what, "descriptors")) {
        int null = open("/dev/null", O_RDWR | O_APPEND | O_NONBLOCK);
        return null < 0 || dup2(null, 100) < 0 || dup2(null, 77) < 0 || dup3(null, 50, O_CLOEXEC) < 0 ||
               (null != 3 && dup2(null, 3) < 0);
    }
    if (!strcmp(what, "stdin-closed"))
        return close(0);
    if (!strcmp(what, "stdin-and-stderr-closed"))
        return close(0) || close(2);
    if (!strcmp(what, "limits"))
        return limit(RLIMIT_NOFILE, 200, 300) || limit(RLIMIT_CORE, 0, 0) || limit(RLIMIT_DATA, 1 << 28, 1 << 29) ||
               setpriority(PRIO_PROCESS, 0, 5);
    if (!strcmp(what, "stack-unlimited"))
        return limit(RLIMIT_STACK, RLIM_INFINITY, RLIM_INFINITY);
    if (!strcmp(what, "stack-small"))
        return limit(RLIMIT_STACK, 200 << 10, 200 << 10);
    if (!strcmp(what, "attributes"))
        return prctl(PR_SET_PDEATHSIG, SIGHUP) || prctl(PR_SET_CHILD_SUBREAPER, 1) || prctl(PR_SET_TIMERSLACK, 12345) ||
               prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) || prctl(PR_SET_KEEPCAPS, 1) || prctl(PR_SET_DUMPABLE, 0) ||
               mlockall(MCL_FUTURE) || chdir("/") || setpgid(0, 0) || (umask(027), 0);
    if (!strcmp(what, "session"))
        return setsid() < 0;
    if (!strcmp(what, "no-new-privs"))
        return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (!strcmp(what, "fixed-addresses"))
        return personality(ADDR_NO_RANDOMIZE) < 0;
    if (!strcmp(what, "compat-layout"))
        return personality(ADDR_COMPAT_LAYOUT) < 0;
    if (!strcmp(what, "read-implies-exec"))
        return personality(READ_IMPLIES_EXEC) < 0;
    if (!strcmp(what, "nobody"))
        return setgroups(0, NULL) || setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534);
    fprintf(stderr, "inherit: unknown: %s\n", what);
    return 1;
}

int main(int argc, char **argv) {
    (void)argc;
    for (argv++; strcmp(*argv, "--"); argv++)
        if (set_up(*argv)) {
            perror(*argv);
            return 99;
        }
    execv(argv[1], argv + 1);
    perror(argv[1]);
    return 98;
}
