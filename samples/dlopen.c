// A library loaded while the program runs, and symbols found in it and in the program.
//#Layout: dynamic -pie -fPIE -rdynamic
//#Stdout: 1.0 7
#include <dlfcn.h>
#include <stdio.h>

int seven(void) { return 7; }

int main(void) {
    void *library = dlopen("libm.so.6", RTLD_NOW);
    double (*cosine)(double) = library ? (double (*)(double))dlsym(library, "cos") : NULL;
    int (*found)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "seven");
    if (!cosine || !found)
        return 1;
    printf("%.1f %d\n", cosine(0), found());
    return 0;
}
