// .data and no bss: nothing is to be cleared.
//#Layouts: bare bare-pie
//#Plan: copied=0 cow>=3 zero=0
//#Stdout: ok
#include "bare.h"

static int data[3 * 1024] __attribute__((aligned(4096))) = {7, [3071] = 8};

void bare_main(long *block) {
    (void)block;
    volatile int *word = data;
    int bad = word[0] != 7 || word[3071] != 8;
    for (int i = 0; i < 3072; i++)
        word[i] = 1;
    bare_finish(bad);
}
