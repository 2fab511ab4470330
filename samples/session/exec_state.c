// What execve passes on and what it resets: signals, credentials, attributes, limits; the auxiliary vector and the memory of
// the new program; many generations; without /proc.
#include "exec.h"
#include <sched.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/time.h>

static void signals(void) { execve(SHOW, ARGV, ENV("signals")); }
static void ids(void) { execve(SHOW, ARGV, ENV("ids")); }
static void process(void) { execve(SHOW, ARGV, ENV("process limits")); }
static void handler(int number) { (void)number; }

static void block(int first, ...) {
    sigset_t set;
    va_list more;
    sigemptyset(&set);
    va_start(more, first);
    for (int number = first; number; number = va_arg(more, int))
        sigaddset(&set, number);
    va_end(more);
    need(!sigprocmask(SIG_BLOCK, &set, NULL));
}

// The C library keeps 32 and 33 (and 34) to itself: here the system call blocks all.
static void block_all(void) {
    uint64_t all = ~0ull;
    need(!syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof all));
}

SCENARIO(signals_default) { signals(); }
SCENARIO(signals_blocked) {
    block(SIGTERM, SIGUSR2, SIGRTMAX, 0);
    signals();
}
SCENARIO(signals_blocked_script) {
    block(SIGTERM, SIGUSR2, SIGRTMAX, 0);
    execve("/scripts/plain", ARGV, ENV("signals"));
}
SCENARIO(signals_all_blocked) {
    block_all();
    signals();
}
//# signals-all-blocked-missing: ENOENT
SCENARIO(signals_all_blocked_missing) {
    block_all();
    execute("/missing");
}
SCENARIO(signals_ignored) {
    need(signal(SIGPIPE, SIG_IGN) != SIG_ERR && signal(SIGUSR1, SIG_IGN) != SIG_ERR && signal(SIGRTMAX, SIG_IGN) != SIG_ERR);
    signals();
}
SCENARIO(signals_all_ignored) {
    for (int number = 1; number < 65; number++)
        signal(number, SIG_IGN);
    signals();
}
// What is caught becomes the default again; what is SIGSYS's is the session's business, the rest is not.
SCENARIO(signals_caught) {
    for (int number = 1; number < 65; number++)
        signal(number, handler);
    signals();
}
SCENARIO(signal_sys_ignored) {
    need(signal(SIGSYS, SIG_IGN) != SIG_ERR && signal(SIGUSR1, SIG_IGN) != SIG_ERR);
    signals();
}
SCENARIO(signal_sys_blocked) {
    block(SIGSYS, SIGUSR1, 0);
    signals();
}
SCENARIO(signals_pending) {
    block(SIGTERM, SIGUSR1, SIGRTMAX - 1, 0);
    need(!raise(SIGTERM) && !kill(getpid(), SIGUSR1));
    need(!sigqueue(getpid(), SIGRTMAX - 1, (union sigval){.sival_int = 7}));
    signals();
}
SCENARIO(alternate_stack) {
    static char stack[65536];
    need(!sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL));
    signals();
}

