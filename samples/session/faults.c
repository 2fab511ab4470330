// What a program finds of itself when it has begun, and whether an execve(2) that fails leaves anything. For inject.c, which it
// tells when to begin (777, 0) and when to end (777, 1).
//
//     faults state            descriptors, children, signals
//     faults read PATH        reads its last byte once its standard input has ended
//     faults exec PROGRAM...  execute it in a vfork child; how that ends, and what is left of it if it cannot be
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char text[1 << 16];

static const char *read_text(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    text[len < 0 ? 0 : len] = 0;
    close(fd);
    return text;
}

static int descriptors(int print) {
    int count = 0;
    for (int fd = 0; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) >= 0) {
            count++;
            if (print)
                printf(" %d%s", fd, fcntl(fd, F_GETFD) ? "c" : "");
        }
    return count;
}

static int mappings(void) {
    int lines = 0;
    for (const char *at = read_text("/proc/self/maps"); (at = strchr(at, '\n')); at++)
        lines++;
    return lines;
}

static int state(void) {
    sigset_t mask, pending;
    printf("descriptors");
    descriptors(1);
    sigprocmask(SIG_BLOCK, NULL, &mask);
    sigpending(&pending);
    printf("\nsignals");
    for (int number = 1; number < 32; number++) {
        struct sigaction action;
        sigaction(number, NULL, &action);
        if (sigismember(&mask, number) || sigismember(&pending, number) || action.sa_handler != SIG_DFL)
            printf(" %d", number);
    }
    // One that xip-run had, and did not wait for.
    printf("\nchildren %d\n", waitpid(-1, NULL, WNOHANG | __WALL) < 0 ? 0 : 1);
    return 0;
}

static int read_last(const char *path) {
    char byte;
    puts("ready");
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        ;
    int fd = open(path, O_RDONLY);
    if (fd >= 0 && lseek(fd, -1, SEEK_END) >= 0 && read(fd, &byte, 1) == 1)
        puts("read");
    else
        perror(path);
    return 0;
}

static int exec(char **argv, char **envp) {
    static volatile int failed, left;
    int before = mappings(), status;
    int fds = descriptors(0);
    syscall(777, 0);
    pid_t pid = vfork();
    if (pid == 0) {
        execve(argv[0], argv, envp);
        failed = errno;
        syscall(777, 1);
        left = descriptors(0) - fds;
        _exit(99);
    }
    if (pid > 0)
        waitpid(pid, &status, 0);
    syscall(777, 1);
    if (pid < 0)
        printf("not forked\n");
    else if (failed)
        printf("failed, descriptors left %d\n", left);
    else
        printf("status %d %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0, WEXITSTATUS(status));
    printf("mappings left %d\n", mappings() - before);
    if (failed) {
        errno = failed;
        perror("execve");
    }
    return 0;
}

int main(int argc, char **argv, char **envp) {
    syscall(777, 1);
    // A script adds its own path.
    if (argc >= 2 && !strcmp(argv[1], "state"))
        return state();
    if (argc == 3 && !strcmp(argv[1], "read"))
        return read_last(argv[2]);
    if (argc > 2 && !strcmp(argv[1], "exec"))
        return exec(argv + 2, envp);
    return 2;
}
