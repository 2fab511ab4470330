// The last page of the file holds another file's bytes: it is copied, and they are not to be seen.
//#Layouts: bare bare-pie
//#Cflags: -Wl,-T,last.ld -Wl,--build-id=none -s
//#Elf: no-sections
//#Image: bytes-after-the-file
//#Plan: copied=1 reason=shared-last-page
//#Stdout: ok
#include "bare.h"

// Read-only, so that nobody clears the page after the last byte.
static const char constants[] __attribute__((section(".last"), aligned(4096))) = "last";

void bare_main(long *block) {
    (void)block;
    volatile const char *byte = constants;
    int bad = byte[0] != 'l' || byte[3] != 't';
    for (int i = 4; i < 4096; i++)
        bad |= byte[i];
    bare_finish(bad);
}
