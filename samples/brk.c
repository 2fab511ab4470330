// The break grows, shrinks and is fresh; malloc(3) uses it.
//#Layouts: static static-pie dynamic dynamic-no-pie
//#Stdout: ok
#define _DEFAULT_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(void) {
    char *start = sbrk(0);
    const char *bad = NULL;
    if (start == (char *)-1 || sbrk(1 << 20) != start)
        bad = "cannot grow";
    for (int i = 0; !bad && i < 1 << 20; i++)
        if (start[i])
            bad = "not zero";
    if (!bad) {
        memset(start, 1, 1 << 20);
        if (sbrk(-(1 << 20)) == (char *)-1 || sbrk(0) != start)
            bad = "cannot shrink";
    }
    char *block = malloc(50000);
    // A static C library has used some of it before.
    if (block < start - (1 << 20) || block > start + (1 << 20))
        bad = "malloc is elsewhere";
    if (!bad && sbrk(64 << 20) == (char *)-1)
        bad = "no room for 64 MiB";
    puts(bad ? bad : "ok");
    return 0;
}
