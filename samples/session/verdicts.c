// Executes every file of a directory and prints what became of each: an errno, a signal, an exit status, or, once the
// program has stopped itself as tests/common/elf_file.rs's do, everything that execve(2) has made for it. tests/elf_verdicts.rs
// compares the lines.
//
//     verdicts [LIMIT=BYTES]... [every=N] ROOT DIR [COMMAND...]
//
// executes DIR/NAME, which is ROOT/DIR/NAME for this process, or COMMAND with that as its last argument. LIMIT is a resource
// limit that it is executed under: as, data, stack, nofile. Of the files every one is executed, or every Nth.
//
// Addresses are not random, and told relative to where the program (P) or its interpreter (I) was put. Lines that begin with
// ! are what was written to standard error.
#include "exec.h"
#include <dirent.h>
#include <elf.h>
#include <sys/personality.h>

enum { PAGE = 4096, LOW = 0x10000, LINE = 1 << 16, MAPS = 1 << 16, EDGE_PAGES = 24 };

static char line[LINE];
static size_t len;
static char errors[4096];

__attribute__((format(printf, 1, 2))) static void add(const char *format, ...) {
    va_list list;
    va_start(list, format);
    int more = vsnprintf(line + len, LINE - len, format, list);
    va_end(list);
    need(more >= 0 && (len += more) < LINE);
}

// All of a file of /proc/PID; how many bytes.
static size_t proc_file(pid_t pid, const char *name, char *to, size_t size) {
    char path[60];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return 0;
    size_t all = 0;
    for (ssize_t got; all < size - 1 && (got = read(fd, to + all, size - 1 - all)) > 0;)
        all += got;
    close(fd);
    to[all] = 0;
    return all;
}

// Where the program and its interpreter are.
static uint64_t program_bias, interpreter_bias;

static void add_address(uint64_t at) {
    // A break away from its program, which mmap(2) has placed.
    if (at >> 40 == 0x55 && program_bias >> 40 != 0x55) {
        add("A+%lx", at);
        return;
    }
    uint64_t in_program = at - program_bias, in_interpreter = at - interpreter_bias;
    if (interpreter_bias && in_interpreter < in_program)
        add("I+%lx", in_interpreter);
    else
        add("P+%lx", in_program);
}

// Above that is what mmap(2) places, by what else is mapped.
static const uint64_t MMAP = 0x700000000000;

static void add_place(uint64_t at) {
    if (at >= MMAP)
        add("mmap");
    else
        add("%lx", at);
}

static void add_in_program(uint64_t at) { add("P+%lx", at - program_bias); }

struct area {
    uint64_t start, end;
    char perms[5];
};

// What is in memory, its pages beyond a file's end apart; of a long area its edges only.
static void add_contents(int mem, const struct area *area) {
    static unsigned char page[PAGE];
    uint64_t hash = 0xcbf29ce484222325;
    unsigned unreadable = 0;
    uint64_t zeros = 0;
    for (uint64_t at = area->start; at < area->end; at += PAGE) {
        if (at - area->start == EDGE_PAGES * PAGE && area->end - at > EDGE_PAGES * PAGE)
            at = area->end - EDGE_PAGES * PAGE;
        if (pread(mem, page, PAGE, at) != PAGE) {
            unreadable++;
            hash = hash * 31 + 1;
            continue;
        }
        for (int i = 0; i < PAGE; i++) {
            hash = (hash ^ page[i]) * 0x100000001b3;
            zeros += !page[i];
        }
    }
    add(" %016lx", hash);
    if (zeros)
        add(" zeros=%lx", zeros);
    if (unreadable)
        add(" unreadable=%x", unreadable);
}

static char maps[MAPS];

static void add_maps(pid_t pid, int mem) {
    proc_file(pid, "maps", maps, sizeof maps);
    static struct area areas[1000];
    int count = 0;
    char *rest = maps;
    for (char *text; (text = strsep(&rest, "\n")) && *text;) {
        struct area area;
        uint64_t offset;
        char name[PATH_MAX + 20] = "";
        need(sscanf(text, "%lx-%lx %4s %lx %*s %*s %4096[^\n]", &area.start, &area.end, area.perms, &offset, name) >= 4);
        if (strstr(name, "[vdso]") || strstr(name, "[vvar") || strstr(name, "[vsyscall]") )
            continue;
        // The stub is at the memfd's start; behind it are the copied pages of a launch, which are the program's.
        if (strstr(name, "/memfd:xip-run:") && !offset)
            continue;
        if (strstr(name, "[stack]")) {
            add(" stack=%s", area.perms);
            continue;
        }
        struct area *last = &areas[count - 1];
        if (count && last->end == area.start && !strcmp(last->perms, area.perms))
            last->end = area.end;
        else {
            need(count < 1000);
            areas[count++] = area;
        }
    }
    for (int i = 0; i < count; i++) {
        add("; ");
        add_address(areas[i].start);
        add(" %lx %s", areas[i].end - areas[i].start, areas[i].perms);
        add_contents(mem, &areas[i]);
    }
}

