// Constants cannot be written to.
//#Layouts: static static-pie dynamic
//#Exit: SIGSEGV
static const int constant[2000] = {1, 2};

int main(void) {
    const int *hidden = &constant[1000];
    __asm__("" : "+r"(hidden));
    *(int *)hidden = 3;
    return 0;
}
