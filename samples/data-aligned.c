// Data on a boundary of 64 KiB, and of 2 MiB: the bias has to be a multiple of p_align.
//#Layouts: static static-pie dynamic
//#Stdout: 0 0 7 8
#include <stdint.h>
#include <stdio.h>

int on_64k __attribute__((aligned(0x10000))) = 7;
int on_2m __attribute__((aligned(0x200000))) = 8;

int main(void) {
    volatile uintptr_t first = (uintptr_t)&on_64k, second = (uintptr_t)&on_2m;
    printf("%d %d %d %d\n", (int)(first % 0x10000), (int)(second % 0x200000), on_64k, on_2m);
    return 0;
}
