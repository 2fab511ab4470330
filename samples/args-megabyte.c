// A megabyte of arguments (@N is an argument of N bytes): the stub works below them.
//#Layouts: static dynamic
//#Args: @131000 @131000 @131000 @131000 @131000 @131000 @131000 @131000 @1
//#Stdout: 1048001
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    size_t total = 0;
    for (int i = 1; i < argc; i++)
        total += strlen(argv[i]);
    printf("%zu\n", total);
    return 0;
}
