// An executable stack (PT_GNU_STACK with PF_X), also where it grows later.
//#Layout: static -static -Wl,-z,execstack
//#Layout: dynamic -pie -fPIE -Wl,-z,execstack
//#Plan: stack=exec
//#Stdout: 7
#include <stdio.h>
#include <string.h>

static int __attribute__((noinline)) run_deep(int depth) {
    // mov eax, 7; ret
    static const unsigned char code[] = {0xb8, 7, 0, 0, 0, 0xc3};
    volatile unsigned char here[40000];
    memcpy((void *)here, code, sizeof code);
    if (depth > 0)
        return run_deep(depth - 1) + here[5] - 0xc3;
    return ((int (*)(void))here)();
}

int main(void) {
    printf("%d\n", run_deep(20));
    return 0;
}