// In a handler the handled signal is blocked, and stays so.
static const char *handler_path;
static char **handler_env;
static void executing_handler(int number) {
    (void)number;
    execve(handler_path, ARGV, handler_env);
}
static void in_handler(const char *path, int flags) {
    struct sigaction action = {.sa_handler = executing_handler, .sa_flags = flags};
    need(!sigaction(SIGUSR1, &action, NULL));
    handler_path = path;
    handler_env = ENV("signals");
    raise(SIGUSR1);
}
//# in-handler: argv=["arg0"
SCENARIO(in_handler_) { in_handler(SHOW, 0); }
SCENARIO(in_handler_missing) { in_handler("/missing", 0); }
SCENARIO(in_handler_with_all_blocked) {
    struct sigaction action = {.sa_handler = executing_handler};
    sigfillset(&action.sa_mask);
    need(!sigaction(SIGUSR1, &action, NULL));
    handler_path = SHOW;
    handler_env = ENV("signals");
    raise(SIGUSR1);
}
static void on_alternate_stack(size_t size) {
    // Nothing below it: who overruns it dies.
    char *stack = mmap(NULL, size + 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(stack != MAP_FAILED && !mprotect(stack + 4096, size, PROT_READ | PROT_WRITE));
    need(!sigaltstack(&(stack_t){.ss_sp = stack + 4096, .ss_size = size}, NULL));
    in_handler(SHOW, SA_ONSTACK);
}
SCENARIO(on_alternate_stack_64k) { on_alternate_stack(65536); }
SCENARIO(on_alternate_stack_16k) { on_alternate_stack(16384); }
SCENARIO(on_alternate_stack_missing) {
    static char stack[65536];
    need(!sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL));
    in_handler("/missing", SA_ONSTACK);
}
// A failing execve leaves the mask and the handlers of the caller alone.
//# mask-over-failure: ENOENT same
SCENARIO(mask_over_failure) {
    block(SIGTERM, SIGUSR2, 0);
    need(signal(SIGUSR1, handler) != SIG_ERR && signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    struct sigaction before[65] = {0}, after;
    sigset_t old, new;
    sigprocmask(SIG_SETMASK, NULL, &old);
    for (int number = 1; number < 65; number++)
        sigaction(number, NULL, &before[number]);
    execute("/missing");
    say("%s ", errno_name(errno));
    sigprocmask(SIG_SETMASK, NULL, &new);
    int same = 1;
    for (int number = 1; number < 65; number++) {
        same &= sigismember(&old, number) == sigismember(&new, number);
        same &= sigaction(number, NULL, &after) || after.sa_handler == before[number].sa_handler;
    }
    say(same ? "same" : "CHANGED");
    done();
}

SCENARIO(ids_own) { ids(); }
AS_NOBODY(ids_own)
SCENARIO(ids_groups) {
    as_root_only();
    gid_t groups[] = {5, 100, 3};
    need(!setgroups(3, groups) && !setresgid(7, 8, 8) && !setresuid(NOBODY, NOBODY, NOBODY));
    ids();
}
// The effective user is not the real one: AT_SECURE, and libc drops what may not be trusted.
SCENARIO(secure) {
    as_root_only();
    need(!setresuid(0, NOBODY, 0));
    execve(SHOW, ARGV, ARGS("SHOW=ids auxv", "LD_LIBRARY_PATH=/tmp", "MALLOC_TRACE=/tmp/x", "A=1"));
}
SCENARIO(secure_the_other_way) {
    as_root_only();
    need(!setresuid(NOBODY, 0, 0));
    ids();
}
SCENARIO(secure_group) {
    as_root_only();
    need(!setresgid(NOBODY, 0, 0));
    ids();
}
SCENARIO(secure_script) {
    as_root_only();
    need(!setresuid(0, NOBODY, 0));
    execve("/scripts/plain", ARGV, ENV("ids script"));
}
SCENARIO(keep_capabilities) {
    as_root_only();
    need(!prctl(PR_SET_KEEPCAPS, 1) && !setresuid(NOBODY, NOBODY, NOBODY));
    ids();
}
SCENARIO(ambient_capabilities) {
    as_root_only();
    struct {
        uint32_t version, pid;
    } head = {0x20080522, 0};
    // CAP_NET_RAW
    uint32_t data[6] = {1 << 13, 1 << 13, 1 << 13, 0, 0, 0};
    need(!prctl(PR_SET_KEEPCAPS, 1) && !setresuid(NOBODY, NOBODY, NOBODY) && !syscall(SYS_capset, &head, data));
    need(!prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 13, 0, 0));
    ids();
}
SCENARIO(no_root_bits) {
    as_root_only();
    need(!prctl(PR_SET_SECUREBITS, 1)); // SECBIT_NOROOT
    ids();
}
SCENARIO(no_new_privs) {
    need(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    execve(SHOW, ARGV, ARGS("SHOW=ids", "NNP=1"));
}
// Bits of set-user-ID and set-group-ID mean nothing: both trees are mounted nosuid, as every view is.
SCENARIO(set_user_id) { execve("/files/mode-4755", ARGV, ENV("ids")); }
AS_NOBODY(set_user_id)
SCENARIO(set_group_id) { execve("/files/mode-2755", ARGV, ENV("ids")); }
AS_NOBODY(set_group_id)
// Not to be read, only to be executed: nobody may look into the process either.
SCENARIO(unreadable) { execve("/files/mode-0711", ARGV, ENV("ids")); }
AS_NOBODY(unreadable)

// Too many processes of the new user: setuid works, the next execve does not, whatever it would execute.
static void too_many_processes(const char *path) {
    as_root_only();
    int line[2];
    char byte;
    need(!pipe2(line, O_CLOEXEC));
    pid_t other = fork();
    if (!other) {
        become_nobody();
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        need(write(line[1], "x", 1) == 1);
        for (;;)
            pause();
    }
    need(read(line[0], &byte, 1) == 1);
    pid_t child = fork();
    if (!child) {
        need(!setrlimit(RLIMIT_NPROC, &(struct rlimit){0, 0}));
        become_nobody();
        execute(path);
        say("%s", errno_name(errno));
        _exit(0);
    }
    finish(child);
    need(!kill(other, SIGKILL) && waitpid(other, NULL, 0) == other);
    done();
}
SCENARIO(too_many_processes_) { too_many_processes(SHOW); }
SCENARIO(too_many_processes_missing) { too_many_processes("/missing"); }

SCENARIO(attributes_default) { process(); }
AS_NOBODY(attributes_default)
SCENARIO(attributes) {
    need(!chdir("/tmp") && !setpriority(PRIO_PROCESS, 0, 7) && !prctl(PR_SET_PDEATHSIG, SIGUSR1));
    need(!prctl(PR_SET_CHILD_SUBREAPER, 1) && !prctl(PR_SET_TIMERSLACK, 12345) && !prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
    umask(027);
    alarm(10000);
    process();
}
SCENARIO(attributes_script) {
    need(!chdir("/tmp") && !setpriority(PRIO_PROCESS, 0, 7) && !prctl(PR_SET_PDEATHSIG, SIGUSR1));
    umask(0777);
    alarm(10000);
    execve("/scripts/plain", ARGV, ENV("process"));
}
// A change of credentials clears it, execve does not.
SCENARIO(parent_death_signal_of_nobody) {
    become_nobody();
    need(!prctl(PR_SET_PDEATHSIG, SIGUSR1));
    process();
}
SCENARIO(not_dumpable) {
    need(!prctl(PR_SET_DUMPABLE, 0));
    ids();
}
SCENARIO(new_session) {
    need(setsid() > 0);
    process();
}
SCENARIO(new_group) {
    need(!setpgid(0, 0));
    process();
}
SCENARIO(memory_locked) {
    need(!mlockall(MCL_FUTURE));
    process();
}
SCENARIO(idle_policy) {
    need(!syscall(SYS_sched_setscheduler, 0, SCHED_BATCH, &(struct sched_param){0}));
    process();
}
SCENARIO(core_filter) {
    int fd = open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC);
    need(fd >= 0 && write(fd, "0x7", 3) == 3);
    fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    need(fd >= 0 && write(fd, "123", 3) == 3);
    process();
}
SCENARIO(not_randomized) {
    need(personality(ADDR_NO_RANDOMIZE) >= 0);
    execve(SHOW, ARGV, ENV("process auxv memory"));
}
SCENARIO(limits) {
    need(!setrlimit(RLIMIT_FSIZE, &(struct rlimit){0, 0}) && !setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){0, 0}));
    need(!setrlimit(RLIMIT_NPROC, &(struct rlimit){1000, 2000}));
    need(!setrlimit(RLIMIT_STACK, &(struct rlimit){1 << 20, 2 << 20}));
    process();
}
// Room for little more than arguments and environment: what is executed needs none itself.
static void small_stack(rlim_t kib) {
    need(!setrlimit(RLIMIT_STACK, &(struct rlimit){kib << 10, kib << 10}));
    execve("/elf/right", ARGS("x"), ENV(""));
}
//# small-stack-12: ; exit 7
SCENARIO(small_stack_12) { small_stack(12); }
// The stub takes more than is left.
//# small-stack-filled: ; exit 7
SCENARIO(small_stack_filled) {
    static char long_one[3000];
    memset(long_one, 'e', sizeof long_one - 1);
    need(!setrlimit(RLIMIT_STACK, &(struct rlimit){12 << 10, 12 << 10}));
    execve("/elf/right", ARGS("x"), (char *[]){long_one, NULL});
}
//# small-stack-16: ; exit 7
SCENARIO(small_stack_16) { small_stack(16); }
//# small-stack-63: ; exit 7
SCENARIO(small_stack_63) { small_stack(63); }
//# small-stack-64: ; exit 7
SCENARIO(small_stack_64) { small_stack(64); }
SCENARIO(limited_address_space) {
    need(!setrlimit(RLIMIT_AS, &(struct rlimit){64 << 20, 64 << 20}));
    need(!setrlimit(RLIMIT_DATA, &(struct rlimit){8 << 20, 8 << 20}));
    process();
}
SCENARIO(timers) {
    need(!setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {10000, 0}}, NULL));
    process();
}
// timer_create(2)'s are deleted: /proc/self/timers.
SCENARIO(posix_timer) {
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGTERM};
    need(!timer_create(CLOCK_MONOTONIC, &event, &timer));
    need(!timer_settime(timer, 0, &(struct itimerspec){.it_value = {10000, 0}}, NULL));
    process();
}

