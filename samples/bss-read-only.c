// A read-only segment with bss: whole pages of it are zero, and what the file has in its last page stays to be seen.
//#Layouts: bare
//#Cflags: -Wl,-T,bss-read-only.ld
//#Stdout: ok
#include "bare.h"

static const char constants[6000] __attribute__((section(".constants"))) = {7, [5999] = 8};
static char bss[20000] __attribute__((section(".robss,\"a\",@nobits#")));

void bare_main(long *block) {
    (void)block;
    volatile const char *byte = bss, *first = constants;
    int bad = first[0] != 7 || first[5999] != 8;
    for (long i = 4096; i < (long)sizeof bss; i++)
        bad |= byte[i];
    bare_finish(bad);
}
