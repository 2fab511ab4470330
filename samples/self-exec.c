// /proc/self/exe can be executed, as busybox does for its applets: by the program itself, and by a vfork child.
//#Layouts: static static-pie dynamic
//#Stdout: first
//#Stdout: again: 2
//#Stdout: child: 2
//#Stdout: end
//#Exit: 5
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    setbuf(stdout, NULL);
    if (argc == 1) {
        puts("first");
        execl("/proc/self/exe", "again", "x", (char *)NULL);
        return 1;
    }
    printf("%s: %d\n", argv[0], argc);
    if (strcmp(argv[0], "again"))
        return 5;
    char *args[] = {"child", "x", NULL}, *no_environment[] = {NULL};
    pid_t child;
    int status = 1;
    if (posix_spawn(&child, "/proc/self/exe", NULL, NULL, args, no_environment))
        return 2;
    waitpid(child, &status, 0);
    puts("end");
    return WEXITSTATUS(status);
}
