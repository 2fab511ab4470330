// close(2), close_range(2), dup2(2), dup3(2), fcntl(2) on every number there is, as programs do that want to know what they
// have open; afterwards files are mapped and programs started as ever.
#include "lines.h"
#include <sys/ioctl.h>
#include <sys/uio.h>

#define HIGHEST 1023
#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE 2
#define CLOSE_RANGE_CLOEXEC 4
#endif

static const char *program;

// The numbers that /proc/self/fd has, but for the one that it is read by.
static const char *open_numbers(void) {
    static char text[3000];
    struct words words = {.len = 0};
    char word[64];
    DIR *dir = opendir("/proc/self/fd");
    if (!dir)
        return "cannot tell";
    char is_open[2 * HIGHEST] = {0};
    for (struct dirent *entry; (entry = readdir(dir));) {
        int number = atoi(entry->d_name);
        if (entry->d_name[0] != '.' && number != dirfd(dir) && number < 2 * HIGHEST && !of_session(number))
            is_open[number] = 1;
    }
    closedir(dir);
    for (int from = 0, to; from < 2 * HIGHEST; from = to + 1) {
        to = from;
        if (!is_open[from])
            continue;
        while (is_open[to + 1] || of_session(to + 1))
            to++;
        while (of_session(to) && to > from)
            to--;
        snprintf(word, sizeof word, from == to ? "%d" : "%d-%d", from, to);
        add_word(&words, word);
    }
    snprintf(text, sizeof text, "%s", all_words(&words));
    return text;
}

static const char *number_name(int number) {
    static char text[16];
    snprintf(text, sizeof text, "%d", number);
    return of_session(number) ? "among the session's" : text;
}

// What works now: the lowest free numbers, mapping, starting a program.
static void works(const char *scenario, const char *what) {
    char name[128], also[128], started[128], path[] = "/var/files/mixed";
    snprintf(name, sizeof name, "%s, then", scenario);
    snprintf(also, sizeof also, "%s, then also", scenario);
    snprintf(started, sizeof started, "%s, then a program", scenario);
    int fd = open(path, O_RDONLY | O_CLOEXEC), second = open(path, O_RDONLY | O_CLOEXEC);
    const char *mapped = "not open";
    if (second >= 0)
        close(second);
    if (fd >= 0) {
        struct mapped file = {fd, HASH_START};
        char page[PAGE];
        file_page(fd, 0, page);
        file.hash = hashed(HASH_START, page, PAGE);
        mapped = maps(&file);
        close(fd);
    }
    line(name, "%s, open %s, free %s", what, open_numbers(), number_name(fd));
    line(also, "free %s, %s", number_name(second), mapped);
    pid_t child = fork();
    if (child == 0) {
        execl(program, program, "started", started, NULL);
        _exit(errno == EMFILE ? 90 : 91);
    }
    const char *end = awaited(child);
    if (strcmp(end, "exit 0"))
        line(started, "%s", end);
}

static int started(const char *scenario) {
    int fd = open("/var/files/mixed", O_RDONLY | O_CLOEXEC);
    struct mapped file = {fd, HASH_START};
    char page[PAGE];
    if (fd >= 0)
        file_page(fd, 0, page);
    file.hash = hashed(HASH_START, page, PAGE);
    const char *mapped = fd < 0 ? "not open" : maps(&file);
    close(fd);
    line(scenario, "open %s, free %s, %s", open_numbers(), number_name(fd), mapped);
    return 0;
}

// So that there is something to close. Natively this takes the session's numbers too, as a session has.
static void fill(int from, int to) {
    for (int number = from; number <= to; number++)
        if (dup2(0, number) != number && !of_session(number))
            broken("fill");
}
static void fill_as_session(void) { fill(SESSION_FD_MIN, SESSION_FD_MAX); }

#define EACH(number, from) for (int number = from; number <= HIGHEST; number++) if (!of_session(number))

