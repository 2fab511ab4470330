// Constructors before main, with its arguments; destructors after it, in the reverse order.
//#Layouts: static static-pie dynamic
//#Args: argument
//#Exit: 3
//#Stdout: first argument
//#Stdout: second argument
//#Stdout: main
//#Stdout: atexit
//#Stdout: second's end
//#Stdout: first's end
#include <stdio.h>
#include <stdlib.h>

__attribute__((constructor(101))) static void first(int argc, char **argv) { printf("first %s\n", argv[argc - 1]); }
__attribute__((constructor(102))) static void second(int argc, char **argv) { printf("second %s\n", argv[argc - 1]); }
__attribute__((destructor(101))) static void first_end(void) { puts("first's end"); }
__attribute__((destructor(102))) static void second_end(void) { puts("second's end"); }
static void at_exit(void) { puts("atexit"); }

int main(void) {
    atexit(at_exit);
    puts("main");
    return 3;
}
