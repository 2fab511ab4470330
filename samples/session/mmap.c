// The arguments of mmap(2): every sort of descriptor, length, offset, protection, flag and address, right and wrong, and
// the errors in the kernel's order.
#include "lines.h"
#include <limits.h>
#include <sys/mount.h>
#ifndef MAP_32BIT
#define MAP_32BIT 0
#endif
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#define FILE_OF_IMAGE "/var/files/direct"
static char scratch[64];

// An area that scenarios with fixed addresses may do what they like with.
static char *area;
#define AREA_PAGES 64

static void new_area(void) {
    if (area)
        munmap(area, AREA_PAGES * PAGE);
    area = mmap(NULL, AREA_PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED)
        broken("area");
}

// ---- descriptor x protection and flags x length x offset

static int fd_of(const char *path, int flags) {
    int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd < 0)
        broken(path);
    return fd;
}

struct descriptor {
    const char *name;
    int fd;
};

static size_t descriptors(struct descriptor *all) {
    int pipes[2], sockets[2], memfd = memfd_create("m", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int sealed = memfd_create("s", MFD_CLOEXEC | MFD_ALLOW_SEALING), closed = 900;
    if (pipe(pipes) || socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) || ftruncate(memfd, 2 * PAGE) ||
        ftruncate(sealed, 2 * PAGE) || fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW))
        broken("descriptors");
    char file[80];
    snprintf(file, sizeof file, "%s/file", scratch);
    int created = fd_of(file, O_RDWR | O_CREAT | O_TRUNC);
    if (ftruncate(created, 2 * PAGE + 100))
        broken(file);
    close(created);
    struct descriptor list[] = {
        {"direct", fd_of(FILE_OF_IMAGE, O_RDONLY)},
        {"compressed", fd_of("/var/files/compressed", O_RDONLY)},
        {"mixed", fd_of("/var/files/mixed", O_RDONLY)},
        {"empty", fd_of("/var/files/empty", O_RDONLY)},
        {"a path in the image", fd_of(FILE_OF_IMAGE, O_PATH)},
        {"a directory of the image", fd_of("/var/files", O_RDONLY | O_DIRECTORY)},
        {"a host file", fd_of(file, O_RDONLY)},
        {"a host file to write", fd_of(file, O_RDWR)},
        {"a host file only to write", fd_of(file, O_WRONLY)},
        {"a host file to append to", fd_of(file, O_RDWR | O_APPEND)},
        {"a path on the host", fd_of(file, O_PATH)},
        {"a host directory", fd_of(scratch, O_RDONLY | O_DIRECTORY)},
        {"memfd", memfd},
        {"sealed memfd", sealed},
        {"pipe", pipes[0]},
        {"socket", sockets[0]},
        {"event", eventfd(0, EFD_CLOEXEC)},
        {"timer", timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC)},
        {"epoll", epoll_create1(EPOLL_CLOEXEC)},
        {"/dev/zero", fd_of("/dev/zero", O_RDWR)},
        {"/dev/null", fd_of("/dev/null", O_RDWR)},
        {"/proc/self/maps", fd_of("/proc/self/maps", O_RDONLY)},
        {"/proc/version", fd_of("/proc/version", O_RDONLY)},
        {"closed", closed},
        {"-1", -1},
        {"AT_FDCWD", AT_FDCWD},
        {"too large", 1 << 30},
    };
    memcpy(all, list, sizeof list);
    return sizeof list / sizeof *list;
}

