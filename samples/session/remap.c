// What can be done to a mapping of a file once it is there: grow, shrink, move, advise, execute, be read by the kernel.
// For every file of /var/files.
#include "lines.h"
#include <sys/uio.h>

static const char *file_name;
static int fd;
static size_t pages;

static void say(const char *variant, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(const char *variant, const char *format, ...) {
    char scenario[512], text[3000];
    snprintf(scenario, sizeof scenario, "%s, %s", file_name, variant);
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    line(scenario, "%s", text);
}

// Address space with nothing in it, of which nobody else takes a part: there is one thread.
static char *room(size_t len) {
    char *at = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        broken("room");
    return at;
}

// So many pages of the file, from `first` on, at the beginning of a room of `len` bytes; what follows is free.
static char *at_room(size_t first, size_t count, int prot, int flags, size_t len) {
    char *at = room(len), *map = mmap(at, count * PAGE, prot, flags | MAP_FIXED, fd, first * PAGE);
    if (map != at || munmap(at + count * PAGE, len - count * PAGE))
        broken("mmap");
    return map;
}

static const char *shown(char *result, char *expected, size_t count, size_t first) {
    static char text[2100];
    if (result == MAP_FAILED)
        return err(-errno);
    snprintf(text, sizeof text, "%s, %s", expected == NULL ? "anywhere" : result == expected ? "there" : "elsewhere",
             seen(result, count, fd, first * PAGE));
    return text;
}

static void sizes(int flags, const char *kind) {
    char variant[64], *to;
    size_t len = (pages + 4) * PAGE;
    // From every length in pages that there is (at most six) to a page more than the file has.
    for (size_t count = 1; count <= pages && count <= 6; count++) {
        char *map = at_room(0, count, PROT_READ, flags, len);
        to = mremap(map, count * PAGE, (pages + 1) * PAGE, 0);
        snprintf(variant, sizeof variant, "%s, %zu grown in place", kind, count);
        say(variant, "%s", shown(to, map, pages + 1, 0));
        munmap(map, len);
    }
    // Something is in the way.
    for (size_t count = 1; count <= pages && count <= 3; count++) {
        char *at = room(len), *map = mmap(at, count * PAGE, PROT_READ, flags | MAP_FIXED, fd, 0);
        const char *stays = err(mremap(map, count * PAGE, (pages + 1) * PAGE, 0) == MAP_FAILED ? -errno : 0);
        to = mremap(map, count * PAGE, (pages + 1) * PAGE, MREMAP_MAYMOVE);
        snprintf(variant, sizeof variant, "%s, %zu grown elsewhere", kind, count);
        say(variant, "in place %s, else %s, left %d", stays, shown(to, NULL, pages + 1, 0), touch(at, 0));
        munmap(at, len);
        munmap(to, (pages + 1) * PAGE);
    }
    if (pages < 2)
        return;
    char *map = at_room(0, pages, PROT_READ, flags, len);
    to = mremap(map, pages * PAGE, PAGE, 0);
    snprintf(variant, sizeof variant, "%s, shrunk", kind);
    say(variant, "%s, behind it %d", shown(to, map, 1, 0), touch(map + PAGE, 0));
    munmap(map, len);
}

static void moves(int flags, const char *kind) {
    char variant[64];
    char *map = mmap(NULL, pages * PAGE, PROT_READ, flags, fd, 0), *at = room((pages + 2) * PAGE);
    int fixed = MREMAP_MAYMOVE | MREMAP_FIXED;
    char *to = mremap(map, pages * PAGE, pages * PAGE, fixed, at + PAGE);
    snprintf(variant, sizeof variant, "%s, moved", kind);
    say(variant, "%s, left %d, beside %d %d", shown(to, at + PAGE, pages, 0), touch(map, 0), touch(at, 0),
        touch(at + (pages + 1) * PAGE, 0));
    munmap(at, (pages + 2) * PAGE);

    if (pages >= 3) {
        map = mmap(NULL, pages * PAGE, PROT_READ, flags, fd, 0);
        at = room(4 * PAGE);
        to = mremap(map + PAGE, PAGE, PAGE, fixed, at + PAGE);
        snprintf(variant, sizeof variant, "%s, the middle moved", kind);
        say(variant, "%s, left %d", shown(to, at + PAGE, 1, 1), touch(map + PAGE, 0));
        munmap(at, 4 * PAGE);
        munmap(map, pages * PAGE);

        map = mmap(NULL, pages * PAGE, PROT_READ, flags, fd, 0);
        to = mremap(map + PAGE, PAGE, 3 * PAGE, MREMAP_MAYMOVE);
        snprintf(variant, sizeof variant, "%s, the middle grown", kind);
        say(variant, "%s, left %d", shown(to, NULL, 3, 1), touch(map + PAGE, 0));
        munmap(to, 3 * PAGE);
        munmap(map, pages * PAGE);
    }
    map = mmap(NULL, pages * PAGE, PROT_READ, flags, fd, 0);
    to = mremap(map, 0, pages * PAGE, MREMAP_MAYMOVE);
    snprintf(variant, sizeof variant, "%s, doubled", kind);
    say(variant, "%s", shown(to, NULL, pages, 0));
    if (to != MAP_FAILED)
        munmap(to, pages * PAGE);
    to = mremap(map, pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | 4 /* MREMAP_DONTUNMAP */, NULL);
    snprintf(variant, sizeof variant, "%s, moved and left there", kind);
    say(variant, "%s; %s", shown(to, NULL, pages, 0), touch(map, 0) ? "gone" : "there");
    if (to != MAP_FAILED)
        munmap(to, pages * PAGE);
    munmap(map, pages * PAGE);
}

// What was stored stays where a private mapping grows, and the rest is the file's.
static void grown_with_stores(void) {
    size_t len = (pages + 4) * PAGE;
    char *map = at_room(0, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE, len), byte = map[0] ^ 0x55;
    map[0] = byte;
    char *to = mremap(map, PAGE, (pages + 1) * PAGE, 0);
    if (to == MAP_FAILED) {
        say("grown with stores", "%s", err(-errno));
    } else {
        int kept = to[0] == byte, rest = touch(to + pages * PAGE, 1);
        say("grown with stores", "%s, beyond %d, rest %s", kept ? "kept" : "DIFFERENT", rest,
            pages > 1 ? seen(to + PAGE, pages - 1, fd, PAGE) : "none");
    }
    munmap(map, len);
}

static void advised(int flags, const char *kind) {
    static const struct {
        int advice;
        const char *name;
    } advices[] = {{MADV_NORMAL, "NORMAL"},       {MADV_RANDOM, "RANDOM"},         {MADV_SEQUENTIAL, "SEQUENTIAL"},
                   {MADV_WILLNEED, "WILLNEED"},   {MADV_DONTNEED, "DONTNEED"},     {MADV_FREE, "FREE"},
                   {MADV_REMOVE, "REMOVE"},       {MADV_DONTFORK, "DONTFORK"},     {MADV_DOFORK, "DOFORK"},
                   {MADV_DONTDUMP, "DONTDUMP"},   {MADV_DODUMP, "DODUMP"},         {MADV_MERGEABLE, "MERGEABLE"},
                   {MADV_UNMERGEABLE, "UNMERGEABLE"}, {MADV_WIPEONFORK, "WIPEONFORK"}, {MADV_KEEPONFORK, "KEEPONFORK"},
                   {20, "COLD"},                  {21, "PAGEOUT"},                 {22, "POPULATE_READ"},
                   {23, "POPULATE_WRITE"},        {24, "DONTNEED_LOCKED"},         {1000, "unknown"}};
    char text[1024], variant[64];
    int len = 0;
    char *map = mmap(NULL, pages * PAGE, PROT_READ, flags, fd, 0);
    for (size_t i = 0; i < sizeof advices / sizeof *advices; i++)
        len += snprintf(text + len, sizeof text - len, "%s %s, ", advices[i].name,
                        err(RAW(SYS_madvise, map, pages * PAGE, advices[i].advice)));
    const char *still = seen(map, pages, fd, 0);
    snprintf(variant, sizeof variant, "%s, advised", kind);
    say(variant, "%s%s", text, still);
    len = 0;
    int syncs[] = {MS_ASYNC, MS_SYNC, MS_SYNC | MS_INVALIDATE, MS_ASYNC | MS_SYNC, 64};
    for (size_t i = 0; i < sizeof syncs / sizeof *syncs; i++)
        len += snprintf(text + len, sizeof text - len, " %s", err(RAW(SYS_msync, map, pages * PAGE, syncs[i])));
    snprintf(variant, sizeof variant, "%s, synchronized", kind);
    say(variant, "msync%s, mlock2 %s, %s, madvise %s, munlock %s", text, err(RAW(SYS_mlock2, map, pages * PAGE, 1)),
        err(RAW(SYS_msync, map, pages * PAGE, MS_INVALIDATE)), err(RAW(SYS_madvise, map, pages * PAGE, MADV_DONTNEED)),
        err(RAW(SYS_munlock, map, pages * PAGE)));
    madvise(map, pages * PAGE, MADV_DONTFORK);
    pid_t pid = fork();
    if (pid == 0)
        _exit(touch(map, 0));
    snprintf(variant, sizeof variant, "%s, not for the child", kind);
    say(variant, "child %s, parent %s", awaited(pid), seen(map, pages, fd, 0));
    munmap(map, pages * PAGE);
}

// The kernel reads and writes for the program.
static void by_the_kernel(void) {
    static char bytes[1 << 21];
    size_t size = size_of(fd);
    char *map = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0), page[PAGE];
    struct iovec to = {bytes, size}, from = {map, size};
    ssize_t read_bytes = process_vm_readv(getpid(), &to, 1, &from, 1, 0);
    int same = read_bytes == (ssize_t)size && !memcmp(bytes, map, size);
    int pipes[2];
    if (pipe(pipes))
        broken("pipe");
    from.iov_len = size < PAGE ? size : PAGE;
    ssize_t spliced = vmsplice(pipes[1], &from, 1, 0), got = read(pipes[0], page, PAGE);
    int spliced_same = spliced == got && !memcmp(page, map, got);
    // read(2) into a private mapping.
    ssize_t into = pread(fd, map + (pages - 1) * PAGE, PAGE, 0);
    file_page(fd, 0, page);
    int stored = into == (ssize_t)(size < PAGE ? size : PAGE) && !memcmp(map + (pages - 1) * PAGE, page, into);
    say("by the kernel", "process_vm_readv %s, vmsplice %s, read %s", same ? "same" : "DIFFERENT",
        spliced_same ? "same" : "DIFFERENT", stored ? "same" : "DIFFERENT");
    close(pipes[0]);
    close(pipes[1]);
    munmap(map, pages * PAGE);
}

