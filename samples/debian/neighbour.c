// Memory right below a session's handler (x86_64: at 0x7f8000000000), which the kernel may give to any program: the
// large reservations of Go and of Java are often there. What is in it stays, whatever is done to SIGSYS.
//#Layouts: dynamic static musl
//#Stdout: a handler, another handler, ignored, default: all found again
//#Stdout: nothing was written to the memory of others
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGES = 64, PAGE = 4096, PATTERN = 0x5a };
#define HANDLER ((char *)0x7f8000000000)

static void one(int number) { (void)number; }
static void two(int number) { (void)number; }

int main(void) {
    static char *pages[PAGES];
    static char same[PAGE];
    memset(same, PATTERN, PAGE);
    for (int page = 0; page < PAGES; page++) {
        // Where it is asked for, if that is free.
        char *at = HANDLER - (page + 1) * PAGE;
        pages[page] = mmap(at, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pages[page] == MAP_FAILED)
            return 1;
        memset(pages[page], PATTERN, PAGE);
    }
    int found = 0;
    void (*const handlers[])(int) = {one, two, SIG_IGN, SIG_DFL};
    for (int number = 0; number < 4; number++) {
        struct sigaction action = {.sa_handler = handlers[number]}, old;
        sigaction(SIGSYS, &action, NULL);
        sigaction(SIGSYS, NULL, &old);
        found += old.sa_handler == handlers[number];
    }
    printf("a handler, another handler, ignored, default: %s\n", found == 4 ? "all found again" : "not found again");
    int changed = 0;
    for (int page = 0; page < PAGES; page++)
        changed += memcmp(pages[page], same, PAGE) != 0;
    printf("%s\n", changed ? "memory was written to" : "nothing was written to the memory of others");
    return 0;
}
