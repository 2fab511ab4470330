// SIGBUS: maps a file, waits for a line, and reads its last page. What it wants done at SIGBUS is the first argument: `default`,
// `ignore`, `catch` (exit status 7), `again` (set to the default by itself), `sent` (by kill(2), nothing is read).
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static void caught(int number) {
    (void)number;
    write(1, "caught\n", 7);
    _exit(7);
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    const char *way = argv[1];
    struct sigaction before;
    sigaction(SIGBUS, NULL, &before);
    if (before.sa_handler != SIG_DFL || before.sa_flags != 0 || sigismember(&before.sa_mask, SIGUSR1))
        return 3;
    if (!strcmp(way, "ignore"))
        signal(SIGBUS, SIG_IGN);
    if (!strcmp(way, "catch"))
        signal(SIGBUS, caught);
    if (!strcmp(way, "again"))
        signal(SIGBUS, SIG_DFL);
    int fd = open(argv[2], O_RDONLY);
    struct stat stat;
    if (fd < 0 || fstat(fd, &stat))
        return 4;
    const volatile char *bytes = mmap(NULL, stat.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED)
        return 5;
    char line[8];
    write(1, "ready\n", 6);
    read(0, line, sizeof line);
    if (!strcmp(way, "sent"))
        kill(getpid(), SIGBUS);
    return bytes[stat.st_size - 1] == 'x' ? 0 : 6;
}
