// A megabyte of constants: each is what it should be, wherever it comes from.
//#Layouts: static static-pie dynamic
//#Plan: copied=0 direct>=256
//#Stdout: ok
#include <stdio.h>

#define A(n) (n), (n) ^ 0x5a5a, (n) * 7u, ~(n)
#define B(n) A(n), A(n + 1), A(n + 2), A(n + 3), A(n + 4), A(n + 5), A(n + 6), A(n + 7)
#define C(n) B(n), B(n + 8), B(n + 16), B(n + 24), B(n + 32), B(n + 40), B(n + 48), B(n + 56)
#define D(n) C(n), C(n + 64), C(n + 128), C(n + 192), C(n + 256), C(n + 320), C(n + 384), C(n + 448)
#define E(n) D(n), D(n + 512), D(n + 1024), D(n + 1536), D(n + 2048), D(n + 2560), D(n + 3072), D(n + 3584)
#define F(n) E(n), E(n + 4096), E(n + 8192), E(n + 12288), E(n + 16384), E(n + 20480), E(n + 24576), E(n + 28672)
static const unsigned table[] = {F(0u), F(32768u)};

int main(void) {
    const volatile unsigned *entry = table;
    unsigned count = sizeof table / sizeof *table / 4, bad = count != 65536;
    for (unsigned n = 0; n < count; n++, entry += 4)
        bad |= entry[0] != n || entry[1] != (n ^ 0x5a5a) || entry[2] != n * 7 || entry[3] != ~n;
    puts(bad ? "bad" : "ok");
    return 0;
}