#define AUXV(name, path)                                                                                                \
    SCENARIO(auxv_##name) { execve(path, ARGV, ENV("auxv memory")); }                                                   \
    AS_NOBODY(auxv_##name)
AUXV(own, SHOW)
AUXV(static, "/shows/static")
AUXV(static_pie, "/shows/static-pie")
AUXV(dynamic, "/shows/dynamic")
AUXV(dynamic_no_pie, "/shows/dynamic-no-pie")
AUXV(musl, "/shows/musl")
AUXV(script, "/scripts/plain")
// ld.so is a program as well.
SCENARIO(auxv_loader) { execve("/lib64/ld-linux-x86-64.so.2", ARGS("ld.so", "/shows/dynamic", "x"), ENV("")); }

//# generations: descriptors grew by 0, VmSize did not grow
SCENARIO(generations) { execve(SHOW, ARGS(SHOW), ENV("generation 50")); }
SCENARIO(generations_of_scripts) { execve("/scripts/generations", ARGS("x"), ARGS("PATH=/bin", "LEFT=50")); }
AS_NOBODY(generations)

// A root directory without anything but two programs, no /proc above all.
static void into_jail(void) {
    as_root_only();
    mkdir("/tmp/jail", 0755);
    copy("/shows/static", "/tmp/jail/show", 0755);
    write_file("/tmp/jail/script", "#!/show x\n", 0755);
    need(!chdir("/tmp/jail") && !chroot("."));
}
//# jail: argv=["arg0"
SCENARIO(jail) {
    into_jail();
    execve("/show", ARGV, ENV("fds auxv"));
}
SCENARIO(jail_as_nobody) {
    into_jail();
    become_nobody();
    execve("/show", ARGV, ENV("fds"));
}
SCENARIO(jail_script) {
    into_jail();
    execve("/script", ARGV, ENV("script"));
}
//# jail-missing: ENOENT
SCENARIO(jail_missing) {
    into_jail();
    execute("/bin/show");
}
SCENARIO(jail_fd_of_outside) {
    int fd = open_at("/shows/static", O_RDONLY, 10);
    into_jail();
    syscall(SYS_execveat, fd, "", ARGV, ENV(""), AT_EMPTY_PATH);
}
// A dynamic program of outside finds no interpreter here.
//# jail-fd-of-dynamic: ENOENT
SCENARIO(jail_fd_of_dynamic) {
    int fd = open_at("/shows/dynamic", O_RDONLY, 10);
    into_jail();
    syscall(SYS_execveat, fd, "", ARGV, ENV(""), AT_EMPTY_PATH);
}
//# new-mount-namespace: argv=["arg0"
SCENARIO(new_mount_namespace) {
    as_root_only();
    need(!unshare(CLONE_NEWNS));
    execute(SHOW);
}
SCENARIO(new_user_namespace) {
    need(!unshare(CLONE_NEWUSER) || errno == EPERM || errno == EUSERS || errno == ENOSPC);
    execve(SHOW, ARGV, ENV(""));
}

int main(int argc, char **argv) {
    (void)argc;
    return run_scenarios(argv + 1);
}
