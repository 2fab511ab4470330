// The file's size is a multiple of the page size, and its last page is .data's.
//#Layouts: bare
//#Cflags: -Wl,-T,page-multiple.ld
//#Elf: no-sections
//#Plan: copied=0 cow=2
//#Stdout: ok
#include "bare.h"

static int data[2048] __attribute__((aligned(4096))) = {7, [2047] = 8};

void bare_main(long *block) {
    (void)block;
    volatile int *word = data;
    int bad = word[0] != 7 || word[2047] != 8;
    word[2047] = 1;
    bare_finish(bad || word[2047] != 1);
}
