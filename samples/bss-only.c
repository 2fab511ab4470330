// No .data: the writable segment has no bytes in the file (p_filesz 0).
//#Layouts: bare bare-pie
//#Plan: copied=0 zero=3
//#Stdout: ok
#include "bare.h"

static char bss[3 * 4096] __attribute__((aligned(4096)));

void bare_main(long *block) {
    (void)block;
    volatile char *byte = bss;
    int bad = 0;
    for (int i = 0; i < (int)sizeof bss; i++) {
        bad |= byte[i];
        byte[i] = 1;
    }
    bare_finish(bad);
}
