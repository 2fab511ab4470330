// posix_spawn(3) in all its forms, and its relatives. Both C libraries start the child in the parent's memory and reset its
// signal handlers there.
//#Layouts: dynamic static musl musl-static
//#Stdout: ./child: one two, blocked none, ignored none, stdin closed, in /
//#Stdout: ./child: one two, blocked TERM, ignored none, stdin closed, in /
//#Stdout: ./child: one two, blocked none, ignored USR1, stdin open, in the parent's
//#Stdout: spawnp: 0, then 0
//#Stdout: no such file: ENOENT, no permission: EACCES, no program: ENOEXEC, a directory: EACCES
//#Stdout: vfork: 42, and 9 changed by the child
//#Stdout: system: 3, with all signals blocked
//#Stdout: popen: from the shell
//#Stdout: 200 at once: 200
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static char *self;

static const char *name(int error) {
    switch (error) {
    case ENOENT: return "ENOENT";
    case EACCES: return "EACCES";
    case ENOEXEC: return "ENOEXEC";
    default: return strerror(error);
    }
}

static int child(char **argv) {
    sigset_t blocked;
    struct sigaction usr1, int_;
    char here[100] = "";
    sigprocmask(SIG_SETMASK, NULL, &blocked);
    sigaction(SIGUSR1, NULL, &usr1);
    sigaction(SIGINT, NULL, &int_);
    if (int_.sa_handler != SIG_DFL)
        puts("SIGINT was not reset");
    printf("%s: %s %s, blocked %s, ignored %s, stdin %s, in %s\n", argv[0], argv[1], argv[2],
           sigismember(&blocked, SIGTERM) ? "TERM" : "none", usr1.sa_handler == SIG_IGN ? "USR1" : "none",
           fcntl(0, F_GETFD) < 0 ? "closed" : "open", strcmp(getcwd(here, sizeof here), "/") ? "the parent's" : "/");
    return 0;
}

static int status_of(pid_t pid) {
    int status = -1;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -status;
}

static int spawn(const char *path) {
    pid_t pid = 0;
    char *arguments[] = {"nothing", NULL};
    int error = posix_spawn(&pid, path, NULL, NULL, arguments, environ);
    if (error == 0)
        status_of(pid);
    return error;
}

static void on_signal(int number) { (void)number; }

int main(int argc, char **argv) {
    setbuf(stdout, NULL);
    if (argc == 3)
        return child(argv);
    if (argc == 2)
        return atoi(argv[1]);
    self = argv[0];
    sigset_t terminate, all, before;
    sigemptyset(&terminate);
    sigaddset(&terminate, SIGTERM);
    sigfillset(&all);
    signal(SIGINT, on_signal);

    // With a new mask, handlers reset, descriptors changed, the directory, the process group.
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 7, "/proc/self/status", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, 7, 0);
    posix_spawn_file_actions_addclose(&actions, 0);
    posix_spawn_file_actions_addchdir_np(&actions, "/");
    posix_spawnattr_init(&attributes);
    char *arguments[] = {"./child", "one", "two", NULL};
    pid_t pid;
    signal(SIGUSR1, SIG_IGN);
    for (int blocked = 0; blocked < 2; blocked++) {
        sigset_t usr1, none;
        sigemptyset(&usr1);
        sigaddset(&usr1, SIGUSR1);
        sigemptyset(&none);
        posix_spawnattr_setsigdefault(&attributes, &usr1);
        posix_spawnattr_setsigmask(&attributes, blocked ? &terminate : &none);
        posix_spawnattr_setpgroup(&attributes, 0);
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
        if (posix_spawn(&pid, self, &actions, &attributes, arguments, environ) == 0)
            status_of(pid);
    }
    if (posix_spawn(&pid, self, NULL, NULL, arguments, environ) == 0)
        status_of(pid);

    // By PATH, where the first directory's cannot be executed and the second is a script that names its interpreter.
    char *words[] = {"spawned", "x", NULL};
    FILE *script = fopen("spawned", "w");
    fputs("#!/bin/sh\nexit $#\n", script);
    fclose(script);
    chmod("spawned", 0755);
    setenv("PATH", "/etc:.:/bin", 1);
    int error = posix_spawnp(&pid, "spawned", NULL, NULL, words, environ);
    printf("spawnp: %d, ", error);
    printf("then %d\n", error ? error : status_of(pid) - 1);
    unlink("spawned");

    FILE *empty = fopen("garbage", "w");
    fputs("\177ELF no program", empty);
    fclose(empty);
    chmod("garbage", 0755);
    printf("no such file: %s, ", name(spawn("/no/such/file")));
    printf("no permission: %s, ", name(spawn("/etc/passwd")));
    printf("no program: %s, ", name(spawn("./garbage")));
    printf("a directory: %s\n", name(spawn("/etc")));
    unlink("garbage");

    volatile int shared = 0;
    pid = vfork();
    if (pid == 0) {
        shared = 9;
        execl(self, self, "42", (char *)NULL);
        _exit(255);
    }
    int status = status_of(pid);
    printf("vfork: %d, and %d changed by the child\n", status, shared);

    sigprocmask(SIG_BLOCK, &all, &before);
    status = system("exit 3");
    sigprocmask(SIG_SETMASK, &before, NULL);
    printf("system: %d, with all signals blocked\n", WEXITSTATUS(status));
    char line[100] = "";
    FILE *pipe = popen("echo from the shell", "r");
    if (!fgets(line, sizeof line, pipe) || pclose(pipe))
        puts("popen failed");
    printf("popen: %s", line);

    pid_t pids[200];
    int right = 0;
    char *exit_7[] = {self, "7", NULL};
    for (int number = 0; number < 200; number++)
        if (posix_spawn(&pids[number], self, NULL, NULL, exit_7, environ))
            pids[number] = 0;
    for (int number = 0; number < 200; number++)
        right += pids[number] && status_of(pids[number]) == 7;
    printf("200 at once: %d\n", right);
    return 0;
}
