// A long run: soak drive LANES ROUNDS EXECS SEED. So many processes ("lanes") start programs of this session, all of them this
// one in other roles and linked in every way: alone, in pipelines and chains, by fork, vfork and posix_spawn, from threads,
// by scripts, of the image and of the host, signalled, stopped and killed while they start. What each says and how each
// ends is compared with what it must be.
//
// After each of ROUNDS rounds of EXECS execs (of all lanes together) nothing runs but the driver and the lanes, which wait:
// "round ROUND EXECS WRONG" is printed and a line of standard input awaited; tests/soak.rs measures meanwhile.
#include "lines.h"
#include <spawn.h>

extern char **environ;
#define OUTSIDE "/tmp/outside"
#define SCRIPT "/tmp/script"
#define MOST_ARGS 24
#define MOST_OUTPUT (1 << 16)

static uint64_t chance;
static uint64_t next(void) {
    uint64_t z = chance += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}
static long below(long count) { return (long)(next() % (uint64_t)count); }

static const char *const all_programs[] = {"/bin/static", "/bin/dynamic", "/bin/musl-static", "/bin/musl-dynamic"};
static const char *programs[4];
static int program_count;
static const char *some_program(void) { return programs[below(program_count)]; }

static void find_programs(void) {
    for (int i = 0; i < 4; i++)
        if (!access(all_programs[i], X_OK))
            programs[program_count++] = all_programs[i];
    if (!program_count)
        broken("/bin");
}

// ---- the programs

// A page of data, bss and constants each, and a mapped file are what they must be.
static volatile int data[1024] = {[0] = 1, [1023] = 2};
static volatile char bss[3 * PAGE];
static const char constants[PAGE] = {[0] = 'a', [PAGE - 1] = 'z'};

static const char *memory(void) {
    int sum = 0;
    for (int i = 0; i < 1024; i++)
        sum += data[i];
    for (size_t i = 0; i < sizeof bss; i += 64)
        sum += bss[i];
    sum += ((const volatile char *)constants)[0] + ((const volatile char *)constants)[PAGE - 1];
    memset((void *)bss, 1, sizeof bss);
    data[512] = 3;
    return sum == 3 + 'a' + 'z' ? "right" : "DIFFERENT";
}

static const char *mapped(void) {
    struct mapped file = remember("/var/files/direct");
    const char *text = maps(&file);
    close(file.fd);
    return text;
}

static uint64_t hash_of(char *const *args) {
    uint64_t hash = HASH_START;
    for (; *args; args++)
        hash = hashed(hash, *args, strlen(*args) + 1);
    return hash;
}
static int code_of(uint64_t hash) { return 64 + hash % 64; }

// What `answer` says: of its arguments, program, descriptors and signal mask.
static int expected(char *text, const char *program, char *const *args, uint64_t mask) {
    return snprintf(text, MOST_OUTPUT, "%016" PRIx64 " %s fds 0 1 2 mask %" PRIx64 " memory right mapped\n",
                    hash_of(args), program, mask);
}

static int answer(char **argv) {
    char exe[256], text[1024];
    ssize_t len = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[len < 0 ? 0 : len] = 0;
    int at = snprintf(text, sizeof text, "%016" PRIx64 " %s fds", hash_of(argv + 1), exe);
    for (int fd = 0; fd < 1024; fd++)
        if (!of_session(fd) && fcntl(fd, F_GETFD) >= 0 && at < (int)sizeof text - 100)
            at += sprintf(text + at, " %d", fd);
    const char *is_right = memory();
    at += sprintf(text + at, " mask %" PRIx64 " memory %s %s\n", mask_now() & ~BIT(SIGSYS), is_right, mapped());
    return write(1, text, at) == at ? code_of(hash_of(argv + 1)) : 97;
}

static char stream_byte(uint64_t seed, size_t at) { return (char)((seed + at * 131) >> (at % 13)); }

