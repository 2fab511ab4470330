// No environment at all.
//#Layouts: static static-pie dynamic
//#Env: none
//#Stdout: 0 variables
#include <stdio.h>

int main(int argc, char **argv, char **envp) {
    int count = 0;
    while (envp[count])
        count++;
    printf("%d variables\n", count);
    return envp != argv + argc + 1;
}
