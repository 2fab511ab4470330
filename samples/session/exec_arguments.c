// argv and envp: NULL, empty, bad pointers, odd strings, and how much of them is too much, to the byte.
#include "exec.h"

static void show(const void *argv, const void *envp) { syscall(SYS_execve, SHOW, argv, envp); }
static void script(const void *argv, const void *envp) { syscall(SYS_execve, "/scripts/argument", argv, envp); }

#define EMPTY ((char *[]){NULL})

// Linux 5.18 and later give a program without arguments an empty one.
SCENARIO(argv_null) { show(NULL, ENV("")); }
SCENARIO(argv_empty) { show(EMPTY, ENV("")); }
SCENARIO(argv_null_script) { script(NULL, ENV("")); }
SCENARIO(argv_empty_script) { script(EMPTY, ENV("")); }
//# argv-empty-string: argv=[""] env=["A=1","B=2"]
SCENARIO(argv_empty_string) { show(ARGS(""), ENV("")); }
SCENARIO(argv_one_script) { script(ARGS("zero"), ENV("")); }
//# envp-null: argv=["arg0","one","two words",""] env=[] execfn="/bin/show"
SCENARIO(envp_null) { show(ARGV, NULL); }
//# envp-empty: argv=["arg0","one","two words",""] env=[] execfn="/bin/show"
SCENARIO(envp_empty) { show(ARGV, EMPTY); }
SCENARIO(both_null) { show(NULL, NULL); }
SCENARIO(both_null_script) { script(NULL, NULL); }
SCENARIO(both_empty) { show(EMPTY, EMPTY); }

//# environment-order: argv=["arg0","one","two words",""] env=["Z=1","A=2","M=3","A=4","","=","=x","no equals sign","B=a=b"]
SCENARIO(environment_order) { show(ARGV, ARGS("Z=1", "A=2", "M=3", "A=4", "", "=", "=x", "no equals sign", "B=a=b")); }
SCENARIO(binary_arguments) { show(ARGS("\xff\xfe", "\x01\x7f", "\n\t", "\"\\", "ü"), ARGS("\x80=\x81")); }
SCENARIO(binary_arguments_script) { script(ARGS("\xff\xfe", "\x01\x7f", "\n\t", "\"\\", "ü"), ARGS("\x80=\x81")); }

// The same memory for everything.
SCENARIO(shared_strings) {
    static char same[] = "A=same";
    char *strings[] = {same, same, same + 1, same + 6, NULL};
    show(strings, strings);
}

SCENARIO(own_environment) {
    need(!clearenv() && !setenv("C", "3", 1) && !setenv("D", "4", 1));
    show(environ, environ);
}

static char *page_end(int protection) {
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(pages != MAP_FAILED && !mprotect(pages + 4096, 4096, protection));
    return pages + 4096;
}

//# argv-unmapped: EFAULT
SCENARIO(argv_unmapped) { show((void *)1, ENV("")); }
//# envp-unmapped: EFAULT
SCENARIO(envp_unmapped) { show(ARGV, (void *)1); }
//# argv-kernels: EFAULT
SCENARIO(argv_kernels) { show((void *)-4096, ENV("")); }
//# argument-unmapped: EFAULT
SCENARIO(argument_unmapped) { show(ARGS("arg0", (char *)1), ENV("")); }
//# variable-unmapped: EFAULT
SCENARIO(variable_unmapped) { show(ARGV, ARGS("A=1", (char *)1)); }
SCENARIO(argument_kernels) { show(ARGS("arg0", (char *)-1), ENV("")); }
SCENARIO(argument_unmapped_script) { script(ARGS("arg0", (char *)1), ENV("")); }
// argv[0] of a script is not passed on, and looked at all the same.
//# argument-0-unmapped-script: EFAULT
SCENARIO(argument_0_unmapped_script) { script(ARGS((char *)1, "one"), ENV("")); }

//# argv-without-end: EFAULT
SCENARIO(argv_without_end) {
    char **end = (char **)page_end(PROT_NONE);
    end[-1] = end[-2] = "arg";
    show(end - 2, ENV(""));
}

//# argv-at-the-end-of-a-page: argv=["arg"]
SCENARIO(argv_at_the_end_of_a_page) {
    char **end = (char **)page_end(PROT_NONE);
    end[-1] = NULL;
    end[-2] = "arg";
    show(end - 2, ENV(""));
}

SCENARIO(argv_unaligned) {
    char *at = page_end(PROT_NONE) - 33;
    memcpy(at, ARGS("arg", "one"), 3 * sizeof(char *));
    show(at, ENV(""));
}

//# argument-without-nul: EFAULT
SCENARIO(argument_without_nul) {
    char *end = page_end(PROT_NONE);
    memset(end - 4, 'x', 4);
    show(ARGS("arg0", end - 4), ENV(""));
}

//# argument-at-the-end-of-a-page: argv=["arg0","xxx"]
SCENARIO(argument_at_the_end_of_a_page) {
    char *end = page_end(PROT_NONE);
    memset(end - 4, 'x', 3);
    show(ARGS("arg0", end - 4), ENV(""));
}

SCENARIO(argument_across_pages) {
    char *middle = page_end(PROT_READ);
    memset(middle - 4, 'x', 4);
    show(ARGS("arg0", middle - 4), ENV(""));
}

static char *string_of(size_t len) {
    char *string = malloc(len + 1);
    need(string);
    memset(string, 'x', len);
    string[len] = 0;
    return string;
}

