// Layouts that no C library stands: text and data in one page, unaligned segments, addresses at either end.
//#Layouts: bare bare-pie
//#Layout: omagic -nostdlib -static -no-pie -fPIE -ffreestanding -fno-stack-protector -Wl,--omagic
//#Layout: nmagic -nostdlib -static -no-pie -fPIE -ffreestanding -fno-stack-protector -Wl,--nmagic
//#Layout: low -nostdlib -static -no-pie -fPIE -ffreestanding -fno-stack-protector -Wl,-Ttext-segment=0x10000
//#Layout: high -nostdlib -static -no-pie -fPIE -ffreestanding -fno-stack-protector -Wl,-Ttext-segment=0x7e0000000000
//#Layout: one-segment -nostdlib -static -no-pie -fPIE -ffreestanding -fno-stack-protector -Wl,-z,noseparate-code
//#Layout: huge-pages-pie -nostdlib -static-pie -fPIE -ffreestanding -fno-stack-protector -Wl,-z,max-page-size=0x200000
//#Stdout: ok
#include "bare.h"

static const char constants[3000] = {[2999] = 1};
static char data[3000] = {2, [2999] = 3}, bss[9000];

void bare_main(long *block) {
    (void)block;
    volatile const char *constant = constants;
    volatile char *byte = data, *zero = bss;
    int bad = constant[2999] != 1 || byte[0] != 2 || byte[2999] != 3;
    for (int i = 0; i < (int)sizeof bss; i++) {
        bad |= zero[i];
        zero[i] = 1;
    }
    byte[2999] = 4;
    bare_finish(bad || byte[2999] != 4);
}