static uint64_t words[1 << 14];

static void add_string(int mem, uint64_t at) {
    char text[300] = "";
    // Not beyond the stack's end.
    for (size_t i = 0; i < sizeof text - 1 && pread(mem, text + i, 1, at + i) == 1 && text[i]; i++) {
    }
    add("\"%s\"", text);
}

// The word of /proc/PID/stat with that number, which proc(5) counts from 1.
static uint64_t stat_word(const char *stat, int number) {
    const char *at = strrchr(stat, ')') + 2;
    for (int i = 3; i < number; i++)
        at = strchr(at, ' ') + 1;
    return strtoull(at, NULL, 10);
}

static void add_program(pid_t pid, const Elf64_Ehdr *header) {
    static char text[1 << 14];
    char path[60];
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int mem = open(path, O_RDONLY);
    proc_file(pid, "syscall", text, sizeof text);
    uint64_t sp = 0, pc = 0;
    char *word = strrchr(text, ' ');
    need(mem >= 0 && word);
    pc = strtoull(word, NULL, 16);
    *word = 0;
    sp = strtoull(strrchr(text, ' '), NULL, 16);
    ssize_t got = pread(mem, words, sizeof words, sp);
    if (got <= 0) {
        // The stack's end is nearer.
        for (got = 0; got < (ssize_t)sizeof words && pread(mem, (char *)words + got, 8, sp + got) == 8; got += 8) {
        }
    }
    uint64_t *argv = words + 1, *envp = argv + words[0] + 1, *auxv = envp;
    while (*auxv++) {
    }
    uint64_t aux[64] = {0}, kinds = 0;
    int auxc = 1;
    for (uint64_t *at = auxv; at[0]; at += 2, auxc++)
        if (at[0] < 64) {
            aux[at[0]] = at[1];
            kinds |= 1ull << at[0];
        }
    program_bias = aux[AT_ENTRY] - header->e_entry;
    interpreter_bias = aux[AT_BASE];
    add("stops at ");
    add_address(pc);
    add(" argv=");
    for (uint64_t *at = argv; *at; at++)
        add_string(mem, *at);
    add(" env=");
    for (uint64_t *at = envp; *at; at++)
        add_string(mem, *at);
    add(" execfn=");
    add_string(mem, aux[AT_EXECFN]);
    add(" sp%%16=%lx bias=", sp % 16);
    add_place(aux[AT_PHDR] >= MMAP ? MMAP : program_bias);
    add(" base=");
    add_place(interpreter_bias);
    add(" phdr=");
    add_address(aux[AT_PHDR]);
    add(" phnum=%lu phent=%lu flags=%lu secure=%lu auxv=%lx", aux[AT_PHNUM], aux[AT_PHENT], aux[AT_FLAGS], aux[AT_SECURE], kinds);
    size_t size = proc_file(pid, "auxv", text, sizeof text);
    if (size < auxc * 16u || memcmp(text, auxv, auxc * 16))
        add(" (the kernel's is another)");
    proc_file(pid, "stat", text, sizeof text);
    add(" code=");
    add_in_program(stat_word(text, 26));
    add("-");
    add_in_program(stat_word(text, 27));
    add(" data=");
    add_in_program(stat_word(text, 45));
    add("-");
    add_in_program(stat_word(text, 46));
    add(" brk=");
    add_address(stat_word(text, 47));
    // Who has such addresses may not set them: prctl(2).
    if (stat_word(text, 26) >= stat_word(text, 27) || stat_word(text, 26) < LOW || stat_word(text, 45) < LOW)
        add(" (unusual code)");
    if (stat_word(text, 47) < LOW)
        add(" (unusual brk)");
    add(" startstack=%s", stat_word(text, 28) == sp ? "sp" : "else");
    size = proc_file(pid, "comm", text, sizeof text);
    add(" comm=%.*s cmdline=", (int)size - 1, text);
    size = proc_file(pid, "cmdline", text, sizeof text);
    for (size_t at = 0; at < size; at += strlen(text + at) + 1)
        add("\"%.200s\"", text + at);
    add_maps(pid, mem);
    close(mem);
}

static const struct {
    const char *name;
    int resource;
} LIMITS[] = {{"as", RLIMIT_AS}, {"data", RLIMIT_DATA}, {"stack", RLIMIT_STACK}, {"nofile", RLIMIT_NOFILE}};

