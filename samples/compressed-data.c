// Text from the image; .data, which is compressed in it, copied.
//#Layouts: static static-pie dynamic
//#Build: --compress-data
//#Plan: copied>=1 direct>=1 reason=compressed
//#Stdout: ok
#include <stdio.h>
#include <string.h>

static const char constant[5000] = "constant";
static char data[5000] = "data", bss[10000];

int main(void) {
    volatile char *zero = bss;
    int bad = strcmp(constant, "constant") || constant[4999] || strcmp(data, "data") || data[4999];
    for (int i = 0; i < 10000; i++)
        bad |= zero[i];
    memset(data, 1, sizeof data);
    memset(bss, 1, sizeof bss);
    puts(bad ? "bad" : "ok");
    return 0;
}
