// Arguments and exit status.
//#Layouts: static static-pie dynamic
//#Args: a "b c" "" --help
//#Exit: 42
//#Stdout: 1 a
//#Stdout: 2 b c
//#Stdout: 3
//#Stdout: 4 --help
//#Plan: copied=0
#include <stdio.h>

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        printf(*argv[i] ? "%d %s\n" : "%d\n", i, argv[i]);
    fprintf(stderr, "%d on standard error\n", argc);
    return argv[argc] == NULL ? 42 : 1;
}
