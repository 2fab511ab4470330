// The stack of an ordinary program is not executable.
//#Layouts: static dynamic
//#Exit: SIGSEGV
#include <string.h>

int main(void) {
    volatile unsigned char code[] = {0xc3};
    ((void (*)(void))code)();
    return 0;
}
