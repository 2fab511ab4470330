// Every file of /var/files, in whatever way the image stores it, and a copy of each in /tmp, mapped in every way: what the
// mapping shows, what stores to it do, what is beyond the file's end.
#include "lines.h"

#define MOST 2048
static const char *place, *file_name;

static void say(const char *variant, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(const char *variant, const char *format, ...) {
    char scenario[512], text[3000];
    snprintf(scenario, sizeof scenario, "%s %s, %s", place, file_name, variant);
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    line(scenario, "%s", text);
}

// The permissions that /proc/self/maps has for all of a range; where they change, both.
static const char *permissions(char *map, size_t len) {
    static char text[64];
    char row[1024], *end = map + len;
    text[0] = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps && fgets(row, sizeof row, maps)) {
        char *from, *to, now[8];
        if (sscanf(row, "%p-%p %7s", (void **)&from, (void **)&to, now) != 3 || to <= map || from >= end)
            continue;
        if (!strstr(text, now) && strlen(text) < sizeof text - 8)
            strcat(text, now);
    }
    if (maps)
        fclose(maps);
    return text;
}

static void mapped_as(const char *variant, int fd, size_t pages, int prot, int flags) {
    char *map = mmap(NULL, pages * PAGE, prot, flags, fd, 0);
    if (map == MAP_FAILED) {
        say(variant, "%s", err(-errno));
        return;
    }
    const char *shown = prot ? seen(map, pages, fd, 0) : touch(map, 0) == SIGSEGV ? "nothing" : "DIFFERENT";
    say(variant, "%s %s", shown, permissions(map, pages * PAGE));
    munmap(map, pages * PAGE);
}

// As ld.so does: room first, then parts over it, last first; and nothing beside them.
static void in_parts(int fd, size_t pages) {
    char *room = mmap(NULL, (pages + 2) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *map = room + PAGE;
    for (size_t page = pages; page--;)
        if (mmap(map + page * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, page * PAGE) != map + page * PAGE)
            say("in parts", "page %zu: %s", page, err(-errno));
    int beside = touch(room, 0) == SIGSEGV && touch(map + pages * PAGE, 0) == SIGSEGV;
    say("in parts", "%s beside %s", seen(map, pages, fd, 0), beside ? "nothing" : "DIFFERENT");
    // All over again in one piece, over what is there.
    if (mmap(map, pages * PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, 0) != map)
        say("over parts", "%s", err(-errno));
    beside = touch(room, 0) == SIGSEGV && touch(map + pages * PAGE, 0) == SIGSEGV;
    say("over parts", "%s beside %s", seen(map, pages, fd, 0), beside ? "nothing" : "DIFFERENT");
    munmap(room, (pages + 2) * PAGE);
}

// Every offset, the last ones beyond the end, and lengths that are no pages.
static void at_offsets(int fd, size_t pages) {
    int same = 0, bus = 0, other = 0;
    for (size_t from = 0; from < pages; from++) {
        size_t len = (from * 7919 + 1) % (3 * PAGE) + 1;
        char *map = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, from * PAGE);
        const char *shown = map == MAP_FAILED ? "!" : seen(map, pages_of(len), fd, from * PAGE);
        other += strpbrk(shown, "!S") != NULL;
        bus += strchr(shown, 'B') != NULL;
        same += strchr(shown, '=') != NULL;
        munmap(map, len);
    }
    say("at offsets", "%d with bytes, %d with SIGBUS%s", same, bus, other ? ", DIFFERENT" : "");
}

// Where there is no page of the file, a fault says so, and the kernel does too.
static void beyond_the_end(int fd, size_t size) {
    size_t first = pages_of(size);
    char *map = mmap(NULL, (first + 2) * PAGE, PROT_READ, MAP_SHARED, fd, 0), *at = map + first * PAGE + 5;
    int number = touch(at, 0), pipes[2];
    if (pipe(pipes))
        broken("pipe");
    long written = RAW(SYS_write, pipes[1], at, 1);
    say("beyond the end", "signal %d code %d, address %s, write(2) from it: %s", number, fault_code,
        fault_at == at ? "right" : "DIFFERENT", err(written));
    close(pipes[0]);
    close(pipes[1]);
    munmap(map, (first + 2) * PAGE);
}

// The first and the last byte of every page, and what is left of the last page, are stored to.
static void store_all(char *map, size_t pages, int salt) {
    for (size_t page = 0; page < pages; page++)
        for (int at = 0; at < PAGE; at += PAGE - 1)
            map[page * PAGE + at] = (page * 31 + at + salt) | 1;
}
static int stored_all(const char *map, size_t pages, int salt) {
    for (size_t page = 0; page < pages; page++)
        for (int at = 0; at < PAGE; at += PAGE - 1)
            if (map[page * PAGE + at] != (char)((page * 31 + at + salt) | 1))
                return 0;
    return 1;
}

