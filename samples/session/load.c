// Loads the libraries that its arguments name, and waits for the end of its input.
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (!dlopen(argv[i], RTLD_NOW)) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
    char byte;
    while (read(0, &byte, 1) > 0)
        ;
    return 0;
}
