// A library with an address in its text, which the dynamic linker writes there: that page becomes the process's own, those
// before and behind it do not.
int value = 1;
__asm__(".text\n"
        ".balign 4096\n"
        ".fill 4096, 1, 0xc3\n"
        ".globl address\n"
        "address: .quad value\n"
        ".balign 4096, 0xc3\n"
        ".fill 4096, 1, 0xc3\n");