// MAX_ARG_STRLEN is 32 pages, the NUL included.
#define LONGEST (32 * 4096 - 1)
//# argument-of-131071: argv=["arg0",<131071 bytes
SCENARIO(argument_of_131071) { show(ARGS("arg0", string_of(LONGEST)), ENV("")); }
//# argument-of-131072: E2BIG
SCENARIO(argument_of_131072) { show(ARGS("arg0", string_of(LONGEST + 1)), ENV("")); }
SCENARIO(argument_0_of_131071) { show(ARGS(string_of(LONGEST)), ENV("")); }
SCENARIO(argument_0_of_131072) { show(ARGS(string_of(LONGEST + 1)), ENV("")); }
SCENARIO(variable_of_131071) { show(ARGV, ARGS(string_of(LONGEST))); }
//# variable-of-131072: E2BIG
SCENARIO(variable_of_131072) { show(ARGV, ARGS(string_of(LONGEST + 1))); }
SCENARIO(argument_of_131071_script) { script(ARGS("arg0", string_of(LONGEST)), ENV("")); }
SCENARIO(argument_of_131072_script) { script(ARGS("arg0", string_of(LONGEST + 1)), ENV("")); }
SCENARIO(argument_0_of_131072_script) { script(ARGS(string_of(LONGEST + 1)), ENV("")); }

static char **many(int count, size_t len) {
    char **strings = malloc((count + 1) * sizeof *strings), *string = string_of(len);
    need(strings);
    for (int i = 0; i < count; i++)
        strings[i] = string;
    strings[count] = NULL;
    return strings;
}

// About as many as a session's handler looks at.
SCENARIO(arguments_10) { show(many(10, 3), ENV("")); }
SCENARIO(arguments_11) { show(many(11, 3), ENV("")); }
SCENARIO(arguments_12) { show(many(12, 3), ENV("")); }
SCENARIO(arguments_13) { show(many(13, 3), ENV("")); }

//# megabyte: argv=[<130000 bytes
SCENARIO(megabyte) { show(many(8, 130000), ENV("")); }
SCENARIO(megabyte_script) { script(many(8, 130000), ENV("")); }
SCENARIO(megabyte_nested_script) { syscall(SYS_execve, "/scripts/nested-3", many(8, 130000), ENV("")); }
SCENARIO(megabyte_of_environment) { show(ARGV, many(8, 130000)); }
SCENARIO(arguments_100000) { show(many(100000, 3), ENV("")); }
SCENARIO(arguments_100000_script) { script(many(100000, 3), ENV("")); }

// The most bytes that one more argument may have when the others have so many: nothing says it is E2BIG before the new
// program is there, so each try is a child.
static int fits(const char *path, const void *argv, const void *envp) {
    pid_t child = fork();
    need(child >= 0);
    if (!child) {
        syscall(SYS_execve, path, argv, envp);
        _exit(errno == E2BIG ? 90 : 91);
    }
    int status;
    need(waitpid(child, &status, 0) == child);
    need(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 90));
    return WEXITSTATUS(status) == 0;
}

static void bisect(const char *path, char **(*argv_of)(int), int most) {
    int works = 0, fails = most;
    need(fits(path, argv_of(0), ENV("nothing")));
    if (fits(path, argv_of(most), ENV("nothing")))
        works = most;
    while (works + 1 < fails && works < most) {
        int middle = works + (fails - works) / 2;
        *(fits(path, argv_of(middle), ENV("nothing")) ? &works : &fails) = middle;
    }
    say("%d", works);
    done();
}

// So many bytes of arguments, in strings of 100000.
static char **bytes_of(int len) {
    static char *strings[100], last[100001];
    int count = 0;
    static char *whole;
    if (!whole)
        whole = string_of(99999);
    for (; len > 100000; len -= 100000)
        strings[count++] = whole;
    if (len) {
        memset(last, 'y', len - 1);
        last[len - 1] = 0;
        strings[count++] = last;
    }
    strings[count] = NULL;
    return strings;
}

static char **empty_strings(int count) {
    static char *strings[50001];
    for (int i = 0; i < count; i++)
        strings[i] = "";
    strings[count] = NULL;
    return strings;
}

static void with_stack(rlim_t bytes) {
    struct rlimit limit;
    need(!getrlimit(RLIMIT_STACK, &limit));
    limit.rlim_cur = bytes;
    need(!setrlimit(RLIMIT_STACK, &limit));
}

// A quarter of RLIMIT_STACK, at most three quarters of 8 MiB, at least 128 KiB (execve(2)); the path counts, so it is a long
// one here: no loader needs so long a path, and the limit need not be less than the kernel's.
SCENARIO(limit_by_bytes) {
    with_stack(8 << 20);
    bisect(SHOW_LONG, bytes_of, 4 << 20);
}

SCENARIO(limit_by_bytes_small_stack) {
    with_stack(1 << 20);
    bisect(SHOW_LONG, bytes_of, 4 << 20);
}

SCENARIO(limit_by_bytes_smallest_stack) {
    with_stack(256 << 10);
    bisect(SHOW_LONG, bytes_of, 4 << 20);
}

SCENARIO(limit_by_bytes_unlimited_stack) {
    with_stack(RLIM_INFINITY);
    bisect(SHOW_LONG, bytes_of, 8 << 20);
}

SCENARIO(limit_by_bytes_script) {
    with_stack(8 << 20);
    bisect("/scripts/to-the-long-path", bytes_of, 4 << 20);
}

SCENARIO(limit_by_count) {
    with_stack(1 << 20);
    bisect(SHOW_LONG, empty_strings, 50000);
}

SCENARIO(limit_by_count_script) {
    with_stack(1 << 20);
    bisect("/scripts/to-the-long-path", empty_strings, 50000);
}

int main(int argc, char **argv) {
    (void)argc;
    return run_scenarios(argv + 1);
}