static void close_each(const char *scenario) {
    struct words words = {.len = 0};
    fill(5, 20);
    fill(200, 400);
    EACH(number, 3)
    add_word(&words, err(RAW(SYS_close, number)));
    works(scenario, all_words(&words));
}
static void close_down(const char *scenario) {
    struct words words = {.len = 0};
    fill(200, 300);
    for (int number = HIGHEST; number >= 3; number--)
        if (of_session(number))
            close(number);
        else
            add_word(&words, err(RAW(SYS_close, number)));
    works(scenario, all_words(&words));
}
static void close_each_twice(const char *scenario) {
    for (int i = 0; i < 2; i++)
        for (int number = 3; number <= HIGHEST; number++)
            close(number);
    works(scenario, "closed");
}
static void close_all_in_range(const char *scenario) {
    fill(3, 300);
    works(scenario, err(RAW(SYS_close_range, 3, ~0u, 0)));
}
static void range_cloexec(const char *scenario) {
    fill(3, 300);
    works(scenario, err(RAW(SYS_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC)));
}
static void range_unshare(const char *scenario) {
    fill(3, 300);
    works(scenario, err(RAW(SYS_close_range, 3, ~0u, CLOSE_RANGE_UNSHARE)));
}
static void range_unshare_cloexec(const char *scenario) {
    fill(3, 300);
    works(scenario, err(RAW(SYS_close_range, 3, ~0u, CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC)));
}
static void range_parts(const char *scenario) {
    struct words words = {.len = 0};
    fill(3, 600);
    const unsigned min = SESSION_FD_MIN, max = SESSION_FD_MAX;
    const unsigned ranges[][3] = {{5, 7, 0},      {10, max - 1, 0}, {max - 2, max, 0}, {max, max, 0}, {max - 1, max + 2, 0},
                                  {400, 399, 0},  {~0u, ~0u, 0},    {500, 500, 8},  {501, 502, 1}, {503, 505, 4},
                                  {506, 1u << 31, 4}, {min - 9, max, 4}, {0, 0, 4},  {599, 602, 2}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        add_word(&words, err(RAW(SYS_close_range, ranges[i][0], ranges[i][1], ranges[i][2])));
    // The upper halves are nobody's.
    add_word(&words, err(RAW(SYS_close_range, 0x700000008, 0x100000009, 0x500000000)));
    works(scenario, all_words(&words));
}
#ifdef __GLIBC__
static void close_from(const char *scenario) {
    fill(3, 300);
    closefrom(3);
    works(scenario, "closed");
}
#endif
static void close_by_list(const char *scenario) {
    // As programs did before there was close_range(2).
    fill(3, 50);
    DIR *dir = opendir("/proc/self/fd");
    for (struct dirent *entry; (entry = readdir(dir));) {
        int number = atoi(entry->d_name);
        if (number > 2 && number != dirfd(dir))
            close(number);
    }
    closedir(dir);
    works(scenario, "closed");
}

static void dup_each(const char *scenario, int cloexec, int highest) {
    struct words words = {.len = 0};
    for (int number = 3; number <= highest; number++) {
        long result = cloexec ? RAW(SYS_dup3, 0, number, O_CLOEXEC) : RAW(SYS_dup2, 0, number);
        if (!of_session(number))
            add_word(&words, failed(result) ? err(result) : result == number ? "ok" : "DIFFERENT");
    }
    works(scenario, all_words(&words));
}
static void dup2_each(const char *scenario) { dup_each(scenario, 0, 300); }
static void dup3_each(const char *scenario) { dup_each(scenario, 1, 300); }
static void dup2_and_close(const char *scenario) {
    for (int i = 0; i < 3; i++)
        for (int number = 3; number <= 300; number++) {
            dup2(1, number);
            close(number);
        }
    works(scenario, "closed");
}

static void cloexec_each(const char *scenario) {
    struct words words = {.len = 0};
    fill(3, 30);
    EACH(number, 3)
    add_word(&words, err(RAW(SYS_fcntl, number, F_SETFD, FD_CLOEXEC)));
    for (int number = SESSION_FD_MIN; number <= SESSION_FD_MAX; number++)
        fcntl(number, F_SETFD, FD_CLOEXEC);
    works(scenario, all_words(&words));
}
static void cloexec_each_by_ioctl(const char *scenario) {
    struct words words = {.len = 0};
    fill(3, 30);
    EACH(number, 3)
    add_word(&words, err(RAW(SYS_ioctl, number, FIOCLEX)));
    for (int number = SESSION_FD_MIN; number <= SESSION_FD_MAX; number++)
        ioctl(number, FIOCLEX);
    works(scenario, all_words(&words));
}
static void inherit_each(const char *scenario) {
    struct words words = {.len = 0};
    fill(3, 30);
    for (int number = 3; number <= 30; number++)
        fcntl(number, F_SETFD, FD_CLOEXEC);
    for (int number = 3; number <= HIGHEST; number++) {
        long result = RAW(SYS_fcntl, number, F_SETFD, 0);
        if (!of_session(number))
            add_word(&words, err(result));
    }
    works(scenario, all_words(&words));
}

// Who is open, by every way to ask.
static void asked(const char *scenario) {
    struct words by_flags = {.len = 0}, by_stat = {.len = 0}, by_poll = {.len = 0};
    struct stat stat;
    fill(7, 9);
    EACH(number, 3) {
        struct pollfd poll = {number, 0, 0};
        add_word(&by_flags, err(RAW(SYS_fcntl, number, F_GETFD)));
        add_word(&by_stat, err(RAW(SYS_fstat, number, &stat)));
        raw_poll(&poll, 1, 0);
        add_word(&by_poll, poll.revents & POLLNVAL ? "not" : "open");
    }
    char what[9100];
    snprintf(what, sizeof what, "%s; %s; %s", all_words(&by_flags), all_words(&by_stat), all_words(&by_poll));
    works(scenario, what);
}

static void lowest_free(const char *scenario) {
    struct words words = {.len = 0};
    int next = 3;
    fill_as_session();
    for (int i = 0; i < 200; i++, next++) {
        while (of_session(next))
            next++;
        add_word(&words, dup(0) == next ? "ok" : "DIFFERENT");
    }
    close(100);
    close(50);
    int first = dup(0), second = dup(0);
    const int from[] = {3, 10, 207, 220, 239, 256, 300, 1000, HIGHEST};
    for (size_t i = 0; i < sizeof from / sizeof *from; i++) {
        int number = fcntl(0, i % 2 ? F_DUPFD : F_DUPFD_CLOEXEC, from[i]);
        char word[32];
        snprintf(word, sizeof word, "%d", number);
        add_word(&words, word);
    }
    char what[3100];
    snprintf(what, sizeof what, "%s, %d %d", all_words(&words), first, second);
    works(scenario, what);
}

static void limited(const char *scenario, rlim_t limit) {
    struct words words = {.len = 0};
    struct rlimit before, set;
    char word[32];
    fill_as_session();
    getrlimit(RLIMIT_NOFILE, &before);
    set = (struct rlimit){limit, before.rlim_max};
    add_word(&words, err(setrlimit(RLIMIT_NOFILE, &set) ? -errno : 0));
    for (rlim_t i = 0; i < limit + 2; i++) {
        long number = RAW(SYS_dup, 0);
        snprintf(word, sizeof word, "%ld", number);
        add_word(&words, failed(number) ? err(number) : word);
    }
    add_word(&words, err(RAW(SYS_dup2, 0, limit)));
    add_word(&words, err(RAW(SYS_dup2, 0, limit - 1)));
    add_word(&words, err(RAW(SYS_fcntl, 0, F_DUPFD, limit)));
    for (rlim_t number = limit / 2 > 3 ? limit / 2 : 3; number < limit; number++)
        close(number);
    works(scenario, all_words(&words));
}
static void limit_3(const char *scenario) { limited(scenario, 3); }
static void limit_4(const char *scenario) { limited(scenario, 4); }
static void limit_10(const char *scenario) { limited(scenario, 10); }
static void limit_64(const char *scenario) { limited(scenario, 64); }
static void limit_200(const char *scenario) { limited(scenario, 200); }
static void limit_raised(const char *scenario) {
    struct rlimit set;
    getrlimit(RLIMIT_NOFILE, &set);
    set.rlim_cur = set.rlim_max < 2000 ? set.rlim_max : 2000;
    setrlimit(RLIMIT_NOFILE, &set);
    int highest = dup2(0, 1900), above = dup2(0, set.rlim_cur);
    char what[64];
    snprintf(what, sizeof what, "%d %s", highest, err(above < 0 ? -errno : 0));
    works(scenario, what);
}

static void errors(const char *scenario) {
    struct words words = {.len = 0};
    int fd = dup(0);
    const long calls[][4] = {{SYS_dup2, 99, 3, 0},        {SYS_dup2, 0, -1, 0},       {SYS_dup2, 0, 1 << 30, 0},
                             {SYS_dup2, fd, fd, 0},       {SYS_dup2, 99, 99, 0},      {SYS_dup3, fd, fd, 0},
                             {SYS_dup3, 0, 20, 1},        {SYS_dup3, 99, 20, 0},      {SYS_dup3, 0, 20, O_CLOEXEC | 1},
                             {SYS_close, -1, 0, 0},       {SYS_close, 1 << 30, 0, 0}, {SYS_close, 99, 0, 0},
                             {SYS_close, ~0u, 0, 0},      {SYS_fcntl, 99, F_SETFD, 1}, {SYS_fcntl, -1, F_SETFD, 1},
                             {SYS_fcntl, fd, F_SETFD, 99}, {SYS_fcntl, fd, F_GETFD, 0}, {SYS_fcntl, fd, 9999, 0},
                             {SYS_dup2, -1, -1, 0},       {SYS_dup, 99, 0, 0},
                             // Of the session's.
                             {SYS_dup3, SESSION_FD_MAX, SESSION_FD_MAX, 0},
                             {SYS_dup3, 0, SESSION_FD_MAX, 1},
                             {SYS_dup3, 99, SESSION_FD_MAX, O_CLOEXEC},
                             {SYS_close_range, SESSION_FD_MAX, SESSION_FD_MAX, 1},
                             {SYS_close_range, SESSION_FD_MAX, SESSION_FD_MAX, 1 << 9},
                             {SYS_close_range, SESSION_FD_MAX, SESSION_FD_MAX - 1, 0},
#if __SIZEOF_LONG__ == 8
                             // The upper halves are nobody's.
                             {SYS_dup2, 0x7700000000 | fd, 0x7700000000 | 60, 0}, {SYS_close, 0x7700000000 | 60, 0, 0},
                             {SYS_fcntl, 0x7700000000 | fd, 0x7700000000 | F_SETFD, 0},
#endif
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        long result = RAW(calls[i][0], calls[i][1], calls[i][2], calls[i][3]);
        char word[32];
        snprintf(word, sizeof word, failed(result) ? "%s" : "%.0s%ld", err(result), result);
        add_word(&words, word);
    }
    works(scenario, all_words(&words));
}

// ---- one table for several

static void *closer(void *flags) {
    RAW(SYS_close_range, 3, ~0u, flags);
    return NULL;
}
static void threads(const char *scenario) {
    pthread_t other;
    fill(5, 20);
    pthread_create(&other, NULL, closer, (void *)CLOSE_RANGE_UNSHARE);
    pthread_join(other, NULL);
    char unshared[256];
    snprintf(unshared, sizeof unshared, "unshared %s", open_numbers());
    pthread_create(&other, NULL, closer, NULL);
    pthread_join(other, NULL);
    works(scenario, unshared);
}
static void vfork_child(const char *scenario) {
    fill(5, 20);
    pid_t child = vfork();
    if (child == 0) {
        RAW(SYS_close_range, 3, ~0u, 0);
        RAW(SYS_dup2, 0, 9);
        _exit(0);
    }
    works(scenario, awaited(child));
}
static int in_clone(void *unused) {
    (void)unused;
    for (int number = 3; number <= HIGHEST; number++)
        close(number);
    return 0;
}
static void shared_table(const char *scenario) {
    static char stack[65536];
    fill(5, 20);
    pid_t child = clone(in_clone, stack + sizeof stack, CLONE_VM | CLONE_FILES | SIGCHLD, NULL);
    works(scenario, awaited(child));
}
static void unshared(const char *scenario) {
    fill(5, 20);
    works(scenario, err(unshare(CLONE_FILES) ? -errno : 0));
}

// A descriptor that comes in a message.
static void passed(const char *scenario) {
    int sockets[2], fd = open_file("/var/files/mixed"), got = -1;
    char byte = 'x', control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec bytes = {&byte, 1};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets))
        broken("socketpair");
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    long sent = sendmsg(sockets[0], &message, 0);
    close(fd);
    long received = recvmsg(sockets[1], &message, 0);
    memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof got);
    size_t pages = pages_of(size_of(got));
    char *at = mmap(NULL, pages * PAGE, PROT_READ, MAP_PRIVATE, got, 0), what[256];
    snprintf(what, sizeof what, "%ld %ld %d %s", sent, received, got, seen(at, pages, got, 0));
    works(scenario, what);
}