// `source SEED LEN` writes so many bytes; `filter KEY` changes each that it reads.
static int source(uint64_t seed, size_t len) {
    char bytes[3000];
    for (size_t at = 0; at < len;) {
        size_t count = len - at < sizeof bytes ? len - at : sizeof bytes;
        for (size_t i = 0; i < count; i++)
            bytes[i] = stream_byte(seed, at + i);
        ssize_t written = write(1, bytes, count);
        if (written <= 0)
            return 97;
        at += written;
    }
    return 0;
}
static int filter(int key) {
    char bytes[4096];
    for (ssize_t len; (len = read(0, bytes, sizeof bytes)) != 0;) {
        if (len < 0)
            return 97;
        for (ssize_t i = 0; i < len; i++)
            bytes[i] ^= key;
        for (ssize_t at = 0, written; at < len; at += written)
            if ((written = write(1, bytes + at, len - at)) <= 0)
                return 97;
    }
    return 0;
}

// `threads PROGRAM ARGS...`: they map files, and then one of them executes.
static volatile int maps_wrong;
static void *mapping_thread(void *unused) {
    for (int i = 0; i < 5; i++)
        if (strcmp(mapped(), "mapped"))
            maps_wrong = 1;
    return unused;
}
static void *waiting_thread(void *unused) {
    for (;;)
        pause();
    return unused;
}
static void *executing_thread(void *argv) {
    char **args = argv;
    execv(args[0], args);
    _exit(96);
}
static int threads(char **argv) {
    pthread_t all[3], last;
    for (int i = 0; i < 3; i++)
        if (pthread_create(&all[i], NULL, mapping_thread, NULL))
            return 95;
    for (int i = 0; i < 3; i++)
        pthread_join(all[i], NULL);
    if (maps_wrong || pthread_create(&all[0], NULL, waiting_thread, NULL) ||
        pthread_create(&last, NULL, executing_thread, argv + 2))
        return 94;
    pthread_join(last, NULL);
    return 93;
}

// `chain COUNT PROGRAM ARGS...`: executes each of the programs in turn, and then that.
static int chain(char **argv) {
    int left = atoi(argv[2]);
    char number[16];
    if (left == 0) {
        execv(argv[3], argv + 3);
        return 96;
    }
    find_programs();
    snprintf(number, sizeof number, "%d", left - 1);
    argv[2] = number;
    argv[0] = (char *)programs[left % program_count];
    execv(argv[0], argv);
    return 96;
}

// `signals`: acknowledges each SIGUSR1, from the handler, and dies of SIGTERM.
static void acknowledge(int number) {
    (void)number;
    if (write(1, strcmp(mapped(), "mapped") ? "!" : ".", 1) != 1)
        _exit(97);
}
static int signals(void) {
    signal(SIGUSR1, acknowledge);
    if (write(1, "r", 1) != 1)
        return 97;
    for (;;)
        pause();
}

// ---- a lane

static long execs, wrong;

static void check(int is_right, const char *what, const char *found) {
    if (is_right)
        return;
    wrong++;
    line("wrong", "%s: %.3000s", what, found);
}

enum how { FORK, VFORK, SPAWN, HOWS };
struct child {
    pid_t pid;
    int out;
};

// Starts a program with `in` as its standard input, if there is one, and a pipe as its output; `mask` only by fork.
static struct child start(enum how how, const char *path, char *const *args, int in, uint64_t mask) {
    struct child child;
    int pipes[2];
    if (pipe2(pipes, O_CLOEXEC))
        broken("pipe");
    if (how == SPAWN) {
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, pipes[1], 1);
        if (in >= 0)
            posix_spawn_file_actions_adddup2(&actions, in, 0);
        if (posix_spawn(&child.pid, path, &actions, NULL, args, environ))
            broken("posix_spawn");
        posix_spawn_file_actions_destroy(&actions);
    } else {
        child.pid = how == FORK ? fork() : vfork();
        if (child.pid == 0) {
            if (dup2(pipes[1], 1) != 1 || (in >= 0 && dup2(in, 0) != 0))
                _exit(92);
            if (how == FORK)
                mask_set(mask);
            execve(path, args, environ);
            _exit(96);
        }
        if (child.pid < 0)
            broken("fork");
    }
    close(pipes[1]);
    child.out = pipes[0];
    return child;
}

