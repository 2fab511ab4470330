// A program may make its own text writable: the page is its own from then on, the image stays as it is.
//#Layouts: static static-pie dynamic
//#Stdout: 1 2
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>

__attribute__((noinline, noclone, aligned(4096))) static int number(void) {
    // mov eax, 1; ret; the number is one byte after `mov`.
    int value;
    __asm__ volatile("movl $1, %0" : "=a"(value));
    return value;
}

int main(void) {
    int before = number();
    unsigned char *code = (unsigned char *)(uintptr_t)number;
    if (mprotect((void *)((uintptr_t)code & -4096), 4096, PROT_READ | PROT_WRITE | PROT_EXEC))
        return 1;
    while (*code != 0xb8)
        code++;
    code[1] = 2;
    printf("%d %d\n", before, number());
    return 0;
}
