// The environment, values that are empty or have spaces included.
//#Layouts: static dynamic
//#Env: A=1 B=2 EMPTY= "SPACE=a b"
//#Stdout: A=1
//#Stdout: B=2
//#Stdout: EMPTY=
//#Stdout: SPACE=a b
#include <stdio.h>

extern char **environ;

int main(void) {
    for (char **variable = environ; *variable; variable++)
        puts(*variable);
    return 0;
}
