// Paths: which error, which of two errors, links, the current directory, /proc, permission to search, mounts.
#include "exec.h"
#include "exec_show.h"
#include <sys/auxv.h>
#include <sys/prctl.h>

//# missing: ENOENT
SCENARIO(missing) { execute("/missing"); }
//# missing-directory: ENOENT
SCENARIO(missing_directory) { execute("/missing/show"); }
//# empty: ENOENT
SCENARIO(empty) { execute(""); }
//# below-a-file: ENOTDIR
SCENARIO(below_a_file) { execute(SHOW "/x"); }
//# file-with-slash: ENOTDIR
SCENARIO(file_with_slash) { execute(SHOW "/"); }
//# file-with-dot: ENOTDIR
SCENARIO(file_with_dot) { execute(SHOW "/."); }
//# dot-dot: argv=["arg0","one","two words",""] env=["A=1","B=2"] execfn="/bin/../bin/./show" comm="show"
SCENARIO(dot_dot) { execute("/bin/../bin/./show"); }
SCENARIO(slashes) { execute("//bin///show"); }

//# root: EACCES
SCENARIO(root) { execute("/"); }
//# directory: EACCES
SCENARIO(directory) { execute("/bin"); }
SCENARIO(directory_with_slash) { execute("/bin/"); }
SCENARIO(dot) { execute("."); }
SCENARIO(mount_point) { execute("/proc"); }
//# null-device: EACCES
SCENARIO(null_device) { execute("/dev/null"); }
SCENARIO(proc_file) { execute("/proc/self/status"); }

//# first-link: argv=["arg0","one","two words",""] env=["A=1","B=2"] execfn="/links/1" comm="1"
SCENARIO(first_link) { execute("/links/1"); }
// 40 are allowed, but a look-up that has to start again in the kernel counts those that it has seen before.
//# links-20: argv=["arg0"
SCENARIO(links_20) { execute("/links/20"); }
//# links-41: ELOOP
SCENARIO(links_41) { execute("/links/41"); }
//# link-loop: ELOOP
SCENARIO(link_loop) { execute("/links/loop"); }
SCENARIO(below_link_loop) { execute("/links/loop/x"); }
//# dangling-link: ENOENT
SCENARIO(dangling_link) { execute("/links/dangling"); }
SCENARIO(link_to_directory) { execute("/links/bin"); }
SCENARIO(through_link) { execute("/links/bin/show"); }
SCENARIO(link_with_slash) { execute("/links/1/"); }
SCENARIO(link_to_script) { execute("/links/script"); }

static void path_of(size_t len) {
    // "/././bin/show" of this length.
    char *path = malloc(len + 1);
    for (size_t i = 0; i < len; i++)
        path[i] = i % 2 ? '.' : '/';
    strcpy(path + len - strlen(SHOW), SHOW);
    execute(path);
}

//# path-4095: argv=["arg0"
SCENARIO(path_4095) { path_of(4095); }
//# path-4096: ENAMETOOLONG
SCENARIO(path_4096) { path_of(4096); }
SCENARIO(path_10000) { path_of(10000); }

//# component-256: ENAMETOOLONG
SCENARIO(component_256) {
    char path[400] = "/tmp/";
    memset(path + 5, 'n', 256);
    execute(path);
}

static void execute_at(const void *path) { syscall(SYS_execve, path, ARGV, ENV("")); }

// The end of a page that nothing follows.
static char *page_end(void) {
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(pages != MAP_FAILED && !mprotect(pages + 4096, 4096, PROT_NONE));
    return pages + 4096;
}

//# null: EFAULT
SCENARIO(null) { execute_at(NULL); }
//# unmapped: EFAULT
SCENARIO(unmapped) { execute_at((void *)1); }
//# kernels: EFAULT
SCENARIO(kernels) { execute_at((void *)-4096); }
//# not-readable-memory: EFAULT
SCENARIO(not_readable_memory) { execute_at(page_end()); }

//# no-nul: EFAULT
SCENARIO(no_nul) {
    char *end = page_end();
    memcpy(end - 4, "/bin", 4);
    execute_at(end - 4);
}

//# at-the-end-of-a-page: argv=["arg0"
SCENARIO(at_the_end_of_a_page) {
    char *path = page_end() - sizeof SHOW;
    strcpy(path, SHOW);
    execute_at(path);
}

//# read-only-path: argv=["arg0"
SCENARIO(read_only_path) {
    char *path = page_end() - 4096;
    strcpy(path, SHOW);
    need(!mprotect(path, 4096, PROT_READ));
    execute_at(path);
}

//# relative: argv=["arg0","one","two words",""] env=["A=1","B=2"] execfn="show" comm="show"
SCENARIO(relative) {
    need(!chdir("/bin"));
    execute("show");
}

SCENARIO(relative_with_dots) {
    need(!chdir("/bin"));
    execute("./../bin/show");
}

//# relative-script: argv=["/bin/show","plain","one"
SCENARIO(relative_script) {
    need(!chdir("/scripts"));
    execute("plain");
}

