// A library for small-stack.c to load.
//#Layouts: shared musl-shared
static int number = 41;

int answer(void);
int answer(void) { return number + 1; }
