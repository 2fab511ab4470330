// Random sequences of what can be done to mappings, of files of the image above all: mappings SEED FIRST COUNT STEPS.
//
// Each sequence has a process, an area of address space and a file to write to of its own; some run as nobody. Each step prints the call, its answer and,
// half the time, what the area has become: what reading its pages does (`=` their bytes, which are hashed, or the fault)
// and its lines of /proc/self/maps, the names as they are there. tests/session_mappings.rs compares the lines; the same
// SEED and sequence are the same steps again.
//
// mremap(2) takes no more of a file than a page at a time: what it does else in a session is a limit (remap.c). Nor does
// it leave the page there (MREMAP_DONTUNMAP), for that unlocks all of the kernel's piece, whose ends are others.
#include "lines.h"
#include <sys/uio.h>

#define AREA ((char *)0x50000000)
#define AREA_PAGES 40
#define OWN_FILE "own"
#define OWN_BYTES (3 * PAGE + 1000)
#define MOST_FILES 64

// ---- chance

static uint64_t chance;
static uint64_t next(void) {
    uint64_t z = chance += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}
static long below(long count) { return (long)(next() % (uint64_t)count); }
static int once_in(long count) { return below(count) == 0; }
#define ONE_OF(all) all[below(sizeof all / sizeof *all)]

// ---- the line that is being written