static const struct {
    const char *name;
    int prot, flags;
} ways[] = {
    {"r private", PROT_READ, MAP_PRIVATE},
    {"none private", PROT_NONE, MAP_PRIVATE},
    {"w private", PROT_WRITE, MAP_PRIVATE},
    {"rwx private", PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE},
    {"unknown protection", PROT_READ | 0x40, MAP_PRIVATE},
    {"r shared", PROT_READ, MAP_SHARED},
    {"x shared", PROT_EXEC, MAP_SHARED},
    {"rw shared", PROT_READ | PROT_WRITE, MAP_SHARED},
    {"rw validated", PROT_READ | PROT_WRITE, MAP_SHARED_VALIDATE},
    {"validated, unknown flag", PROT_READ, MAP_SHARED_VALIDATE | 0x10000000},
    {"validated, synchronous", PROT_READ, MAP_SHARED_VALIDATE | 0x80000},
    {"neither", PROT_READ, 0},
    {"all types", PROT_READ, 0xf},
    {"unknown flags", PROT_READ, MAP_PRIVATE | 0x70000000},
    {"huge pages", PROT_READ, MAP_PRIVATE | MAP_HUGETLB},
    {"growing down", PROT_READ, MAP_PRIVATE | MAP_GROWSDOWN},
    {"growing down, shared", PROT_READ, MAP_SHARED | MAP_GROWSDOWN},
    {"locked", PROT_READ, MAP_PRIVATE | MAP_LOCKED},
    {"anonymous", PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS},
    {"fixed", PROT_READ, MAP_PRIVATE | MAP_FIXED},
    {"fixed, unaligned", PROT_READ, MAP_PRIVATE | MAP_FIXED},
    {"fixed, taken", PROT_READ, MAP_PRIVATE | MAP_FIXED_NOREPLACE},
    {"fixed, out of reach", PROT_READ, MAP_PRIVATE | MAP_FIXED},
};

#if __SIZEOF_LONG__ == 8
#define TOO_LONG (1ul << 47)
#define OUT_OF_REACH 0x7ffffffff000
#else
#define TOO_LONG (3ul << 30)
#define OUT_OF_REACH 0xfffff000
#endif
// Lengths that no address space has, and one that wraps when it is rounded up.
static const size_t lengths[] = {PAGE, 1, 2 * PAGE + 7, 0, TOO_LONG, TOO_LONG | 1ul << (8 * sizeof(long) - 1), -PAGE, -1};
#ifdef __arm__
// In pages.
static const long offsets[] = {0, 1, 1 << 18, LONG_MAX, LONG_MIN, -1};
#else
static const off_t offsets[] = {0, PAGE, 1 << 30, 1, PAGE - 1, 0x7ffffffffffff000, (off_t)0x8000000000000000, -PAGE};
#endif

static void arguments(void) {
    struct descriptor all[64];
    size_t count = descriptors(all);
    for (size_t way = 0; way < sizeof ways / sizeof *ways; way++)
        for (size_t fd = 0; fd < count; fd++) {
            char scenario[128];
            struct words words = {.len = 0};
            for (size_t len = 0; len < sizeof lengths / sizeof *lengths; len++)
                for (size_t off = 0; off < sizeof offsets / sizeof *offsets; off++) {
                    char *address = NULL;
                    if (ways[way].flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) {
                        if (off == 0)
                            new_area();
                        address = area + 8 * PAGE;
                    }
                    if (strstr(ways[way].name, "unaligned"))
                        address += 16;
                    if (strstr(ways[way].name, "reach"))
                        address = (char *)OUT_OF_REACH;
                    long result = RAW(SYS_mmap, address, lengths[len], ways[way].prot, ways[way].flags, all[fd].fd,
                                      offsets[off]);
                    const char *name = err(result);
                    if (!failed(result)) {
                        if (result & (PAGE - 1) || (address && (char *)result != address))
                            name = "DIFFERENT";
                        if (!address)
                            munmap((void *)result, lengths[len]);
                    }
                    add_word(&words, name);
                }
            snprintf(scenario, sizeof scenario, "%s, %s", ways[way].name, all[fd].name);
            line(scenario, "%s", all_words(&words));
        }
    for (size_t fd = 0; fd < count; fd++)
        if (all[fd].fd < 900)
            close(all[fd].fd);
    char file[80];
    snprintf(file, sizeof file, "%s/file", scratch);
    unlink(file);
}