// A directory with mode 0700.
SCENARIO(private) { execute("/private/missing"); }
SCENARIO(private_show) { execute("/private/show"); }
SCENARIO(link_to_private) { execute("/links/private"); }
//# nobody-private: EACCES
AS_NOBODY(private)
//# nobody-private-show: EACCES
AS_NOBODY(private_show)
//# nobody-link-to-private: EACCES
AS_NOBODY(link_to_private)

SCENARIO(private_cwd) {
    as_root_only();
    need(!chdir("/private"));
    become_nobody();
    execute("show");
}

SCENARIO(private_cwd_absolute) {
    as_root_only();
    need(!chdir("/private"));
    become_nobody();
    execve(SHOW, ARGV, ENV("process"));
}

static void into_deleted(void) { need(!mkdir("/tmp/gone", 0777) && !chdir("/tmp/gone") && !rmdir("/tmp/gone")); }

//# deleted-cwd-relative: ENOENT
SCENARIO(deleted_cwd_relative) {
    into_deleted();
    execute("show");
}

//# deleted-cwd-dot: EACCES
SCENARIO(deleted_cwd_dot) {
    into_deleted();
    execute(".");
}

SCENARIO(deleted_cwd_up) {
    into_deleted();
    execute("../bin/show");
}

//# deleted-cwd-absolute: argv=["arg0"
SCENARIO(deleted_cwd_absolute) {
    into_deleted();
    execve(SHOW, ARGV, ENV("process"));
}

//# noexec-mount: EACCES
SCENARIO(noexec_mount) { execute("/tmp/noexec/show"); }
AS_NOBODY(noexec_mount)
//# noexec-script: EACCES
SCENARIO(noexec_script) { execute("/tmp/noexec/script"); }
//# noexec-interpreter: EACCES
SCENARIO(noexec_interpreter) {
    write_file("/tmp/script", "#!/tmp/noexec/show\n", 0755);
    execute("/tmp/script");
}

// /tmp is the host's: programs of the host, scripts across the border in both directions.
SCENARIO(hosts_program) {
    copy(SHOW, "/tmp/a-program-of-the-host", 0755);
    execute("/tmp/a-program-of-the-host");
}

SCENARIO(nobody_hosts_program) {
    copy(SHOW, "/tmp/a-program-of-the-host", 0755);
    become_nobody();
    execute("/tmp/a-program-of-the-host");
}

SCENARIO(hosts_script) {
    write_file("/tmp/script", "#!/bin/show of the host\n", 0755);
    execve("/tmp/script", ARGV, ENV("script"));
}

SCENARIO(hosts_interpreter) {
    copy(SHOW, "/tmp/interpreter", 0755);
    write_file("/tmp/script", "#!/tmp/interpreter", 0755);
    execute("/tmp/script");
}

// Written to, while executed; executed, while written to.
static void keep_busy(const char *path) { need(open(path, O_WRONLY | O_CLOEXEC) >= 0); }

//# being-written: ETXTBSY
SCENARIO(being_written) {
    copy(SHOW, "/tmp/busy", 0755);
    keep_busy("/tmp/busy");
    execute("/tmp/busy");
}

//# nobody-being-written: ETXTBSY
SCENARIO(nobody_being_written) {
    copy(SHOW, "/tmp/busy", 0755);
    keep_busy("/tmp/busy");
    become_nobody();
    execute("/tmp/busy");
}

//# script-being-written: ETXTBSY
SCENARIO(script_being_written) {
    write_file("/tmp/script", "#!/bin/show\n", 0755);
    keep_busy("/tmp/script");
    execute("/tmp/script");
}

//# interpreter-being-written: ETXTBSY
SCENARIO(interpreter_being_written) {
    copy(SHOW, "/tmp/busy", 0755);
    keep_busy("/tmp/busy");
    write_file("/tmp/script", "#!/tmp/busy\n", 0755);
    execute("/tmp/script");
}

//# writing-what-runs: ETXTBSY, then opened
SCENARIO(writing_what_runs) {
    copy("/bin/cat", "/tmp/running", 0755);
    int to[2], from[2];
    need(!pipe2(to, O_CLOEXEC) && !pipe2(from, O_CLOEXEC));
    pid_t child = fork();
    if (!child) {
        need(dup2(to[0], 0) == 0 && dup2(from[1], 1) == 1);
        execve("/tmp/running", ARGS("cat"), ENV(""));
        _exit(95);
    }
    // Once it has answered, its execve is over for sure.
    char byte;
    need(!close(from[1]) && write(to[1], "x", 1) == 1 && read(from[0], &byte, 1) == 1);
    int fd = open("/tmp/running", O_WRONLY);
    say("%s", fd >= 0 ? "opened" : errno_name(errno));
    close(to[1]);
    finish(child);
    fd = open("/tmp/running", O_WRONLY);
    say(", then %s", fd >= 0 ? "opened" : errno_name(errno));
    done();
}