static char text[1 << 14];
static int text_len;
static void add(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void add(const char *format, ...) {
    va_list args;
    va_start(args, format);
    text_len += vsnprintf(text + text_len, sizeof text - text_len, format, args);
    va_end(args);
    if (text_len >= (int)sizeof text - 1)
        broken("a line is too long");
}
static void end_line(void) {
    text[text_len++] = '\n';
    if (write(1, text, text_len) != text_len)
        _exit(99);
    text_len = 0;
}

// ---- files

static struct {
    const char *name;
    int fd;
    long pages;
} files[MOST_FILES];
static int file_count, code_file, own_fd, zero_fd, memory_fd, pipes[2];

static void open_files(void) {
    struct dirent **entries;
    int count = scandir("/var/files", &entries, NULL, alphasort);
    for (int i = 0; i < count && file_count < MOST_FILES - 1; i++) {
        char path[600];
        snprintf(path, sizeof path, "/var/files/%s", entries[i]->d_name);
        if (entries[i]->d_name[0] == '.')
            continue;
        int fd = open_file(path);
        files[file_count].name = entries[i]->d_name;
        files[file_count].fd = fd;
        if (!strcmp(entries[i]->d_name, "code"))
            code_file = file_count;
        files[file_count++].pages = pages_of(size_of(fd));
    }
    own_fd = memfd_create(OWN_FILE, MFD_CLOEXEC);
    files[file_count].name = OWN_FILE;
    files[file_count].fd = own_fd;
    files[file_count++].pages = pages_of(OWN_BYTES);
    zero_fd = open_file("/dev/zero");
    if (own_fd < 0 || file_count < 4 || pipe2(pipes, O_NONBLOCK | O_CLOEXEC))
        broken("files");
}

static void fill_own_file(void) {
    char page[PAGE];
    memset(page, 'h', sizeof page);
    if (ftruncate(own_fd, 0) || ftruncate(own_fd, OWN_BYTES) || pwrite(own_fd, page, PAGE, 0) != PAGE ||
        pwrite(own_fd, page, 1000, 3 * PAGE) != 1000)
        broken(OWN_FILE);
}

// ---- faults, many of them: no signal is blocked meanwhile, so no mask is restored

static void catch_all_faults(void) {
    struct sigaction action = {.sa_sigaction = fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
}

// What reading a byte does: 0, SIGBUS or SIGSEGV.
static int fault_of(const volatile char *at) {
    int number = sigsetjmp(fault_back, 0);
    if (!number)
        (void)*at;
    return number;
}

// ---- what there is

struct mapping {
    unsigned long start, end, offset;
    char permissions[5], name[256];
};

// The lines of /proc/self/maps from `start` to `end`, cut to that; at most so many.
static int mappings(unsigned long start, unsigned long end, struct mapping *all, int most) {
    static char maps[1 << 16];
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC), count = 0;
    ssize_t len = 0;
    for (ssize_t got; (got = read(fd, maps + len, sizeof maps - 1 - len)) > 0;)
        len += got;
    close(fd);
    maps[len > 0 ? len : 0] = 0;
    for (char *row = strtok(maps, "\n"); row; row = strtok(NULL, "\n")) {
        struct mapping one = {.name = ""};
        if (sscanf(row, "%lx-%lx %4s %lx %*s %*s %255[^\n]", &one.start, &one.end, one.permissions, &one.offset,
                   one.name) < 4)
            broken(row);
        if (one.end <= start || one.start >= end)
            continue;
        if (one.start < start) {
            one.offset += start - one.start;
            one.start = start;
        }
        if (one.end > end)
            one.end = end;
        // Of what is no file the offset says nothing.
        if (!one.name[0])
            one.offset = 0;
        if (count == most)
            broken("too many mappings");
        all[count++] = one;
    }
    return count;
}

// What reading does, page by page, a hash of what can be read, and the mappings.
static void add_state(char *base, long pages) {
    static struct mapping all[4 * AREA_PAGES];
    uint64_t hash = HASH_START;
    add(" | ");
    for (long page = 0; page < pages; page++) {
        char *at = base + page * PAGE;
        int number = fault_of(at);
        if (!number) {
            add("=");
            hash = (hash ^ page) * 0x100000001b3;
            for (long word = 0; word < PAGE; word += 8) {
                uint64_t bytes;
                memcpy(&bytes, at + word, 8);
                hash = (hash ^ bytes) * 0x100000001b3;
                hash ^= hash >> 29;
            }
        } else if (fault_at != at) {
            add("?");
        } else if (number == SIGBUS) {
            add(fault_code == BUS_ADRERR ? "B" : "b");
        } else {
            add("%s", fault_code == SEGV_MAPERR ? "." : fault_code == SEGV_ACCERR ? "S" : "s");
        }
    }
    add(" %016" PRIx64 " |", hash);
    int count = mappings((unsigned long)base, (unsigned long)(base + pages * PAGE), all, 4 * AREA_PAGES);
    for (int i = 0; i < count; i++) {
        strtok(all[i].name, " ");
        add(" %lu+%lu:%s:%s@%lu", (all[i].start - (unsigned long)base) / PAGE, (all[i].end - all[i].start) / PAGE,
            all[i].permissions, all[i].name, all[i].offset / PAGE);
    }
}

// Is there something of a file from here on? (Shared memory has a name, too: that of a file that is gone.)
static int has_file(char *start, long len) {
    static struct mapping all[4 * AREA_PAGES];
    int count = mappings((unsigned long)start, (unsigned long)(start + len), all, 4 * AREA_PAGES);
    for (int i = 0; i < count; i++)
        if (all[i].name[0] == '/' && !strstr(all[i].name, " (deleted)"))
            return 1;
    return 0;
}

// ---- ranges

struct range {
    char *at;
    long len;
};

// Of whole pages, or beginning or ending within one.
static struct range some_range(void) {
    long first = below(AREA_PAGES), count = 1 + below(once_in(3) ? AREA_PAGES : 6);
    if (count > AREA_PAGES - first)
        count = AREA_PAGES - first;
    struct range range = {AREA + first * PAGE, count * PAGE};
    if (once_in(8))
        range.len -= below(PAGE);
    if (once_in(40))
        range.at += 1 + below(PAGE - 1);
    if (once_in(60))
        range.len = 0;
    return range;
}

static void add_call(const char *name, struct range range) { add("%s(%lx, %lx", name, (long)(range.at - AREA), range.len); }
static void add_answer(long result) { add(") = %s", err(result)); }

static const int protections[] = {PROT_READ,
                                  PROT_READ,
                                  PROT_READ,
                                  PROT_READ | PROT_EXEC,
                                  PROT_READ | PROT_EXEC,
                                  PROT_READ | PROT_WRITE,
                                  PROT_READ | PROT_WRITE,
                                  PROT_READ | PROT_WRITE | PROT_EXEC,
                                  PROT_NONE,
                                  PROT_EXEC,
                                  PROT_WRITE};

// ---- steps

static void map_file(void) {
    static const int types[] = {MAP_PRIVATE, MAP_PRIVATE, MAP_PRIVATE, MAP_SHARED, MAP_SHARED, MAP_SHARED_VALIDATE};
    static const int others[] = {0, 0, 0, 0, 0, MAP_POPULATE, MAP_LOCKED, MAP_NORESERVE, MAP_DENYWRITE, MAP_GROWSDOWN, MAP_STACK,
                                 MAP_POPULATE | MAP_NONBLOCK, 0x80000 /* MAP_SYNC */, 0x10000000};
    static const int places[] = {MAP_FIXED, MAP_FIXED, MAP_FIXED, MAP_FIXED, MAP_FIXED_NOREPLACE, 0, -1};
    struct range range = some_range();
    int file = below(file_count), prot = ONE_OF(protections), flags = ONE_OF(types) | ONE_OF(others), place = ONE_OF(places);
    if (once_in(10)) {
        file = code_file;
        prot = PROT_READ | PROT_EXEC;
    }
    long offset = below(files[file].pages + 3) * PAGE;
    if (once_in(2))
        offset = 0;
    if (once_in(50))
        offset += 1 + below(PAGE - 1);
    if (place < 0)
        range.at = NULL;
    else
        flags |= place;
    long result = RAW(SYS_mmap, range.at, range.len, prot, flags, files[file].fd, MAP_OFFSET(offset));
    add("mmap(%lx, %lx, %d, %x, %s, %lx", range.at ? (long)(range.at - AREA) : -1, range.len, prot, flags,
        files[file].name, offset);
    if (failed(result)) {
        add_answer(result);
        return;
    }
    char *at = (char *)result;
    if (at >= AREA && at < AREA + AREA_PAGES * PAGE) {
        add(") = %lx", (long)(at - AREA));
        return;
    }
    add(") = elsewhere");
    add_state(at, pages_of(range.len));
    munmap(at, range.len);
}

static void map_anonymous(void) {
    static const int types[] = {MAP_PRIVATE, MAP_PRIVATE, MAP_SHARED, MAP_PRIVATE | MAP_LOCKED, MAP_PRIVATE | MAP_POPULATE};
    struct range range = some_range();
    int prot = ONE_OF(protections), flags = MAP_ANONYMOUS | MAP_FIXED | ONE_OF(types);
    add_call("mmap", range);
    add(", %d, %x", prot, flags);
    add_answer(RAW(SYS_mmap, range.at, range.len, prot, flags, -1, 0));
}

static void protect(void) {
    struct range range = some_range();
    int prot = ONE_OF(protections);
    if (once_in(30))
        prot |= 0x01000000 /* PROT_GROWSDOWN */;
    if (once_in(60))
        prot |= 0x40;
    add_call("mprotect", range);
    add(", %x", prot);
    add_answer(RAW(SYS_mprotect, range.at, range.len, prot));
}

static void unmap(void) {
    struct range range = some_range();
    add_call("munmap", range);
    add_answer(RAW(SYS_munmap, range.at, range.len));
}

#define DONT_UNMAP 4
static void remap(void) {
    static const int modes[] = {0, MREMAP_MAYMOVE, MREMAP_MAYMOVE | MREMAP_FIXED, MREMAP_MAYMOVE | MREMAP_FIXED,
                                MREMAP_MAYMOVE | DONT_UNMAP, MREMAP_MAYMOVE | MREMAP_FIXED | DONT_UNMAP, MREMAP_FIXED, 8};
    struct range from = some_range(), to = some_range();
    int mode = ONE_OF(modes);
    if (once_in(3))
        to.len = from.len;
    if (has_file(from.at, from.len ? from.len : 1)) {
        if (to.len >= from.len || mode != 0)
            from.len = to.len = PAGE;
        mode &= ~DONT_UNMAP;
    }
    add("mremap(%lx, %lx, %lx, %x, %lx", (long)(from.at - AREA), from.len, to.len, mode, (long)(to.at - AREA));
    long result = RAW(SYS_mremap, from.at, from.len, to.len, mode, to.at);
    char *at = (char *)result;
    if (failed(result)) {
        add_answer(result);
    } else if (at >= AREA && at < AREA + AREA_PAGES * PAGE) {
        add(") = %lx", (long)(at - AREA));
    } else {
        add(") = elsewhere");
        add_state(at, pages_of(to.len));
        munmap(at, to.len);
    }
}

static void advise(void) {
    // Not MADV_FREE: what is there afterwards is the kernel's choice.
    static const int advices[] = {0, 1, 2, 3, 4, 4, 4, 4, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 102, 103, 1000};
    struct range range = some_range();
    int advice = ONE_OF(advices);
    add_call("madvise", range);
    add(", %d", advice);
    add_answer(RAW(SYS_madvise, range.at, range.len, advice));
}

static void synchronize(void) {
    struct range range = some_range();
    int flags = below(8) | (once_in(20) ? 64 : 0);
    add_call("msync", range);
    add(", %x", flags);
    add_answer(RAW(SYS_msync, range.at, range.len, flags));
}

static void lock(void) {
    struct range range = some_range();
    int how = below(4);
    add_call(how == 0 ? "mlock" : how == 1 ? "mlock2" : "munlock", range);
    add_answer(how == 0   ? RAW(SYS_mlock, range.at, range.len)
               : how == 1 ? RAW(SYS_mlock2, range.at, range.len, 1 /* MLOCK_ONFAULT */)
                          : RAW(SYS_munlock, range.at, range.len));
}

static void in_core(void) {
    unsigned char pages[AREA_PAGES + 1] = {0};
    struct range range = some_range();
    // What was never read is in memory by chance.
    long populated = RAW(SYS_madvise, range.at, range.len, 22 /* MADV_POPULATE_READ */);
    long result = RAW(SYS_mincore, range.at, range.len, pages);
    add_call("mincore", range);
    add_answer(result);
    if (!populated && !result)
        for (size_t page = 0; page < pages_of(range.len); page++)
            add("%s%d", page ? "" : " ", pages[page] & 1);
}

static void seal(void) {
    struct range range = some_range();
    add_call("mseal", range);
    add_answer(RAW(462, range.at, range.len, 0));
}

static void name(void) {
    struct range range = some_range();
    add_call("PR_SET_VMA", range);
    add_answer(RAW(SYS_prctl, 0x53564d41, 0, range.at, range.len, "named"));
}

static void store(char *at, long value) {
    int number = sigsetjmp(fault_back, 0);
    if (!number) {
        *(volatile char *)at = value;
        add("store(%lx) ok", (long)(at - AREA));
    } else {
        add("store(%lx) %s %d%s", (long)(at - AREA), number == SIGBUS ? "SIGBUS" : "SIGSEGV", fault_code,
            fault_at == at ? "" : ", DIFFERENT address");
    }
}
static void store_somewhere(void) {
    for (int count = 1 + below(3); count; count--) {
        store(AREA + below(AREA_PAGES * PAGE), below(256));
        add(count > 1 ? ", " : "");
    }
}

// The kernel reads and writes there for the program, by the four ways that it has.
static void by_the_kernel(void) {
    static char bytes[AREA_PAGES * PAGE];
    struct range range = some_range();
    // What a pipe holds.
    if (range.len > 16 * PAGE)
        range.len = 16 * PAGE;
    struct iovec here = {bytes, range.len}, there = {range.at, range.len};
    long done;
    memset(bytes, once_in(2) ? 0 : 'k', range.len);
    switch (below(5)) {
    case 0:
        add_call("write from", range);
        done = RAW(SYS_write, pipes[1], range.at, range.len);
        if (done > 0 && read(pipes[0], bytes, done) != done)
            broken("pipe");
        break;
    case 1:
        add_call("read into", range);
        done = RAW(SYS_read, zero_fd, range.at, range.len);
        break;
    case 2:
        add_call("process_vm_readv", range);
        done = RAW(SYS_process_vm_readv, getpid(), &here, 1, &there, 1, 0);
        break;
    case 3:
        add_call("process_vm_writev", range);
        done = RAW(SYS_process_vm_writev, getpid(), &here, 1, &there, 1, 0);
        break;
    default:
        add_call("/proc/self/mem", range);
        done = pwrite(memory_fd, bytes, range.len, (off_t)(unsigned long)range.at);
        done = done < 0 ? -errno : done;
    }
    if (failed(done))
        add_answer(done);
    else
        add(") = %lx %016" PRIx64, done, hashed(HASH_START, bytes, done));
}

// Where a page is a function that returns its number: mov $NUMBER, %eax; ret.
static void execute(void) {
#ifdef __x86_64__
    unsigned char *at = (unsigned char *)AREA + below(AREA_PAGES) * PAGE;
    add("execute(%lx) ", (long)((char *)at - AREA));
    int number = fault_of((char *)at);
    if (number || at[0] != 0xb8 || at[5] != 0xc3) {
        add("no function");
        return;
    }
    number = sigsetjmp(fault_back, 0);
    if (number)
        add("%s %d", number == SIGBUS ? "SIGBUS" : "SIGSEGV", fault_code);
    else
        add("%d", ((int (*)(void))at)());
#else
    add("execute");
#endif
}

static void change_own_file(void) {
    long size = below(OWN_BYTES + PAGE);
    add("ftruncate(%lx) %s", size, err(RAW(SYS_ftruncate, own_fd, size)));
}

static void steps(int count, const char *who);

// The child goes on for a while; the parent has what it had.
static void divide(void) {
    int count = 1 + below(4);
    uint64_t mine = next();
    add("fork");
    end_line();
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        memory_fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
        chance = mine;
        steps(count, "child");
        _exit(0);
    }
    int status = 0;
    if (waitpid(pid, &status, 0) != pid)
        broken("waitpid");
    add("  child %s", ending(status));
}

