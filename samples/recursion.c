// Seven of eight MiB of stack: it grows as it should, whatever is mapped below.
//#Layouts: static static-pie dynamic
//#Stdout: 448
#include <stdio.h>

static int __attribute__((noinline)) dive(int depth) {
    volatile char frame[16000];
    for (unsigned i = 0; i < sizeof frame; i += 1000)
        frame[i] = 1;
    return depth ? dive(depth - 1) + frame[1000] : 0;
}

int main(void) {
    printf("%d\n", dive(448));
    return 0;
}