// All that it says, and how it ends.
static char output[MOST_OUTPUT], wanted[MOST_OUTPUT];
// -1 is the only child that there is.
static int status_of(pid_t pid) {
    int status = 0;
    pid_t ended = waitpid(pid, &status, 0);
    if (ended < 0 || (pid > 0 && ended != pid))
        broken("waitpid");
    return status;
}
static int outcome(struct child child, size_t *len) {
    ssize_t got;
    *len = 0;
    while ((got = read(child.out, output + *len, sizeof output - 1 - *len)) > 0)
        *len += got;
    output[*len] = 0;
    close(child.out);
    return status_of(child.pid);
}

// Arguments of `answer`, behind `before` that are there.
static char words[MOST_ARGS][24], long_word[20000];
static char *const *some_args(char **args, int before) {
    int count = below(MOST_ARGS - before - 3);
    args[before++] = "answer";
    for (int i = 0; i < count; i++) {
        snprintf(words[i], sizeof words[i], "%" PRIx64, next());
        args[before++] = words[i];
    }
    if (below(20) == 0) {
        memset(long_word, 'x', sizeof long_word - 1);
        args[before++] = long_word;
    }
    args[before] = NULL;
    return args;
}

static void check_answer(const char *what, struct child child, const char *exe, char *const *args, uint64_t mask) {
    size_t len;
    int status = outcome(child, &len);
    expected(wanted, exe, args, mask);
    check(!strcmp(output, wanted), what, output);
    check(WIFEXITED(status) && WEXITSTATUS(status) == code_of(hash_of(args)), what, ending(status));
    execs++;
}

static void one_answer(void) {
    char *args[MOST_ARGS];
    enum how how = below(HOWS);
    uint64_t mask = how == FORK && below(2) ? BIT(SIGUSR2) | BIT(SIGCHLD) : 0;
    const char *path = some_program(), *exe = path;
    some_args(args, 1);
    switch (below(8)) {
    case 0: // Of the host.
        path = exe = OUTSIDE;
        break;
    case 1: { // #!/bin/static answer
        // The arguments of the program are then: answer SCRIPT ARGS...
        char *seen[MOST_ARGS + 2] = {"answer", SCRIPT};
        memcpy(seen + 2, args + 1, sizeof args - sizeof *args);
        args[0] = "ignored";
        check_answer("script", start(how, SCRIPT, args, -1, mask), programs[0], seen, mask);
        return;
    }
    }
    args[0] = (char *)path;
    check_answer("answer", start(how, path, args, -1, mask), exe, args + 1, mask);
}

static void pipeline(void) {
    char seed[24], len[24], keys[2][8];
    uint64_t seed_number = next();
    size_t len_number = below(MOST_OUTPUT - 1), got, mistakes = 0;
    snprintf(seed, sizeof seed, "%" PRIu64, seed_number);
    snprintf(len, sizeof len, "%zu", len_number);
    char *args[] = {(char *)some_program(), "source", seed, len, NULL};
    struct child all[3];
    int key = 0;
    all[0] = start(below(HOWS), args[0], args, -1, 0);
    for (int i = 1; i < 3; i++) {
        int number = below(256);
        key ^= number;
        snprintf(keys[i - 1], sizeof keys[0], "%d", number);
        char *filter_args[] = {(char *)some_program(), "filter", keys[i - 1], NULL};
        all[i] = start(below(HOWS), filter_args[0], filter_args, all[i - 1].out, 0);
        close(all[i - 1].out);
    }
    int status = outcome(all[2], &got);
    for (size_t at = 0; at < got; at++)
        mistakes += output[at] != (char)(stream_byte(seed_number, at) ^ key);
    check(got == len_number && !mistakes, "pipeline", got == len_number ? "other bytes" : "another length");
    check(status == 0, "pipeline", ending(status));
    for (int i = 0; i < 2; i++) {
        status = status_of(all[i].pid);
        check(status == 0, "pipeline", ending(status));
    }
    execs += 3;
}

