// Endless recursion ends in SIGSEGV, at the guard gap.
//#Layouts: static dynamic
//#Exit: SIGSEGV
static int __attribute__((noinline)) dive(volatile int *above) {
    volatile int frame[1000];
    frame[999] = *above + 1;
    return dive(frame + 999) + frame[0];
}

int main(void) {
    volatile int zero = 0;
    return dive(&zero);
}