// Where the kernel takes 32 bits of a register it does not look at the others.
#if __SIZEOF_LONG__ == 8
static void upper_halves(void) {
    struct mapped file = remember(FILE_OF_IMAGE);
    long junk = 0x5a5a5a5a00000000;
    long with_fd = RAW(SYS_mmap, 0, PAGE, PROT_READ, MAP_PRIVATE, junk | file.fd, 0);
    long with_all = RAW(SYS_mmap, 0, PAGE, junk | PROT_READ, MAP_PRIVATE | junk, junk | file.fd, 0);
    uint64_t same = failed(with_fd) ? 0 : hashed(HASH_START, (void *)with_fd, PAGE);
    line("upper halves", "fd %s %s, all %s", err(with_fd), same == file.hash ? "same" : "DIFFERENT", err(with_all));
    // Anonymous by bit 5 of the lower half only.
    with_all = RAW(SYS_mmap, 0, PAGE, PROT_READ, MAP_PRIVATE | (long)MAP_ANONYMOUS << 32, file.fd, 0);
    same = failed(with_all) ? 0 : hashed(HASH_START, (void *)with_all, PAGE);
    line("anonymous in the upper half", "%s %s", err(with_all), same == file.hash ? "same" : "not the file");
    close(file.fd);
}
#endif

// ---- addresses

static void addresses(void) {
    int fd = open_file("/var/files/mixed");
    size_t len = pages_of(size_of(fd)) * PAGE;
    char *low = (char *)0x10000000, *at;
    at = mmap(low, len, PROT_READ, MAP_PRIVATE, fd, 0);
    line("a low hint", "%s %s", at == low ? "there" : "elsewhere", seen(at, pages_of(len), fd, 0));
    char *again = mmap(low, len, PROT_READ, MAP_PRIVATE, fd, 0);
    line("a hint that is taken", "%s %s", again == low ? "there" : "elsewhere", seen(again, pages_of(len), fd, 0));
    munmap(again, len);
    munmap(at, len);
    at = mmap(low + 5, len, PROT_READ, MAP_PRIVATE, fd, 0);
    line("a hint in a page", "%ld", (long)(at - low));
    munmap(at, len);
    at = mmap(low - PAGE, len, PROT_READ, MAP_PRIVATE, fd, 0);
    char *behind = mmap(low - 2 * PAGE, len, PROT_READ, MAP_PRIVATE, fd, 0);
    line("a hint whose end is taken", "%s, %s", at == low - PAGE ? "there" : "elsewhere",
         behind == low - 2 * PAGE ? "there" : "elsewhere");
    munmap(at, len);
    munmap(behind, len);
    at = mmap((char *)1, len, PROT_READ, MAP_PRIVATE, fd, 0);
    line("a hint below all", "%lx", at < low ? (long)at : -1);
    munmap(at, len);
    at = mmap((char *)-PAGE, len, PROT_READ, MAP_PRIVATE, fd, 0);
    line("a hint above all", "%s", at == MAP_FAILED ? err(-errno) : seen(at, pages_of(len), fd, 0));
    munmap(at, len);
    at = mmap(NULL, len, PROT_READ, MAP_PRIVATE | MAP_32BIT, fd, 0);
    line("below 2 GiB", "%s %s", (unsigned long)at + len <= 1ul << 31 ? "there" : "elsewhere", seen(at, pages_of(len), fd, 0));
    munmap(at, len);

    at = mmap(low, len, PROT_READ, MAP_PRIVATE | MAP_FIXED_NOREPLACE, fd, 0);
    line("fixed, where nothing is", "%s %s", at == low ? "there" : err(-errno), seen(at, pages_of(len), fd, 0));
    const long shifts[] = {0, PAGE, -PAGE, len - PAGE};
    char text[256];
    int to = 0;
    for (size_t i = 0; i < sizeof shifts / sizeof *shifts; i++)
        to += snprintf(text + to, sizeof text - to, " %s",
                       err(RAW(SYS_mmap, low + shifts[i], len, PROT_READ, MAP_PRIVATE | MAP_FIXED_NOREPLACE, fd, 0)));
    line("fixed, where something is", "%s; %s", text + 1, seen(low, pages_of(len), fd, 0));
    munmap(low - PAGE, 3 * len);

    // At 0, and up to the end of the address space; root may.
    at = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
    line("fixed at 0", "%s", at == MAP_FAILED ? err(-errno) : "there");
    munmap(NULL, PAGE);
    close(fd);
}