// What is only read. The pages are the kernel's to hold on to by some of these ways, which it copies by others.
static void read_by_the_kernel(int flags, const char *kind) {
    static char bytes[1 << 21];
    size_t size = size_of(fd), part = size < PAGE ? size : PAGE;
    char *map = mmap(NULL, pages * PAGE, PROT_READ, flags, fd, 0), page[PAGE], variant[64];
    struct iovec to = {bytes, size}, from = {map, size}, first = {map, part};
    long vm = RAW(SYS_process_vm_readv, getpid(), &to, 1, &from, 1, 0);
    const char *vm_same = vm == (long)size && memcmp(bytes, map, size) ? "DIFFERENT" : err(vm);
    int pipes[2], memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    if (memory < 0 || pipe(pipes))
        broken("pipe");
    memset(bytes, 0, size);
    ssize_t got = pread(memory, bytes, size, (off_t)(unsigned long)map);
    const char *memory_same = err(got < 0 ? -errno : 0);
    if (got >= 0 && (got != (ssize_t)size || memcmp(bytes, map, size)))
        memory_same = "DIFFERENT";
    long spliced = RAW(SYS_vmsplice, pipes[1], &first, 1, 0);
    const char *splice_same = err(spliced);
    if (spliced > 0 && (read(pipes[0], page, PAGE) != spliced || memcmp(page, map, spliced)))
        splice_same = "DIFFERENT";
    long written = RAW(SYS_write, pipes[1], map, part);
    const char *write_same = err(written);
    if (written > 0 && (read(pipes[0], page, PAGE) != (ssize_t)part || memcmp(page, map, part)))
        write_same = "DIFFERENT";
    long woken = RAW(SYS_futex, map, 1 /* FUTEX_WAKE */, 1, NULL, NULL, 0);
    snprintf(variant, sizeof variant, "%s, read by the kernel", kind);
    say(variant, "write %s, process_vm_readv %s, /proc/self/mem %s, vmsplice %s, futex %s", write_same, vm_same,
        memory_same, splice_same, err(woken));
    close(memory);
    close(pipes[0]);
    close(pipes[1]);
    munmap(map, pages * PAGE);
}

