// One program with a bit of everything, as linkers can lay it out.
//#Layouts: static static-pie dynamic dynamic-no-pie
//#Layout: huge-pages -static -Wl,-z,max-page-size=0x200000
//#Layout: huge-pages-pie -pie -fPIE -Wl,-z,max-page-size=0x200000
//#Layout: pages-64k -static-pie -fPIE -Wl,-z,max-page-size=0x10000
//#Layout: norelro -static -Wl,-z,norelro
//#Layout: norelro-pie -pie -fPIE -Wl,-z,norelro
//#Layout: now -pie -fPIE -Wl,-z,now
//#Layout: noseparate-code -static -Wl,-z,noseparate-code
//#Layout: noseparate-code-pie -static-pie -fPIE -Wl,-z,noseparate-code
//#Layout: execstack -static -Wl,-z,execstack
//#Layout: stripped -static -s
//#Layout: debug -static-pie -fPIE -g
//#Layout: no-stack-header -static -Wl,-z,nognustack
//#Stdout: ok
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const relocated[] = {"zero", "one", "two"};
static const unsigned char constants[9000] = {1, 2, 3, [8999] = 4};
static char *variables[] = {"a", "b"};
static int data[1500] = {5, [1499] = 6};
static char bss[30000];
static char aligned_bss[70000] __attribute__((aligned(4096)));
static _Thread_local int tls = 8;
static int constructed;

__attribute__((constructor)) static void construct(void) { constructed = 9; }

static int sum(const void *start, size_t len) {
    const unsigned char *byte = start;
    int sum = 0;
    while (len--)
        sum += *byte++;
    return sum;
}

int main(void) {
    int bad = strcmp(relocated[2], "two") || strcmp(variables[1], "b") || tls != 8 || constructed != 9;
    bad |= sum(constants, sizeof constants) != 10 || sum(data, sizeof data) != 11;
    bad |= sum(bss, sizeof bss) != 0 || sum(aligned_bss, sizeof aligned_bss) != 0;
    bad |= (uintptr_t)aligned_bss % 4096 != 0;
    memset(bss, 1, sizeof bss);
    memset(aligned_bss, 1, sizeof aligned_bss);
    memset(data, 0, sizeof data);
    bad |= sum(bss, sizeof bss) != 30000 || sum(aligned_bss, sizeof aligned_bss) != 70000;
    bad |= sum(data, sizeof data) != 0 || sum(constants, sizeof constants) != 10;
    puts(bad ? "bad" : "ok");
    return bad;
}
