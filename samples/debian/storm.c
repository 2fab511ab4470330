// Threads that start programs and map files while timers and the ends of children interrupt them all, with handlers that map
// files themselves. Nothing may be lost: every child's status, every byte mapped.
//#Layouts: dynamic static musl
//#Stdout: 4 threads, 100 children, 100 ended as they should
//#Stdout: files mapped: all as read
//#Stdout: alarms: many, SIGCHLDs: some
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 4, CHILDREN = 25, PAGE = 4096 };

static char *self;
static atomic_int ended, alarms, deaths, wrong;

// Maps the first page of this program's file, and holds it against what read(2) says. Async-signal-safe.
static void map_self(void) {
    char bytes[256];
    int fd = open(self, O_RDONLY | O_CLOEXEC);
    char *page = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
    if (fd < 0 || page == MAP_FAILED || read(fd, bytes, sizeof bytes) != sizeof bytes ||
        memcmp(page, bytes, sizeof bytes) || munmap(page, PAGE) || close(fd))
        wrong++;
}

static void on_alarm(int number) {
    int saved = errno;
    (void)number;
    alarms++;
    map_self();
    errno = saved;
}

static void on_death(int number) {
    (void)number;
    deaths++;
}

static void *start_children(void *argument) {
    int thread = (int)(long)argument;
    for (int child = 0; child < CHILDREN; child++) {
        char number[16];
        int expected = thread * CHILDREN + child, status = -1;
        snprintf(number, sizeof number, "%d", expected);
        pid_t pid = fork();
        if (pid == 0) {
            execl(self, self, number, (char *)NULL);
            _exit(255);
        }
        map_self();
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
        if (WIFEXITED(status) && WEXITSTATUS(status) == expected)
            ended++;
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc > 1)
        return atoi(argv[1]);
    self = argv[0];
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    sigfillset(&action.sa_mask);
    sigaction(SIGALRM, &action, NULL);
    // No SA_RESTART, and it may interrupt itself.
    sigaction(SIGCHLD, &(struct sigaction){.sa_handler = on_death, .sa_flags = SA_NODEFER}, NULL);
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 500}, {0, 500}}, NULL);
    pthread_t threads[THREADS];
    for (long thread = 0; thread < THREADS; thread++)
        pthread_create(&threads[thread], NULL, start_children, (void *)thread);
    for (int thread = 0; thread < THREADS; thread++)
        pthread_join(threads[thread], NULL);
    while (alarms < 100)
        pause();
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
    printf("%d threads, %d children, %d ended as they should\n", THREADS, THREADS * CHILDREN, ended);
    printf("files mapped: %s\n", wrong ? "some wrongly" : "all as read");
    printf("alarms: many, SIGCHLDs: %s\n", deaths ? "some" : "none");
    return 0;
}
