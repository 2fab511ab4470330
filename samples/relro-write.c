// What is relocated and then constant cannot be written to: mprotect(2) works on mappings of the image.
//#Layouts: static-pie dynamic
//#Cflags: -Wl,-z,now
//#Exit: SIGSEGV
static const char *const relocated[] = {"a", "b"};

int main(void) {
    const char *const *hidden = relocated;
    __asm__("" : "+r"(hidden));
    *(const char **)&hidden[1] = hidden[0];
    return 0;
}
