// SIGPIPE kills, as it does by default: a Rust program would have left it ignored.
//#Layouts: static dynamic
//#Exit: SIGPIPE
#include <unistd.h>

int main(void) {
    int ends[2];
    if (pipe(ends))
        return 1;
    close(ends[0]);
    return (int)write(ends[1], "x", 1) + 10;
}