static struct {
    int resource;
    rlim_t value;
} limits[8];
static int limit_count;

static void child(char **argv, int answer) {
    static char *env[] = {"A=1", "BC=22", NULL};
    personality(ADDR_NO_RANDOMIZE);
    // What runs on and on is ended.
    struct rlimit seconds = {1, 2};
    setrlimit(RLIMIT_CPU, &seconds);
    alarm(SECONDS_LIMIT);
    for (int i = 0; i < limit_count; i++) {
        struct rlimit limit = {limits[i].value, limits[i].value};
        setrlimit(limits[i].resource, &limit);
    }
    execve(argv[0], argv, env);
    int why = errno;
    (void)!write(answer, &why, sizeof why);
    _exit(0);
}

// The header of what is executed in the end.
static Elf64_Ehdr header_of(const char *path, pid_t pid) {
    Elf64_Ehdr header = {0};
    char exe[60];
    snprintf(exe, sizeof exe, "/proc/%d/exe", pid);
    for (int i = 0; i < 2 && memcmp(header.e_ident, ELFMAG, SELFMAG); i++) {
        int fd = open(i ? exe : path, O_RDONLY);
        if (fd >= 0) {
            (void)!read(fd, &header, sizeof header);
            close(fd);
        }
    }
    return header;
}

static void execute_one(const char *name, const char *path, char **argv, const int *errors_pipe) {
    int answer[2];
    need(!pipe2(answer, O_CLOEXEC));
    len = 0;
    add("%s: ", name);
    pid_t pid = fork();
    need(pid >= 0);
    if (!pid) {
        dup2(errors_pipe[1], 2);
        dup2(errors_pipe[1], 1);
        child(argv, answer[1]);
    }
    close(answer[1]);
    int why = 0, status;
    ssize_t got = read(answer[0], &why, sizeof why);
    close(answer[0]);
    need(waitpid(pid, &status, WUNTRACED) == pid);
    if (got == sizeof why)
        add("%s", errno_name(why));
    else if (WIFSTOPPED(status)) {
        Elf64_Ehdr header = header_of(path, pid);
        add_program(pid, &header);
        kill(pid, SIGKILL);
        need(waitpid(pid, &status, 0) == pid);
    } else if (WIFSIGNALED(status))
        add("killed by SIG%s", sigabbrev_np(WTERMSIG(status)));
    else
        add("exit %d", WEXITSTATUS(status));
    puts(line);
    ssize_t said = read(errors_pipe[0], errors, sizeof errors - 1);
    if (said > 0) {
        errors[said] = 0;
        char *rest = errors;
        for (char *text; (text = strsep(&rest, "\n")) && *text;)
            printf("! %s: %s\n", name, text);
    }
}

static int visible(const struct dirent *entry) { return entry->d_name[0] != '.'; }

int main(int argc, char **argv) {
    static char stdout_buffer[1 << 18];
    setvbuf(stdout, stdout_buffer, _IOFBF, sizeof stdout_buffer);
    int at = 1, step = 1;
    for (char *value; at < argc && (value = strchr(argv[at], '=')); at++) {
        for (size_t i = 0; i < sizeof LIMITS / sizeof *LIMITS; i++)
            if (!strncmp(argv[at], LIMITS[i].name, value - argv[at])) {
                limits[limit_count].resource = LIMITS[i].resource;
                limits[limit_count++].value = strtoull(value + 1, NULL, 0);
            }
        if (!strncmp(argv[at], "every=", value + 1 - argv[at]))
            step = atoi(value + 1);
        else
            need(limit_count == at);
    }
    need(argc - at >= 2);
    const char *root = argv[at], *dir = argv[at + 1];
    // In the place of the directory, the file; a NULL follows.
    char **command = argv + at + 2;
    int last = argc - at - 2;
    char *call[100] = {0};
    need(last < 99);
    memcpy(call, command, last * sizeof *call);
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s%s", root, dir);
    struct dirent **entries;
    int count = scandir(path, &entries, visible, alphasort), errors_pipe[2];
    need(count > 0);
    // What is stopped is nobody's session leader's orphan: a process group whose parent is not in it may stop.
    need(!pipe2(errors_pipe, O_NONBLOCK | O_CLOEXEC));
    for (int number = 0; number < count; number += step) {
        char file[PATH_MAX];
        snprintf(path, sizeof path, "%s%s/%s", root, dir, entries[number]->d_name);
        snprintf(file, sizeof file, "%s/%s", dir, entries[number]->d_name);
        call[last] = file;
        execute_one(file, path, call, errors_pipe);
    }
    return fflush(stdout) != 0;
}
