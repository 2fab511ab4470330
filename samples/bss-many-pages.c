// Sixteen MiB of bss: one mapping, no RAM until it is touched.
//#Layouts: static static-pie dynamic
//#Plan: copied=0 zero>=4096
//#Stdout: ok
#include <stdio.h>

static char bss[16 << 20];

int main(void) {
    volatile char *byte = bss;
    int bad = 0;
    for (unsigned i = 0; i < sizeof bss; i += 4096) {
        bad |= byte[i] | byte[i + 4095];
        byte[i + 1] = 1;
    }
    puts(bad ? "bad" : "ok");
    return 0;
}
