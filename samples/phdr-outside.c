// No segment covers the program headers: AT_PHDR leads nowhere, AT_PHNUM is right all the same.
//#Layouts: bare bare-pie
//#Elf: phdrs-at-end
//#Stdout: ok
#include "bare.h"

void bare_main(long *block) {
    long *at = block + 1 + *block + 1;
    while (*at)
        at++;
    long phdr = -1, phnum = 0, phent = 0;
    for (at++; *at; at += 2) {
        if (at[0] == 3)
            phdr = at[1];
        if (at[0] == 4)
            phent = at[1];
        if (at[0] == 5)
            phnum = at[1];
    }
    // Linux says the bias, 0 for a program at fixed addresses.
    bare_finish(phdr == -1 || phdr % 4096 || phnum < 2 || phent != 56);
}