// The pages of a mapping in another order.
static void rearranged(void) {
    if (pages < 2)
        return;
    char *map = mmap(NULL, pages * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    long result = RAW(SYS_remap_file_pages, map, PAGE, 0, pages - 1, 0);
    say("rearranged", "%s, %s", err(result), failed(result) ? "" : seen(map, 1, fd, (pages - 1) * PAGE));
    munmap(map, pages * PAGE);
}

// Where the pages are functions that return their number: code of x86.
static void executed(void) {
#ifdef __x86_64__
    int right = 0, other = 0;
    char *map = mmap(NULL, pages * PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    for (size_t page = 0; page < pages; page++) {
        unsigned char *code = (unsigned char *)map + page * PAGE;
        if (code[0] == 0xb8 && code[5] == 0xc3) // mov $NUMBER, %eax; ret
            ((int (*)(void))code)() == 1000 + (int)page ? right++ : other++;
    }
    if (right + other)
        say("executed", "%d right%s", right, other ? ", DIFFERENT" : "");
    munmap(map, pages * PAGE);
#endif
}

int main(void) {
    catch_faults();
    char path[600];
    struct dirent **entries;
    int count = scandir("/var/files", &entries, NULL, alphasort), files = 0;
    for (int i = 0; i < count; i++) {
        file_name = entries[i]->d_name;
        snprintf(path, sizeof path, "/var/files/%s", file_name);
        if (file_name[0] == '.')
            continue;
        fd = open_file(path);
        pages = pages_of(size_of(fd));
        if (pages) {
            sizes(MAP_PRIVATE, "private");
            sizes(MAP_SHARED, "shared");
            moves(MAP_PRIVATE, "private");
            moves(MAP_SHARED, "shared");
            grown_with_stores();
            advised(MAP_PRIVATE, "private");
            advised(MAP_SHARED, "shared");
            by_the_kernel();
            read_by_the_kernel(MAP_PRIVATE, "private");
            read_by_the_kernel(MAP_SHARED, "shared");
            rearranged();
            executed();
            files++;
        }
        close(fd);
    }
    line("end", "of %d files", files);
}
