// Threads on stacks of 8 KiB, as virtual machines have them: with a page below that nobody may touch, and no alternate
// signal stack. They map files, load a library, start programs, and the last one replaces the process.
//#Layouts: dynamic musl
//#Stdout: mapped: as read
//#Stdout: loaded: 42
//#Stdout: started: 5
//#Stdout: 8 threads did the same
//#Stdout: replaced by a thread
//#Exit: 6
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <ucontext.h>
#endif

enum { STACK = 8192, PAGE = 4096, THREADS = 8 };

static char *self;
static char library[300];
static int mapped, loaded, started, done;

static void work(void) {
    unsigned char bytes[64];
    int fd = open(self, O_RDONLY | O_CLOEXEC);
    unsigned char *page = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
    __atomic_store_n(&mapped,
                     page != MAP_FAILED && read(fd, bytes, sizeof bytes) == sizeof bytes &&
                         !memcmp(page, bytes, sizeof bytes) && !munmap(page, PAGE),
                     __ATOMIC_SEQ_CST);
    close(fd);

    void *handle = dlopen(library, RTLD_NOW);
    int (*answer)(void) = handle ? (int (*)(void))dlsym(handle, "answer") : NULL;
    __atomic_store_n(&loaded, answer ? answer() : -1, __ATOMIC_SEQ_CST);

    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        execl(self, self, "exit 5", (char *)NULL);
        _exit(255);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    __atomic_store_n(&started, WEXITSTATUS(status), __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&done, mapped == 1 && loaded == 42 && started == 5, __ATOMIC_SEQ_CST);
}

static void replace(void) { execl(self, self, "replaced by a thread", (char *)NULL); }

struct task {
    void (*does)(void);
};

#ifdef __GLIBC__
// glibc's own threads have 16 KiB at least: they change to a smaller stack.
static void *on_small_stack(void *argument) {
    struct task *task = argument;
    char *stack = mmap(NULL, PAGE + STACK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(stack + PAGE, STACK, PROT_READ | PROT_WRITE);
    ucontext_t here, there;
    getcontext(&there);
    there.uc_stack.ss_sp = stack + PAGE;
    there.uc_stack.ss_size = STACK;
    there.uc_link = &here;
    makecontext(&there, task->does, 0);
    swapcontext(&here, &there);
    munmap(stack, PAGE + STACK);
    return NULL;
}
#else
static void *on_small_stack(void *argument) {
    struct task *task = argument;
    task->does();
    return NULL;
}
#endif

static pthread_t start(struct task *task) {
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
#ifndef __GLIBC__
    pthread_attr_setstacksize(&attributes, STACK);
    pthread_attr_setguardsize(&attributes, PAGE);
#endif
    if (pthread_create(&thread, &attributes, on_small_stack, task))
        puts("no thread");
    return thread;
}

int main(int argc, char **argv) {
    setbuf(stdout, NULL);
    if (argc > 1 && !strcmp(argv[1], "exit 5"))
        return 5;
    if (argc > 1) {
        puts(argv[1]);
        return 6;
    }
    self = argv[0];
    // Beside the program, for the same C library.
    snprintf(library, sizeof library, "%.*s/plugin.%s", (int)(strrchr(self, '/') - self), self,
#ifdef __GLIBC__
             "shared"
#else
             "musl-shared"
#endif
    );
    struct task does_work = {work}, replaces = {replace};
    pthread_join(start(&does_work), NULL);
    printf("mapped: %s\nloaded: %d\nstarted: %d\n", mapped ? "as read" : "wrongly", loaded, started);
    pthread_t threads[THREADS];
    done = 0;
    for (int thread = 0; thread < THREADS; thread++)
        threads[thread] = start(&does_work);
    for (int thread = 0; thread < THREADS; thread++)
        pthread_join(threads[thread], NULL);
    printf("%d threads did the same\n", done);
    start(&replaces);
    for (;;)
        pause();
}
