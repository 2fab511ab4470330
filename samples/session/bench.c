// What a session costs, seen from inside: does one thing COUNT times and prints how many nanoseconds each took: the median
// of some batches, so that one that the machine had no time for does not count. tests/bench/session.rs runs it natively,
// in a session and under proot.
//
//     bench ROW COUNT [ARG]...
//
//     getppid sigprocmask sigaction     the system call
//     stat open read readdir mmap PATH  of a file; open closes, read is of 4 KiB, readdir reads all of it, mmap unmaps (at
//                                       most 64 KiB)
//     stat-as-user PATH                 as user 65534
//     trap                              a system call that a filter of its own traps, and a handler that does nothing
//     passed                            getppid, which the same filter lets pass
//     spawn PROGRAM [ARG]...            vfork(2), execve(2) and waitpid(2)
//     posix-spawn PROGRAM [ARG]...      posix_spawn(3) and waitpid(2)
//     instances PROGRAM [ARG]...        starts COUNT of them, each of which writes a byte when it is ready; prints their
//                                       process numbers; ends them when it has read a newline
//     sleep                             writes that byte and sleeps
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAP_MAX = 64 * 1024, BATCHES = 5, NO_SYSTEM_CALL = 1000 };

extern char **environ;

// What a row is done with: the words after COUNT, and what is prepared before the clock runs.
static char **words;
static int file = -1;
static size_t map_length;
static char buffer[4096];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void handler(int signal) {
    (void)signal;
}

static void do_getppid(void) {
    syscall(SYS_getppid);
}

static void do_sigprocmask(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    if (sigprocmask(SIG_SETMASK, &set, NULL))
        fail("sigprocmask");
}

static void do_sigaction(void) {
    struct sigaction action = {.sa_handler = handler};
    if (sigaction(SIGUSR1, &action, NULL))
        fail("sigaction");
}

static void do_stat(void) {
    struct stat attributes;
    if (stat(words[0], &attributes) && errno != ENOENT)
        fail(words[0]);
}

static void prepare_user(void) {
    if (setgid(65534) || setuid(65534))
        fail("setuid");
}

static void do_open(void) {
    int fd = open(words[0], O_RDONLY | O_CLOEXEC);
    if (fd < 0 || close(fd))
        fail(words[0]);
}

static void prepare_file(void) {
    struct stat attributes;
    file = open(words[0], O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &attributes))
        fail(words[0]);
    map_length = attributes.st_size < MAP_MAX ? (size_t)attributes.st_size : MAP_MAX;
}

static void do_read(void) {
    if (pread(file, buffer, sizeof buffer, 0) != sizeof buffer)
        fail("pread of 4096 bytes");
}

static void do_readdir(void) {
    DIR *dir = opendir(words[0]);
    if (!dir)
        fail(words[0]);
    while (readdir(dir))
        ;
    closedir(dir);
}

static void do_mmap(void) {
    void *at = mmap(NULL, map_length, PROT_READ, MAP_PRIVATE, file, 0);
    if (at == MAP_FAILED || munmap(at, map_length))
        fail("mmap");
}

static void do_trap(void) {
    syscall(NO_SYSTEM_CALL);
}

static void prepare_trap(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NO_SYSTEM_CALL, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    struct sigaction action = {.sa_handler = handler};
    if (sigaction(SIGSYS, &action, NULL) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        fail("a filter");
}

static pid_t start(posix_spawn_file_actions_t *actions) {
    pid_t pid;
    errno = posix_spawn(&pid, words[0], actions, NULL, words, environ);
    if (errno)
        fail(words[0]);
    return pid;
}

static void wait_for(pid_t pid) {
    int status;
    if (waitpid(pid, &status, 0) != pid || status) {
        fprintf(stderr, "%s: wait status %#x\n", words[0], status);
        exit(1);
    }
}

static void do_posix_spawn(void) {
    wait_for(start(NULL));
}

static void do_spawn(void) {
    pid_t pid = vfork();
    if (pid == 0) {
        execve(words[0], words, environ);
        _exit(127);
    }
    wait_for(pid);
}

static void instances(long count) {
    int ready[2];
    posix_spawn_file_actions_t actions;
    pid_t *pids = calloc(count, sizeof *pids);
    if (!pids || pipe2(ready, O_CLOEXEC) || posix_spawn_file_actions_init(&actions) ||
        posix_spawn_file_actions_adddup2(&actions, ready[1], STDOUT_FILENO))
        fail("instances");
    for (long i = 0; i < count; i++)
        pids[i] = start(&actions);
    close(ready[1]);
    for (long i = 0; i < count; i++)
        if (read(ready[0], buffer, 1) != 1)
            fail("an instance that is not ready");
    for (long i = 0; i < count; i++)
        printf("%d ", pids[i]);
    puts("");
    fflush(stdout);
    // A byte, not more: what follows is for the shell that shares the standard input.
    if (read(STDIN_FILENO, buffer, 1) < 0)
        fail("read");
    for (long i = 0; i < count; i++)
        kill(pids[i], SIGKILL);
    for (long i = 0; i < count; i++)
        waitpid(pids[i], NULL, 0);
}

static const struct row {
    const char *name;
    void (*once)(void);
    void (*prepare)(void);
} rows[] = {
    {"getppid", do_getppid, NULL},
    {"sigprocmask", do_sigprocmask, NULL},
    {"sigaction", do_sigaction, NULL},
    {"stat", do_stat, NULL},
    {"stat-as-user", do_stat, prepare_user},
    {"open", do_open, NULL},
    {"read", do_read, prepare_file},
    {"readdir", do_readdir, NULL},
    {"mmap", do_mmap, prepare_file},
    {"trap", do_trap, prepare_trap},
    {"passed", do_getppid, prepare_trap},
    {"spawn", do_spawn, NULL},
    {"posix-spawn", do_posix_spawn, NULL},
};

static double now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e9 + now.tv_nsec;
}

static int compare(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "sleep")) {
        if (write(STDOUT_FILENO, "!", 1) != 1)
            return 1;
        for (;;)
            pause();
    }
    long count = argc > 2 ? atol(argv[2]) : 0;
    if (count < 1) {
        fprintf(stderr, "bench ROW COUNT [ARG]...\n");
        return 2;
    }
    words = argv + 3;
    if (!strcmp(argv[1], "instances")) {
        instances(count);
        return 0;
    }
    for (const struct row *row = rows; row < rows + sizeof rows / sizeof *rows; row++) {
        if (strcmp(argv[1], row->name))
            continue;
        if (row->prepare)
            row->prepare();
        // The first is not measured: it fills what the kernel keeps.
        row->once();
        double each_ns[BATCHES];
        int batches = count < BATCHES ? count : BATCHES;
        for (int batch = 0; batch < batches; batch++) {
            long times = count * (batch + 1) / batches - count * batch / batches;
            double begin = now_ns();
            for (long i = 0; i < times; i++)
                row->once();
            each_ns[batch] = (now_ns() - begin) / times;
        }
        qsort(each_ns, batches, sizeof *each_ns, compare);
        printf("%.2f\n", each_ns[batches / 2]);
        return 0;
    }
    fprintf(stderr, "there is no row %s\n", argv[1]);
    return 2;
}
