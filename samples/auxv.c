// auxv leads to the program's own headers, entry and path, and /proc/self/auxv says the same.
//#Layouts: static static-pie dynamic dynamic-no-pie
//#Stdout: ok
#include <elf.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

extern void _start(void);
extern ElfW(Dyn) _DYNAMIC[] __attribute__((weak));

int main(int argc, char **argv, char **envp) {
    (void)argc;
    const char *bad = NULL;
    if (getauxval(AT_ENTRY) != (uintptr_t)_start)
        bad = "AT_ENTRY";
    if (!getauxval(AT_EXECFN) || strcmp((char *)getauxval(AT_EXECFN), argv[0]))
        bad = "AT_EXECFN";
    if (getauxval(AT_PAGESZ) != (unsigned long)getpagesize())
        bad = "AT_PAGESZ";
    const ElfW(Phdr) *phdr = (void *)getauxval(AT_PHDR);
    int loads = 0, covered = 0;
    uintptr_t bias = 0;
    for (unsigned i = 0; i < getauxval(AT_PHNUM); i++)
        if (phdr[i].p_type == PT_DYNAMIC)
            bias = (uintptr_t)_DYNAMIC - phdr[i].p_vaddr;
    for (unsigned i = 0; i < getauxval(AT_PHNUM); i++) {
        if (phdr[i].p_type != PT_LOAD)
            continue;
        loads++;
        uintptr_t from = (uintptr_t)_start - bias;
        covered |= from >= phdr[i].p_vaddr && from < phdr[i].p_vaddr + phdr[i].p_memsz && phdr[i].p_flags & PF_X;
    }
    if (loads < 2 || !covered)
        bad = "AT_PHDR";
    // On the stack, behind envp's NULL.
    while (*envp++)
        ;
    char shown[4096];
    FILE *file = fopen("/proc/self/auxv", "r");
    size_t len = file ? fread(shown, 1, sizeof shown, file) : 0;
    if (len < 200 || memcmp(shown, envp, len))
        bad = "/proc/self/auxv";
    puts(bad ? bad : "ok");
    return 0;
}
