// Touches so many pages of its text, its data and its bss, prints a line and waits for the end of its input:
// `pages TEXT DATA BSS`. The pages that it touches have nothing else in them, and those of text begin at a boundary of
// 64 KiB: the kernel maps what is around a page that is touched, so their number should be a multiple of 16.
#include "bare.h"

#define TEXT_PAGES 64
#define DATA_PAGES 32
#define BSS_PAGES 32
#define PAGE 4096

// Every byte is `ret`.
extern char text[];
__asm__(".pushsection .text.pages,\"ax\"\n.balign 65536\ntext: .fill 64 * 4096, 1, 0xc3\n.balign 65536\n.popsection\n");

static volatile char data[DATA_PAGES][PAGE] __attribute__((aligned(65536))) = {{1}};
static volatile char bss[BSS_PAGES][PAGE] __attribute__((aligned(65536)));

static int number(const char *digits) {
    int value = 0;
    while (*digits) value = value * 10 + *digits++ - '0';
    return value;
}

void bare_main(long *block) {
    if (block[0] != 4) bare_finish(1);
    int texts = number((char *)block[2]), datas = number((char *)block[3]), zeros = number((char *)block[4]);
    if (texts > TEXT_PAGES || datas > DATA_PAGES || zeros > BSS_PAGES) bare_finish(1);
    for (int i = 0; i < texts; i++) ((void (*)(void))(text + i * PAGE))();
    for (int i = 0; i < datas; i++) data[i][7] = 2;
    for (int i = 0; i < zeros; i++) bss[i][7] = 3;
    char byte;
    bare_call(1, 1, (long)"ready\n", 6);
    while (bare_call(0, 0, (long)&byte, 1) > 0) {}
    bare_call(231, 0, 0, 0);
}