static const struct {
    void (*run)(void);
    int weight;
} kinds[] = {{map_file, 24}, {protect, 14}, {unmap, 3},   {remap, 9},         {advise, 12},          {store_somewhere, 10}, {by_the_kernel, 6},
             {lock, 4},      {in_core, 3},  {execute, 4}, {synchronize, 3},   {map_anonymous, 4},    {divide, 2},           {name, 1},
             {change_own_file, 1}};

static void steps(int count, const char *who) {
    int total = 0;
    for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++)
        total += kinds[kind].weight;
    for (int step = 0; step < count; step++) {
        add("%s %d: ", who, step);
        int at = below(total), kind = 0;
        while (at >= kinds[kind].weight)
            at -= kinds[kind++].weight;
        if (once_in(300))
            seal();
        else
            kinds[kind].run();
        if (once_in(2) || step == count - 1)
            add_state(AREA, AREA_PAGES);
        end_line();
    }
}

static void sequence(uint64_t seed, long number, int count) {
    chance = seed * 0x2545f4914f6cdd1d + (uint64_t)number;
    next();
    fill_own_file();
    if (mmap(AREA, AREA_PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != AREA)
        broken("area");
    if (once_in(4))
        munmap(AREA, AREA_PAGES * PAGE);
    if (once_in(4) && (setgid(65534) || setuid(65534) || prctl(PR_SET_DUMPABLE, 1)))
        broken("nobody");
    memory_fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
    steps(count, "step");
}

int main(int argc, char **argv) {
    if (argc != 5)
        broken("arguments");
    uint64_t seed = strtoull(argv[1], NULL, 0);
    long first = strtol(argv[2], NULL, 0), count = strtol(argv[3], NULL, 0);
    catch_all_faults();
    open_files();
    for (long number = first; number < first + count; number++) {
        add("sequence %ld", number);
        end_line();
        pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            sequence(seed, number, strtol(argv[4], NULL, 0));
            _exit(0);
        }
        int status = 0;
        if (waitpid(pid, &status, 0) != pid)
            broken("waitpid");
        add("  %s", ending(status));
        end_line();
    }
    add("end");
    end_line();
}