// Programs that are started with less than they expect: nothing of the session's takes the place of what is closed.
static void without_standard(const char *scenario) {
    close(0);
    close(2);
    works(scenario, "closed");
}

int main(int argc, char **argv) {
    program = argv[0];
    if (argc == 3)
        return started(argv[2]);
    catch_faults();
    // What the test happens to have been started with.
    EACH(number, 3)
    close(number);
    apart("close each", close_each);
    apart("close each, from the highest", close_down);
    apart("close each twice", close_each_twice);
    apart("close_range", close_all_in_range);
    apart("close_range, CLOEXEC", range_cloexec);
    apart("close_range, UNSHARE", range_unshare);
    apart("close_range, UNSHARE and CLOEXEC", range_unshare_cloexec);
    apart("close_range, parts", range_parts);
#ifdef __GLIBC__
    apart("closefrom", close_from);
#endif
    apart("close what /proc lists", close_by_list);
    apart("dup2 onto each", dup2_each);
    apart("dup3 onto each", dup3_each);
    apart("dup2 onto each and close", dup2_and_close);
    apart("close-on-exec for each", cloexec_each);
    apart("close-on-exec for each by ioctl", cloexec_each_by_ioctl);
    apart("not close-on-exec for each", inherit_each);
    apart("asked for each", asked);
    apart("lowest free", lowest_free);
    apart("limit 3", limit_3);
    apart("limit 4", limit_4);
    apart("limit 10", limit_10);
    apart("limit 64", limit_64);
    apart("limit 200", limit_200);
    apart("limit raised", limit_raised);
    apart("errors", errors);
    apart("threads", threads);
    apart("a vfork child", vfork_child);
    apart("a child with the same table", shared_table);
    apart("unshared", unshared);
    apart("passed in a message", passed);
    apart("without standard descriptors", without_standard);
    line("end", "of descriptors");
}