// A mapping over another that fails leaves what was there; all of it, whatever is the matter.
static void failures_over_something(void) {
    int fd = open_file("/var/files/mixed"), directory = open("/var/files", O_RDONLY);
    size_t pages = pages_of(size_of(fd));
    char text[256];
    int to = 0;
    char *at = mmap(NULL, pages * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
    struct {
        int fd, prot, flags;
        off_t offset;
    } wrong[] = {{-1, PROT_READ, MAP_PRIVATE, 0},           {directory, PROT_READ, MAP_PRIVATE, 0},
                 {fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0}, {fd, PROT_READ, MAP_PRIVATE, 3},
                 {fd, PROT_READ, 0, 0},                     {fd, PROT_READ, MAP_PRIVATE, -PAGE},
                 {fd, PROT_READ, MAP_PRIVATE | MAP_GROWSDOWN, 0}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        to += snprintf(text + to, sizeof text - to, " %s",
                       err(RAW(SYS_mmap, at, pages * PAGE, wrong[i].prot, wrong[i].flags | MAP_FIXED, wrong[i].fd,
                               MAP_OFFSET(wrong[i].offset))));
    line("failures over a mapping", "%s; %s", text + 1, seen(at, pages, fd, 0));
    close(directory);
    munmap(at, pages * PAGE);
    close(fd);
}

// ---- limits and modes of the process

static void limited(const char *scenario, int resource, rlim_t limit, int prot, int flags) {
    struct rlimit set = {limit, limit};
    int fd = open_file("/var/files/turns");
    size_t len = pages_of(size_of(fd)) * PAGE;
    if (setrlimit(resource, &set))
        broken(scenario);
    long small = RAW(SYS_mmap, 0, len, prot, flags, fd, 0);
    line(scenario, "%s", err(small));
}
// What is bound somewhere noexec is not executed from there.
static void not_executable(const char *scenario) {
    char place[100], path[128];
    snprintf(place, sizeof place, "%s/place", scratch);
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mkdir(place, 0700) ||
        mount("/var/files", place, NULL, MS_BIND, NULL) ||
        mount(NULL, place, NULL, MS_REMOUNT | MS_BIND | MS_NOEXEC | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL))
        broken(scenario);
    snprintf(path, sizeof path, "%s/direct", place);
    int bound = open_file(path), free = open_file("/var/files/direct");
    struct words words = {.len = 0};
    for (int prot = PROT_READ; prot <= (PROT_READ | PROT_EXEC); prot += PROT_EXEC)
        for (int shared = 0; shared < 2; shared++) {
            add_word(&words, err(RAW(SYS_mmap, 0, PAGE, prot, shared ? MAP_SHARED : MAP_PRIVATE, bound, 0)));
            add_word(&words, err(RAW(SYS_mmap, 0, PAGE, prot, shared ? MAP_SHARED : MAP_PRIVATE, free, 0)));
        }
    line(scenario, "%s", all_words(&words));
    umount2(place, MNT_DETACH);
    rmdir(place);
}
static void address_space(const char *scenario) { limited(scenario, RLIMIT_AS, PAGE, PROT_READ, MAP_PRIVATE); }
static void data_segment(const char *scenario) {
    limited(scenario, RLIMIT_DATA, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
}
static void data_segment_reading(const char *scenario) {
    limited(scenario, RLIMIT_DATA, PAGE, PROT_READ, MAP_PRIVATE);
}
static void locked_memory(const char *scenario) {
    if (setgid(65534) || setuid(65534))
        broken(scenario);
    limited(scenario, RLIMIT_MEMLOCK, PAGE, PROT_READ, MAP_PRIVATE | MAP_LOCKED);
}
static void as_nobody(const char *scenario) {
    if (setgid(65534) || setuid(65534))
        broken(scenario);
    int fd = open_file("/var/files/mixed");
    size_t pages = pages_of(size_of(fd));
    char *at = mmap(NULL, pages * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
    line(scenario, "%s, at 0 %s", seen(at, pages, fd, 0),
         err(RAW(SYS_mmap, 0, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0)));
}
static void all_locked(const char *scenario) {
    int fd = open_file("/var/files/turns");
    size_t pages = pages_of(size_of(fd)), in = 0;
    unsigned char in_core[256];
    if (mlockall(MCL_FUTURE))
        broken(scenario);
    char *at = mmap(NULL, pages * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
    mincore(at, pages * PAGE, in_core);
    for (size_t page = 0; page < pages; page++)
        in += in_core[page] & 1;
    line(scenario, "%s %s", in == pages ? "in memory" : "DIFFERENT", seen(at, pages, fd, 0));
}
static void reading_implies_executing(const char *scenario) {
    if (RAW(SYS_personality, 0x0400000) < 0)
        broken(scenario);
    int fd = open_file("/var/files/code");
    char *at = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
    line(scenario, "%d", ((int (*)(void))at)());
}
static void many_mappings(const char *scenario) {
    int fd = open_file("/var/files/mixed"), wrong = 0;
    char page[PAGE];
    file_page(fd, 2 * PAGE, page);
    for (int i = 0; i < ROUNDS(2000); i++) {
        char *at = mmap(NULL, 5 * PAGE, PROT_READ, i & 1 ? MAP_PRIVATE : MAP_SHARED, fd, 0);
        wrong += at == MAP_FAILED || memcmp(at + 2 * PAGE, page, PAGE);
    }
    line(scenario, "%s", mistakes(wrong));
}

// The descriptor is not needed any more; nor is the name.
static void after_close(const char *scenario) {
    int fd = open_file("/var/files/mixed"), same = 1;
    size_t pages = pages_of(size_of(fd));
    char *at = mmap(NULL, pages * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    fd = open_file("/var/files/mixed");
    // Another file with the descriptor's number.
    int other = dup2(open_file("/var/files/direct"), fd);
    char *second = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, other, 0);
    same = !strchr(seen(second, 1, other, 0), '!');
    fd = open_file("/var/files/mixed");
    line(scenario, "%s %s", seen(at, pages, fd, 0), same ? "same" : "DIFFERENT");
}

// Host files are the host's: shared, truncated, extended under a mapping, unlinked.
static void host_file(const char *scenario) {
    char file[80];
    snprintf(file, sizeof file, "%s/shared", scratch);
    int fd = fd_of(file, O_RDWR | O_CREAT | O_TRUNC);
    char byte = 0;
    unlink(file);
    int grown = ftruncate(fd, 3 * PAGE - 10);
    char *shared = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *private = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    pid_t pid = fork();
    if (pid == 0) {
        shared[5000] = 'x';
        private[0] = 'y';
        _exit(0);
    }
    awaited(pid);
    int got = pread(fd, &byte, 1, 5000);
    int beyond = touch(shared + 3 * PAGE, 0);
    int extended = ftruncate(fd, 4 * PAGE), there = touch(shared + 3 * PAGE, 1);
    int cut = ftruncate(fd, PAGE), gone = touch(shared + PAGE, 0);
    line(scenario, "%d, stored %d %c, private %d, beyond %d, extended %d %d, cut %d %d, msync %s", grown, got, byte,
         private[0], beyond, extended, there, cut, gone, err(msync(shared, PAGE, MS_SYNC) ? -errno : 0));
}

int main(void) {
    catch_faults();
    strcpy(scratch, "/tmp/mmap-XXXXXX");
    if (!mkdtemp(scratch))
        broken(scratch);
    arguments();
#if __SIZEOF_LONG__ == 8
    upper_halves();
#endif
    addresses();
    failures_over_something();
    apart("limit of the address space", address_space);
    apart("limit of data", data_segment);
    apart("limit of data, only read", data_segment_reading);
    apart("limit of locked memory", locked_memory);
    apart("as nobody", as_nobody);
    apart("all memory locked", all_locked);
    apart("reading implies executing", reading_implies_executing);
    apart("2000 mappings", many_mappings);
    apart("bound noexec", not_executable);
    apart("after close", after_close);
    apart("a host file", host_file);
    rmdir(scratch);
    line("end", "of mmap");
}