// Two errors: do_execveat_common() looks at the path, the flags and the file, argv and envp, the format, in that order.
#define BAD ((char **)1)

static char *huge(void) {
    char *string = malloc(200000);
    memset(string, 'x', 199999);
    string[199999] = 0;
    return string;
}

//# missing-and-bad-argv: ENOENT
SCENARIO(missing_and_bad_argv) { syscall(SYS_execve, "/missing", BAD, NULL); }
//# directory-and-bad-argv: EACCES
SCENARIO(directory_and_bad_argv) { syscall(SYS_execve, "/bin", BAD, NULL); }
//# not-executable-and-bad-argv: EACCES
SCENARIO(not_executable_and_bad_argv) { syscall(SYS_execve, "/files/mode-0644", BAD, NULL); }
//# bad-script-and-bad-argv: EFAULT
SCENARIO(bad_script_and_bad_argv) { syscall(SYS_execve, "/scripts/interpreter-missing", BAD, NULL); }
//# text-and-bad-argv: EFAULT
SCENARIO(text_and_bad_argv) { syscall(SYS_execve, "/elf/text", BAD, NULL); }
//# text-and-bad-envp: EFAULT
SCENARIO(text_and_bad_envp) { syscall(SYS_execve, "/elf/text", ARGV, BAD); }
SCENARIO(null_and_bad_argv) { syscall(SYS_execve, NULL, BAD, BAD); }
//# bad-flags-and-missing: EINVAL
SCENARIO(bad_flags_and_missing) { syscall(SYS_execveat, AT_FDCWD, "/missing", ARGV, environ, 0x4000); }
//# bad-flags-and-bad-path: EFAULT
SCENARIO(bad_flags_and_bad_path) { syscall(SYS_execveat, AT_FDCWD, 1, ARGV, environ, 0x4000); }
SCENARIO(bad_flags_and_empty) { syscall(SYS_execveat, AT_FDCWD, "", ARGV, environ, 0x4000); }
//# missing-and-too-much: ENOENT
SCENARIO(missing_and_too_much) { execve("/missing", ARGS(huge()), environ); }
SCENARIO(not_executable_and_too_much) { execve("/files/mode-0644", ARGS(huge()), environ); }
//# text-and-too-much: E2BIG
SCENARIO(text_and_too_much) { execve("/elf/text", ARGS(huge()), environ); }
//# bad-script-and-too-much: E2BIG
SCENARIO(bad_script_and_too_much) { execve("/scripts/interpreter-missing", ARGS(huge()), environ); }

SCENARIO(proc_root) { execute("/proc/self/root/bin/show"); }
AS_NOBODY(proc_root)

SCENARIO(proc_cwd) {
    need(!chdir("/bin"));
    execute("/proc/self/cwd/show");
}

// The driver itself, executed by one of its names, tells what it is.
static void again_by(const char *path) { execve(path, ARGS("again"), ARGS("A=1")); }

//# self-exe: argv=["again"] execfn="/proc/self/exe" comm="exe" exe="/drivers/exec_paths"
SCENARIO(self_exe) { again_by("/proc/self/exe"); }
AS_NOBODY(self_exe)
SCENARIO(thread_self_exe) { again_by("/proc/thread-self/exe"); }

SCENARIO(parents_exe) {
    char path[40];
    snprintf(path, sizeof path, "/proc/%d/exe", getppid());
    pid_t child = fork();
    // Another process's /proc: by a name that every run has.
    if (!child) {
        need(!unlink("/tmp/exe") || errno == ENOENT);
        need(!symlink(path, "/tmp/exe"));
        again_by("/tmp/exe");
        say("%s", errno_name(errno));
        _exit(1);
    }
    finish(child);
    done();
}

//# self-exe-of-deleted: argv=["again"] execfn="/proc/self/exe" comm="exe" exe="/tmp/driver (deleted)"
SCENARIO(self_exe_of_deleted) {
    copy("/proc/self/exe", "/tmp/driver", 0755);
    execve("/tmp/driver", ARGS("delete me"), environ);
}

// Executable by all, readable only by its owner.
SCENARIO(self_exe_of_unreadable) {
    copy("/proc/self/exe", "/tmp/driver", 0711);
    become_nobody();
    execve("/tmp/driver", ARGS("me again"), environ);
}

static int tell(char **argv) {
    add("argv=");
    add_list(argv);
    add(" execfn=");
    add_quoted((char *)getauxval(AT_EXECFN));
    char comm[17] = "";
    prctl(PR_GET_NAME, comm);
    add(" comm=");
    add_quoted(comm);
    add(" exe=");
    add_link("/proc/self/exe");
    print_added();
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 1 && !strcmp(argv[0], "again"))
        return tell(argv);
    if (!strcmp(argv[0], "delete me"))
        need(!unlink("/tmp/driver"));
    if (!strcmp(argv[0], "delete me") || !strcmp(argv[0], "me again")) {
        again_by("/proc/self/exe");
        say("%s", errno_name(errno));
        return 1;
    }
    return run_scenarios(argv + 1);
}