static uint64_t contents(int fd) {
    char page[PAGE];
    uint64_t hash = HASH_START;
    size_t pages = pages_of(size_of(fd));
    for (size_t at = 0; at < pages; at++) {
        file_page(fd, at * PAGE, page);
        hash = hashed(hash, page, PAGE);
    }
    return hash;
}

static void stores(const char *variant, int fd, size_t size, int prot) {
    size_t pages = pages_of(size);
    if (!pages)
        return;
    uint64_t before = contents(fd);
    char *other = mmap(NULL, pages * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    char *map = mmap(NULL, (pages + 1) * PAGE, prot, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED || other == MAP_FAILED)
        broken(variant);
    if (!(prot & PROT_WRITE)) {
        int refused = touch(map, 1);
        if (mprotect(map, (pages + 1) * PAGE, PROT_READ | PROT_WRITE))
            say(variant, "mprotect: %s", err(-errno));
        if (refused != SIGSEGV)
            say(variant, "a store before mprotect: %d", refused);
    }
    store_all(map, pages, 0);
    const char *kept = stored_all(map, pages, 0) ? "kept" : "DIFFERENT";
    const char *file = contents(fd) == before ? "as it was" : "DIFFERENT";
    const char *others = strchr(seen(other, pages, fd, 0), '!') ? "DIFFERENT" : "as they were";
    int beyond = touch(map + pages * PAGE, 1);

    // The child sees what was stored; what it stores is its own.
    pid_t pid = fork();
    if (pid == 0) {
        int same = stored_all(map, pages, 0);
        store_all(map, pages, 1);
        _exit(same && stored_all(map, pages, 1) ? 0 : 1);
    }
    const char *forked = strcmp(awaited(pid), "exit 0") || !stored_all(map, pages, 0) ? "DIFFERENT" : "copied";
    int read_only = mprotect(map, pages * PAGE, PROT_READ) ? errno : 0;
    int still = stored_all(map, pages, 0);
    if (madvise(map, pages * PAGE, MADV_DONTNEED))
        say(variant, "madvise: %s", err(-errno));
    say(variant, "stores %s, file %s, other mappings %s, beyond %d, fork %s, read-only %d %d, after MADV_DONTNEED %s",
        kept, file, others, beyond, forked, read_only, still, seen(map, pages + 1, fd, 0));
    munmap(map, (pages + 1) * PAGE);
    munmap(other, pages * PAGE);
}

// A shared mapping of a file that is open for reading, or that cannot be written, does not become writable.
static void shared_and_writable(int fd) {
    char *map = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    const char *asked = err(map == MAP_FAILED ? -errno : 0);
    map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    const char *later = err(mprotect(map, PAGE, PROT_READ | PROT_WRITE) ? -errno : 0);
    say("shared and writable", "mmap %s, mprotect %s", asked, later);
    munmap(map, PAGE);
}

static void a_hole_in_the_middle(int fd, size_t pages) {
    if (pages < 3)
        return;
    char *map = mmap(NULL, pages * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
    munmap(map + PAGE, (pages - 2) * PAGE);
    char *last = map + (pages - 1) * PAGE;
    int middle = touch(map + PAGE, 0), before_last = touch(last - 1, 0);
    say("the middle unmapped", "%s %d %d %s", seen(map, 1, fd, 0), middle, before_last,
        strstr(seen(last, 1, fd, (pages - 1) * PAGE), "=1") ? "=1" : "DIFFERENT");
    munmap(map, pages * PAGE);
}

static void resident(int fd, size_t size) {
    size_t pages = pages_of(size);
    if (!pages)
        return;
    unsigned char in_core[MOST];
    char *map = mmap(NULL, pages * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    const char *locked = err(mlock(map, pages * PAGE) ? -errno : 0);
    long result = RAW(SYS_mincore, map, pages * PAGE, in_core);
    size_t count = 0;
    for (size_t page = 0; page < pages; page++)
        count += in_core[page] & 1;
    say("resident", "mlock %s, mincore %s, %s, msync %s, munlock %s", locked, err(result),
        count == pages ? "all of it" : "DIFFERENT", err(msync(map, pages * PAGE, MS_SYNC) ? -errno : 0),
        err(munlock(map, pages * PAGE) ? -errno : 0));
    munmap(map, pages * PAGE);
}

// As a lazy loader does: nothing is there until it is touched.
static int lazy_fd, lazy_pages;
static char *lazy_room;
static void lazy_fault(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    size_t page = ((char *)info->si_addr - lazy_room) / PAGE;
    char *at = lazy_room + page * PAGE;
    if (page >= (size_t)lazy_pages ||
        RAW(SYS_mmap, at, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, lazy_fd, MAP_OFFSET(page * PAGE)) != (long)at)
        _exit(77);
}

static void on_demand(int fd, size_t size) {
    lazy_fd = fd;
    lazy_pages = pages_of(size);
    lazy_room = mmap(NULL, (lazy_pages + 1) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct sigaction before, action = {.sa_sigaction = lazy_fault, .sa_flags = SA_SIGINFO};
    sigfillset(&action.sa_mask);
    sigaction(SIGSEGV, &action, &before);
    uint64_t hash = hashed(HASH_START, lazy_room, lazy_pages * PAGE);
    sigaction(SIGSEGV, &before, NULL);
    say("on demand", "%s", hash == contents(fd) ? "the file's bytes" : "DIFFERENT");
    munmap(lazy_room, (lazy_pages + 1) * PAGE);
}

static void one_file(const char *path) {
    int fd = open_file(path);
    size_t size = size_of(fd), pages = pages_of(size) + 2;
    if (pages > MOST)
        broken("a file is too long");
    say("read", "%zu bytes %016" PRIx64, size, contents(fd));
    int read_write = PROT_READ | PROT_WRITE;
    mapped_as("private", fd, pages, PROT_READ, MAP_PRIVATE);
    mapped_as("shared", fd, pages, PROT_READ, MAP_SHARED);
    mapped_as("shared and validated", fd, pages, PROT_READ, MAP_SHARED_VALIDATE);
    mapped_as("executable", fd, pages, PROT_READ | PROT_EXEC, MAP_PRIVATE);
    mapped_as("shared and executable", fd, pages, PROT_READ | PROT_EXEC, MAP_SHARED);
    mapped_as("executable only", fd, pages, PROT_EXEC, MAP_PRIVATE);
    mapped_as("private and writable", fd, pages, read_write, MAP_PRIVATE);
    mapped_as("private and all", fd, pages, read_write | PROT_EXEC, MAP_PRIVATE);
    mapped_as("no access", fd, pages, PROT_NONE, MAP_PRIVATE);
    mapped_as("populated", fd, pages, PROT_READ, MAP_PRIVATE | MAP_POPULATE);
    mapped_as("populated, writable", fd, pages, read_write, MAP_PRIVATE | MAP_POPULATE);
    mapped_as("populated, not waited for", fd, pages, PROT_READ, MAP_SHARED | MAP_POPULATE | MAP_NONBLOCK);
    mapped_as("locked", fd, pages, PROT_READ, MAP_PRIVATE | MAP_LOCKED);
    mapped_as("without reserve", fd, pages, read_write, MAP_PRIVATE | MAP_NORESERVE);
    mapped_as("for a stack", fd, pages, read_write, MAP_PRIVATE | MAP_STACK);
    mapped_as("for a growing stack", fd, pages, read_write, MAP_PRIVATE | MAP_STACK | MAP_GROWSDOWN);
    mapped_as("denying writes", fd, pages, PROT_READ, MAP_PRIVATE | MAP_DENYWRITE | MAP_EXECUTABLE);
    in_parts(fd, pages);
    at_offsets(fd, pages);
    beyond_the_end(fd, size);
    stores("stores", fd, size, read_write);
    stores("stores, executable", fd, size, read_write | PROT_EXEC);
    stores("stores after mprotect", fd, size, PROT_READ);
    shared_and_writable(fd);
    a_hole_in_the_middle(fd, pages - 2);
    resident(fd, size);
    on_demand(fd, size);
    close(fd);
}

static void copy(const char *from, const char *to) {
    static char bytes[1 << 16];
    int in = open_file(from), out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    for (ssize_t len; (len = read(in, bytes, sizeof bytes)) > 0;)
        if (write(out, bytes, len) != len)
            broken(to);
    close(in);
    if (out < 0 || close(out))
        broken(to);
}

int main(void) {
    catch_faults();
    char dir[] = "/tmp/files-XXXXXX", path[600], other[600];
    struct dirent **entries;
    int count = scandir("/var/files", &entries, NULL, alphasort);
    if (!mkdtemp(dir) || count < 3)
        broken("/var/files");
    for (int i = 0; i < count; i++) {
        if (entries[i]->d_name[0] == '.')
            continue;
        file_name = entries[i]->d_name;
        snprintf(path, sizeof path, "/var/files/%s", file_name);
        snprintf(other, sizeof other, "%s/%s", dir, file_name);
        place = "image";
        one_file(path);
        place = "host";
        copy(path, other);
        one_file(other);
        unlink(other);
    }
    rmdir(dir);
    line("end", "of %d files", count - 2);
}
