// bss starts in the middle of .data's last page, where the file has other bytes, and goes on for pages.
//#Layouts: bare bare-pie
//#Plan: copied=0 cow>=2 zero=5 cleared=1
//#Stdout: ok
#include "bare.h"

static char data[5000] __attribute__((aligned(4096))) = {7, [4999] = 8};
static char bss[20000];

void bare_main(long *block) {
    (void)block;
    volatile char *byte = bss, *first = data;
    int bad = first[0] != 7 || first[4999] != 8;
    first[0] = 1;
    for (int i = 0; i < (int)sizeof bss; i++) {
        bad |= byte[i];
        byte[i] = 1;
    }
    // The rest of the last page is zero as well.
    for (long i = sizeof bss; ((long)byte + i) % 4096; i++)
        bad |= byte[i];
    bare_finish(bad);
}