static void by_another(const char *role, int count) {
    char number[16], *args[MOST_ARGS + 8] = {(char *)some_program(), (char *)role};
    int at = 2;
    if (count) {
        snprintf(number, sizeof number, "%d", count);
        args[at++] = number;
    }
    const char *last = args[at++] = (char *)some_program();
    some_args(args, at);
    check_answer(role, start(below(HOWS), args[0], args, -1, 0), last, args + at, 0);
    execs += 1 + count;
}

static void signalled(void) {
    char *args[] = {(char *)some_program(), "signals", NULL}, byte = 0;
    struct child child = start(below(HOWS), args[0], args, -1, 0);
    check(read(child.out, &byte, 1) == 1 && byte == 'r', "signals", "not ready");
    for (int count = below(5); count; count--) {
        kill(child.pid, SIGUSR1);
        byte = 0;
        check(read(child.out, &byte, 1) == 1 && byte == '.', "signals", "a handler");
    }
    kill(child.pid, SIGTERM);
    size_t len;
    int status = outcome(child, &len);
    check(len == 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM, "signals", ending(status));
    execs++;
}

static void a_moment(void) {
    long nanoseconds = below(1500000);
    if (nanoseconds > 100000)
        nanosleep(&(struct timespec){0, nanoseconds}, NULL);
}

// Killed or stopped wherever it is: before, in or behind the exec.
static void killed(void) {
    char *args[] = {(char *)some_program(), "signals", NULL};
    struct child child = start(FORK, args[0], args, -1, 0);
    a_moment();
    kill(child.pid, SIGKILL);
    size_t len;
    int status = outcome(child, &len);
    check(len <= 1 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "killed", ending(status));
    // What has not said that it is ready may not have been executed.
    execs += len;
}
static void stopped(void) {
    char *args[MOST_ARGS] = {(char *)some_program()};
    some_args(args, 1);
    struct child child = start(FORK, args[0], args, -1, 0);
    for (int i = 0; i < 3; i++) {
        a_moment();
        kill(child.pid, SIGSTOP);
        sched_yield();
        kill(child.pid, SIGCONT);
    }
    check_answer("stopped", child, args[0], args + 1, 0);
}

// What cannot be executed leaves the process as it was.
static void refused(void) {
    char *args[MOST_ARGS] = {(char *)some_program()};
    int pipes[2];
    some_args(args, 1);
    if (pipe2(pipes, O_CLOEXEC))
        broken("pipe");
    pid_t pid = fork();
    if (pid == 0) {
        dup2(pipes[1], 1);
        if (RAW(SYS_execve, "/bin/none", args, environ) != -ENOENT || RAW(SYS_execve, "/bin", args, environ) != -EACCES ||
            RAW(SYS_execve, "/var/files/direct", args, environ) != -EACCES || strcmp(mapped(), "mapped"))
            _exit(91);
        execve(args[0], args, environ);
        _exit(96);
    }
    close(pipes[1]);
    check_answer("refused", (struct child){pid, pipes[0]}, args[0], args + 1, 0);
}

// The parent is gone; the lane is the reaper.
static void orphan(void) {
    char *args[MOST_ARGS] = {(char *)some_program()};
    int pipes[2];
    some_args(args, 1);
    if (pipe2(pipes, O_CLOEXEC))
        broken("pipe");
    pid_t pid = fork();
    if (pid == 0) {
        pid_t child = fork();
        if (child == 0) {
            setsid();
            dup2(pipes[1], 1);
            execve(args[0], args, environ);
            _exit(96);
        }
        _exit(child < 0);
    }
    close(pipes[1]);
    int status = status_of(pid);
    check(status == 0, "orphan", ending(status));
    check_answer("orphan", (struct child){-1, pipes[0]}, args[0], args + 1, 0);
}

static void at_once(void) {
    struct child all[6];
    char *args[MOST_ARGS] = {NULL};
    const char *paths[6];
    some_args(args, 1);
    for (int i = 0; i < 6; i++) {
        paths[i] = args[0] = (char *)some_program();
        all[i] = start(below(HOWS), paths[i], args, -1, 0);
    }
    for (int i = 0; i < 6; i++)
        check_answer("at once", all[i], paths[i], args + 1, 0);
}

static void only_forks(void) {
    for (int i = 0; i < 3; i++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(strcmp(memory(), "right") || strcmp(mapped(), "mapped"));
        int status = status_of(pid);
        check(status == 0, "fork", ending(status));
    }
}

static void lane(int from, int to, int lanes, long execs_of_round) {
    struct report {
        long execs, wrong;
    } report;
    char byte;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    while (read(from, &byte, 1) == 1) {
        execs = 0;
        while (execs < execs_of_round / lanes) {
            switch (below(16)) {
            case 0: case 1: pipeline(); break;
            case 2: case 3: by_another("threads", 0); break;
            case 4: by_another("chain", 1 + below(6)); break;
            case 5: signalled(); break;
            case 6: killed(); break;
            case 7: stopped(); break;
            case 8: refused(); break;
            case 9: orphan(); break;
            case 10: at_once(); break;
            case 11: only_forks(); break;
            default: one_answer();
            }
        }
        check(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "lane", "has children left");
        report = (struct report){execs, wrong};
        if (write(to, &report, sizeof report) != sizeof report)
            break;
    }
    _exit(0);
}

// ---- the driver

static void copy(const char *from, const char *to) {
    static char bytes[1 << 16];
    int in = open_file(from), out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    for (ssize_t len; (len = read(in, bytes, sizeof bytes)) > 0;)
        if (write(out, bytes, len) != len)
            broken(to);
    close(in);
    if (out < 0 || close(out))
        broken(to);
}

static int drive(int lanes, int rounds, long execs_of_round, uint64_t seed) {
    int to[16], from[16];
    long total = 0;
    char text[64];
    // Of whoever has started it.
    for (int fd = 3; fd < 256; fd++)
        if (!of_session(fd))
            close(fd);
    find_programs();
    copy(programs[0], OUTSIDE);
    int script = open(SCRIPT, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    int len = snprintf(text, sizeof text, "#!%s answer\n", programs[0]);
    if (write(script, text, len) != len || close(script) || lanes > 16)
        broken(SCRIPT);
    for (int i = 0; i < lanes; i++) {
        int down[2], up[2];
        if (pipe2(down, O_CLOEXEC) || pipe2(up, O_CLOEXEC))
            broken("pipe");
        pid_t pid = fork();
        if (pid == 0) {
            chance = seed * 1000 + i;
            close(down[1]);
            close(up[0]);
            for (int other = 0; other < i; other++) {
                close(to[other]);
                close(from[other]);
            }
            lane(down[0], up[1], lanes, execs_of_round);
        }
        close(down[0]);
        close(up[1]);
        to[i] = down[1];
        from[i] = up[0];
    }
    for (int round = 1; round <= rounds; round++) {
        long mistakes = 0;
        for (int i = 0; i < lanes; i++)
            if (write(to[i], "g", 1) != 1)
                broken("lane");
        for (int i = 0; i < lanes; i++) {
            long report[2];
            if (read(from[i], report, sizeof report) != sizeof report)
                broken("lane");
            total += report[0];
            mistakes += report[1];
        }
        printf("round %d %ld %ld\n", round, total, mistakes);
        fflush(stdout);
        if (!fgets(text, sizeof text, stdin))
            break;
    }
    for (int i = 0; i < lanes; i++)
        close(to[i]);
    while (wait(NULL) > 0)
        ;
    unlink(OUTSIDE);
    unlink(SCRIPT);
    return 0;
}

int main(int argc, char **argv) {
    const char *role = argc > 1 ? argv[1] : "";
    if (!strcmp(role, "answer"))
        return answer(argv);
    if (!strcmp(role, "source") && argc == 4)
        return source(strtoull(argv[2], NULL, 0), strtoul(argv[3], NULL, 0));
    if (!strcmp(role, "filter") && argc == 3)
        return filter(atoi(argv[2]));
    if (!strcmp(role, "threads"))
        return threads(argv);
    if (!strcmp(role, "chain"))
        return chain(argv);
    if (!strcmp(role, "signals"))
        return signals();
    if (!strcmp(role, "drive") && argc == 6)
        return drive(atoi(argv[2]), atoi(argv[3]), atol(argv[4]), strtoull(argv[5], NULL, 0));
    return 90;
}
