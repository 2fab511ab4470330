// execveat and fexecve, every kind of descriptor, /proc/self/fd; which descriptors the new program has.
#include "exec.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

static void at(int dir, const char *path, int flags) {
    syscall(SYS_execveat, dir, path, ARGV, ENV("fds script"), flags);
}

static void by_fd(int fd) { at(fd, "", AT_EMPTY_PATH); }
static void by_path(const char *path) { execve(path, ARGV, ENV("fds script")); }

//# fd: argv=["arg0","one","two words",""] env=["A=1","B=2"] execfn="/dev/fd/10"
SCENARIO(fd) { by_fd(open_at(SHOW, O_RDONLY, 10)); }
AS_NOBODY(fd)
//# fd-cloexec: argv=["arg0"
SCENARIO(fd_cloexec) { by_fd(open_at(SHOW, O_RDONLY | O_CLOEXEC, 10)); }
//# fd-path: argv=["arg0"
SCENARIO(fd_path) { by_fd(open_at(SHOW, O_PATH, 10)); }
//# fd-path-cloexec: argv=["arg0"
SCENARIO(fd_path_cloexec) { by_fd(open_at(SHOW, O_PATH | O_CLOEXEC, 10)); }
SCENARIO(fd_0) { by_fd(open_at(SHOW, O_RDONLY, 0)); }
SCENARIO(fd_199) { by_fd(open_at(SHOW, O_RDONLY, 199)); }
//# fexecve-of-libc: argv=["arg0"
SCENARIO(fexecve_of_libc) { fexecve(open_at(SHOW, O_RDONLY | O_CLOEXEC, 10), ARGV, ENV("fds")); }
SCENARIO(fexecve_of_libc_script) { fexecve(open_at("/scripts/plain", O_RDONLY | O_CLOEXEC, 10), ARGV, ENV("fds")); }

//# script: argv=["/bin/show","/dev/fd/10","one","two words",""]
SCENARIO(script) { by_fd(open_at("/scripts/plain", O_RDONLY, 10)); }
//# script-cloexec: ENOENT
SCENARIO(script_cloexec) { by_fd(open_at("/scripts/plain", O_RDONLY | O_CLOEXEC, 10)); }
SCENARIO(script_path) { by_fd(open_at("/scripts/plain", O_PATH, 10)); }
//# script-path-cloexec: ENOENT
SCENARIO(script_path_cloexec) { by_fd(open_at("/scripts/plain", O_PATH | O_CLOEXEC, 10)); }
SCENARIO(script_nested) { by_fd(open_at("/scripts/nested-3", O_RDONLY, 10)); }
SCENARIO(script_nested_cloexec) { by_fd(open_at("/scripts/nested-3", O_RDONLY | O_CLOEXEC, 10)); }
SCENARIO(script_missing_interpreter_cloexec) { by_fd(open_at("/scripts/interpreter-missing", O_RDONLY | O_CLOEXEC, 10)); }
SCENARIO(text_cloexec) { by_fd(open_at("/elf/text", O_RDONLY | O_CLOEXEC, 10)); }
// Reading a script's first line leaves the descriptor's offset alone.
SCENARIO(script_offset) {
    int fd = open_at("/scripts/plain", O_RDONLY, 10);
    need(lseek(fd, 5, SEEK_SET) == 5);
    by_fd(fd);
}

//# dir: argv=["arg0","one","two words",""] env=["A=1","B=2"] execfn="/dev/fd/11/show"
SCENARIO(dir) { at(open_at("/bin", O_RDONLY, 11), "show", 0); }
//# dir-cloexec: argv=["arg0"
SCENARIO(dir_cloexec) { at(open_at("/bin", O_RDONLY | O_CLOEXEC, 11), "show", 0); }
SCENARIO(dir_path) { at(open_at("/bin", O_PATH, 11), "../bin/show", 0); }
//# dir-script: argv=["/bin/show","/dev/fd/11/plain","one"
SCENARIO(dir_script) { at(open_at("/scripts", O_RDONLY, 11), "plain", 0); }
//# dir-script-cloexec: ENOENT
SCENARIO(dir_script_cloexec) { at(open_at("/scripts", O_RDONLY | O_CLOEXEC, 11), "plain", 0); }
SCENARIO(dir_script_relative) { at(open_at("/scripts", O_RDONLY, 11), "interpreter-relative", 0); }
//# dir-missing: ENOENT
SCENARIO(dir_missing) { at(open_at("/bin", O_RDONLY, 11), "missing", 0); }
SCENARIO(dir_absolute) { at(open_at("/scripts", O_RDONLY, 11), SHOW, 0); }
//# bad-dir-absolute: argv=["arg0"
SCENARIO(bad_dir_absolute) { at(99, SHOW, 0); }
//# bad-dir: EBADF
SCENARIO(bad_dir) { at(99, "show", 0); }
SCENARIO(bad_dir_script) { at(99, "/scripts/plain", 0); }
//# bad-fd: EBADF
SCENARIO(bad_fd) { by_fd(99); }
SCENARIO(fd_negative) { by_fd(-1); }
//# dir-is-a-file: ENOTDIR
SCENARIO(dir_is_a_file) { at(open_at(SHOW, O_RDONLY, 11), "show", 0); }
SCENARIO(cwd_relative) {
    need(!chdir("/bin"));
    at(AT_FDCWD, "show", 0);
}
SCENARIO(dir_private) {
    as_root_only();
    int dir = open_at("/private", O_RDONLY, 11);
    become_nobody();
    at(dir, "show", 0);
}

//# empty: ENOENT
SCENARIO(empty) { at(open_at(SHOW, O_RDONLY, 10), "", 0); }
//# empty-cwd: EACCES
SCENARIO(empty_cwd) { at(AT_FDCWD, "", AT_EMPTY_PATH); }
SCENARIO(empty_and_null) { at(open_at(SHOW, O_RDONLY, 10), NULL, AT_EMPTY_PATH); }
SCENARIO(empty_flag_with_path) { at(open_at("/bin", O_RDONLY, 11), "show", AT_EMPTY_PATH); }
SCENARIO(empty_and_nofollow) { at(open_at(SHOW, O_RDONLY, 10), "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW); }

//# nofollow: argv=["arg0"
SCENARIO(nofollow) { at(AT_FDCWD, SHOW, AT_SYMLINK_NOFOLLOW); }
//# nofollow-link: ELOOP
SCENARIO(nofollow_link) { at(AT_FDCWD, "/links/1", AT_SYMLINK_NOFOLLOW); }
SCENARIO(nofollow_dangling) { at(AT_FDCWD, "/links/dangling", AT_SYMLINK_NOFOLLOW); }
//# nofollow-through-link: argv=["arg0"
SCENARIO(nofollow_through_link) { at(AT_FDCWD, "/links/bin/show", AT_SYMLINK_NOFOLLOW); }
SCENARIO(nofollow_link_to_script) { at(AT_FDCWD, "/links/script", AT_SYMLINK_NOFOLLOW); }
// The interpreter may be a link all the same.
SCENARIO(nofollow_linked_interpreter) { at(AT_FDCWD, "/scripts/interpreter-link", AT_SYMLINK_NOFOLLOW); }
SCENARIO(nofollow_proc_fd) {
    open_at(SHOW, O_RDONLY, 10);
    at(AT_FDCWD, "/proc/self/fd/10", AT_SYMLINK_NOFOLLOW);
}
// O_PATH | O_NOFOLLOW gets hold of the link itself.
//# fd-of-link: ELOOP
SCENARIO(fd_of_link) { by_fd(open_at("/links/1", O_PATH | O_NOFOLLOW, 10)); }

//# bad-flags: EINVAL
SCENARIO(bad_flags) { at(AT_FDCWD, SHOW, 0x4000); }
SCENARIO(bad_flags_follow) { at(AT_FDCWD, SHOW, AT_SYMLINK_FOLLOW); }
SCENARIO(bad_flags_negative) { at(AT_FDCWD, SHOW, -1); }
// Linux 6.14 looks whether it would do, and does not.
SCENARIO(check) { at(AT_FDCWD, SHOW, AT_EXECVE_CHECK); }
SCENARIO(check_fd) { at(open_at(SHOW, O_RDONLY, 10), "", AT_EMPTY_PATH | AT_EXECVE_CHECK); }
SCENARIO(check_missing) { at(AT_FDCWD, "/missing", AT_EXECVE_CHECK); }
SCENARIO(check_not_executable) { at(AT_FDCWD, "/files/mode-0644", AT_EXECVE_CHECK); }
SCENARIO(check_text) { at(AT_FDCWD, "/elf/text", AT_EXECVE_CHECK); }
SCENARIO(check_bad_script) { at(AT_FDCWD, "/scripts/interpreter-missing", AT_EXECVE_CHECK); }
SCENARIO(check_bad_argv) { syscall(SYS_execveat, AT_FDCWD, SHOW, 1, NULL, AT_EXECVE_CHECK); }

//# fd-of-directory: EACCES
SCENARIO(fd_of_directory) { by_fd(open_at("/bin", O_RDONLY, 10)); }
//# fd-of-device: EACCES
SCENARIO(fd_of_device) { by_fd(open_at("/dev/null", O_RDONLY, 10)); }
SCENARIO(fd_of_proc_file) { by_fd(open_at("/proc/self/maps", O_RDONLY, 10)); }
SCENARIO(fd_of_fifo) { by_fd(open_at("/files/fifo", O_PATH, 10)); }
SCENARIO(fd_of_socket_file) { by_fd(open_at("/files/socket", O_PATH, 10)); }
SCENARIO(fd_of_pipe) {
    int ends[2];
    need(!pipe(ends));
    by_fd(at_number(ends[0], 10, 0));
}
SCENARIO(fd_of_socket) { by_fd(at_number(socket(AF_UNIX, SOCK_STREAM, 0), 10, 0)); }
SCENARIO(fd_of_eventfd) { by_fd(at_number(eventfd(0, 0), 10, 0)); }
SCENARIO(fd_of_epoll) { by_fd(at_number(epoll_create1(0), 10, 0)); }
//# fd-not-executable: EACCES
SCENARIO(fd_not_executable) { by_fd(open_at("/files/mode-0644", O_RDONLY, 10)); }
SCENARIO(fd_noexec_mount) { by_fd(open_at("/tmp/noexec/show", O_RDONLY, 10)); }
// Permission is what the file's mode gives now, whoever opened it.
SCENARIO(fd_of_mode_0700) {
    as_root_only();
    int fd = open_at("/files/mode-0700", O_RDONLY, 10);
    become_nobody();
    by_fd(fd);
}
SCENARIO(fd_in_private) {
    as_root_only();
    int fd = open_at("/private/show", O_RDONLY, 10);
    become_nobody();
    by_fd(fd);
}
SCENARIO(fd_unreadable) { by_fd(open_at("/files/mode-0711", O_PATH, 10)); }
AS_NOBODY(fd_unreadable)
SCENARIO(fd_script_unreadable) { by_fd(open_at("/scripts/mode-0711", O_PATH, 10)); }
AS_NOBODY(fd_script_unreadable)

//# fd-for-writing: ETXTBSY
SCENARIO(fd_for_writing) {
    copy(SHOW, "/tmp/show", 0755);
    by_fd(open_at("/tmp/show", O_RDWR, 10));
}
SCENARIO(fd_write_only) {
    copy(SHOW, "/tmp/show", 0755);
    by_fd(open_at("/tmp/show", O_WRONLY, 10));
}
//# deleted: argv=["arg0","one","two words",""] env=["A=1","B=2"] execfn="/dev/fd/10"
SCENARIO(deleted) {
    copy(SHOW, "/tmp/show", 0755);
    int fd = open_at("/tmp/show", O_RDONLY, 10);
    need(!unlink("/tmp/show"));
    by_fd(fd);
}
SCENARIO(deleted_script) {
    write_file("/tmp/script", "#!/bin/show\n", 0755);
    int fd = open_at("/tmp/script", O_RDONLY, 10);
    need(!unlink("/tmp/script"));
    by_fd(fd);
}
//# deleted-by-proc: argv=["arg0"
SCENARIO(deleted_by_proc) {
    copy(SHOW, "/tmp/show", 0755);
    open_at("/tmp/show", O_RDONLY, 10);
    need(!unlink("/tmp/show"));
    by_path("/proc/self/fd/10");
}
SCENARIO(replaced) {
    copy(SHOW, "/tmp/show", 0755);
    write_file("/tmp/other", "not a program\n", 0755);
    open_at("/tmp/show", O_RDONLY, 10);
    need(!rename("/tmp/other", "/tmp/show"));
    by_path("/proc/self/fd/10");
}
//# proc-fd: argv=["arg0","one","two words",""] env=["A=1","B=2"] execfn="/proc/self/fd/10" comm="10" cmdline
SCENARIO(proc_fd) {
    open_at(SHOW, O_RDONLY, 10);
    by_path("/proc/self/fd/10");
}
SCENARIO(proc_fd_cloexec) {
    open_at(SHOW, O_RDONLY | O_CLOEXEC, 10);
    by_path("/proc/self/fd/10");
}
SCENARIO(dev_fd) {
    open_at(SHOW, O_RDONLY, 10);
    by_path("/dev/fd/10");
}
SCENARIO(dev_stdin) {
    open_at(SHOW, O_RDONLY, 0);
    by_path("/dev/stdin");
}
SCENARIO(proc_fd_script) {
    open_at("/scripts/plain", O_RDONLY, 10);
    by_path("/proc/self/fd/10");
}
// By a path it is no matter of execve that the interpreter will not find it.
//# proc-fd-script-cloexec: argv=["/bin/show","/proc/self/fd/10","one"
SCENARIO(proc_fd_script_cloexec) {
    open_at("/scripts/plain", O_RDONLY | O_CLOEXEC, 10);
    by_path("/proc/self/fd/10");
}
SCENARIO(dev_fd_script_cloexec) {
    open_at("/scripts/plain", O_RDONLY | O_CLOEXEC, 10);
    by_path("/dev/fd/10");
}
SCENARIO(proc_fd_pipe) {
    int ends[2];
    need(!pipe(ends));
    at_number(ends[0], 10, 0);
    by_path("/proc/self/fd/10");
}
//# proc-fd-missing: ENOENT
SCENARIO(proc_fd_missing) { by_path("/proc/self/fd/99"); }

static int memfd_with(const char *path, unsigned flags) {
    static char part[1 << 16];
    // 0x10 is MFD_EXEC of Linux 6.3.
    int in = open(path, O_RDONLY), fd = syscall(SYS_memfd_create, "of the test", flags | 0x10);
    if (fd < 0)
        fd = syscall(SYS_memfd_create, "of the test", flags);
    need(in >= 0 && fd >= 0);
    for (ssize_t len; (len = read(in, part, sizeof part)) > 0;)
        need(write(fd, part, len) == len);
    need(!close(in));
    return fd;
}
// Open for writing, and executed all the same.
SCENARIO(memfd) { by_fd(at_number(memfd_with(SHOW, 0), 10, 0)); }
SCENARIO(memfd_sealed) {
    int fd = memfd_with(SHOW, MFD_ALLOW_SEALING);
    need(!fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK));
    by_fd(at_number(fd, 10, 0));
}
// Reopened for reading, and the one that can write closed.
//# memfd-reopened: argv=["arg0"
SCENARIO(memfd_reopened) {
    int fd = at_number(memfd_with(SHOW, 0), 9, 0);
    open_at("/proc/self/fd/9", O_RDONLY, 10);
    need(!close(fd));
    by_fd(10);
}
SCENARIO(memfd_reopened_by_path) {
    int fd = at_number(memfd_with(SHOW, 0), 9, 0);
    open_at("/proc/self/fd/9", O_RDONLY, 10);
    need(!close(fd));
    by_path("/proc/self/fd/10");
}
SCENARIO(memfd_script) {
    int fd = at_number(memfd_with("/scripts/plain", 0), 9, 0);
    open_at("/proc/self/fd/9", O_RDONLY, 10);
    need(!close(fd));
    by_fd(10);
}

// What the new program has: all that is not close-on-exec, with its flags and offset.
//# kept-and-closed: argv=["arg0","one","two words",""] env=["A=1","B=2"] execfn="/bin/show"
SCENARIO(kept_and_closed) {
    open_at("/dev/null", O_RDWR | O_APPEND, 5);
    open_at("/dev/null", O_RDONLY | O_CLOEXEC, 6);
    open_at("/dev/zero", O_RDONLY, 7);
    need(lseek(open_at("/scripts/plain", O_RDONLY, 8), 3, SEEK_SET) == 3);
    open_at("/bin", O_PATH, 63);
    open_at("/bin", O_RDONLY, 64);
    open_at("/dev/null", O_RDONLY | O_CLOEXEC, 65);
    open_at("/dev/null", O_WRONLY | O_NONBLOCK, 198);
    open_at("/dev/null", O_WRONLY | O_CLOEXEC, 199);
    by_path(SHOW);
}
SCENARIO(kept_and_closed_script) {
    open_at("/dev/null", O_RDONLY, 5);
    open_at("/dev/null", O_RDONLY | O_CLOEXEC, 6);
    by_path("/scripts/plain");
}
// A copy of one that is close-on-exec is not.
SCENARIO(copies) {
    int fd = open_at("/dev/null", O_RDONLY | O_CLOEXEC, 5);
    need(dup2(fd, 6) == 6 && fcntl(fd, F_DUPFD, 7) == 7 && fcntl(fd, F_DUPFD_CLOEXEC, 8) == 8);
    by_path(SHOW);
}
SCENARIO(stdin_closed) {
    need(!close(0));
    by_path(SHOW);
}
SCENARIO(stdin_closed_script) {
    need(!close(0));
    by_path("/scripts/plain");
}
SCENARIO(stdin_and_stderr_closed) {
    need(!close(0) && !close(2));
    by_path(SHOW);
}
// All three: the answer is at another number.
SCENARIO(all_closed) {
    need(dup2(1, 20) == 20 && !close(0) && !close(1) && !close(2));
    execve(SHOW, ARGV, ARGS("SHOW=fds", "TO=20"));
}
SCENARIO(stdin_cloexec) {
    need(!fcntl(0, F_SETFD, FD_CLOEXEC));
    by_path(SHOW);
}

// execve needs no free descriptor.
static void limit_descriptors(rlim_t soft, rlim_t hard) { need(!setrlimit(RLIMIT_NOFILE, &(struct rlimit){soft, hard})); }

//# limit-20: argv=["arg0"
SCENARIO(limit_20) {
    limit_descriptors(20, 20);
    by_path(SHOW);
}
SCENARIO(limit_20_script) {
    limit_descriptors(20, 20);
    by_path("/scripts/plain");
}
SCENARIO(limit_20_fd) {
    limit_descriptors(20, 20);
    by_fd(open_at(SHOW, O_RDONLY | O_CLOEXEC, 10));
}
SCENARIO(limit_20_open_above) {
    open_at("/dev/null", O_RDONLY, 100);
    limit_descriptors(20, 20);
    by_path(SHOW);
}
AS_NOBODY(limit_20)
// As low as can be: nothing can be opened, a dynamic program cannot start.
SCENARIO(limit_0) {
    limit_descriptors(0, 0);
    execve("/bin/busybox", ARGS("echo", "started"), ENV(""));
}
SCENARIO(limit_0_missing) {
    limit_descriptors(0, 0);
    by_path("/missing");
}
//# limit-0-not-executable: EACCES
SCENARIO(limit_0_not_executable) {
    limit_descriptors(0, 0);
    by_path("/files/mode-0644");
}
static void fill(int flags) {
    limit_descriptors(30, 30);
    while (open("/dev/null", O_RDONLY | flags) >= 0)
        ;
    need(errno == EMFILE);
}
//# table-full: started
SCENARIO(table_full) {
    fill(0);
    execve("/bin/busybox", ARGS("echo", "started"), ENV(""));
}
//# table-full-cloexec: argv=["arg0"
SCENARIO(table_full_cloexec) {
    fill(O_CLOEXEC);
    by_path(SHOW);
}
//# table-full-missing: ENOENT
SCENARIO(table_full_missing) {
    fill(0);
    by_path("/missing");
}
SCENARIO(table_full_script) {
    fill(O_CLOEXEC);
    by_path("/scripts/plain");
}
SCENARIO(nobody_table_full) {
    fill(0);
    become_nobody();
    execve("/bin/busybox", ARGS("echo", "started"), ENV(""));
}

// A lock of fcntl(2) is the process's: it stays over execve, and over one that fails; closing any descriptor of the file
// would end it.
static void say_lock(void) {
    pid_t child = fork();
    if (!child) {
        struct flock lock = {.l_type = F_WRLCK};
        int fd = open("/tmp/locked", O_RDONLY | O_CLOEXEC);
        need(fd >= 0 && !fcntl(fd, F_GETLK, &lock));
        say("%s", lock.l_type == F_UNLCK ? "not locked" : "locked");
        _exit(0);
    }
    finish(child);
}

static void lock_file(const char *contents) {
    if (contents)
        write_file("/tmp/locked", contents, 0755);
    else
        copy(SHOW, "/tmp/locked", 0755);
    need(!fcntl(open_at("/tmp/locked", O_RDONLY, 5), F_SETLK, &(struct flock){.l_type = F_RDLCK}));
}
//# lock-over-failure: ENOEXEC: locked
SCENARIO(lock_over_failure) {
    lock_file("no program\n");
    execute("/tmp/locked");
    say("%s: ", errno_name(errno));
    say_lock();
    done();
}
SCENARIO(lock_over_failing_script) {
    lock_file("#!/missing\n");
    execute("/tmp/locked");
    say("%s: ", errno_name(errno));
    say_lock();
    done();
}
// The new program, which is the locked file itself, waits until the lock has been asked for.
//# lock-kept: locked
SCENARIO(lock_kept) {
    copy("/bin/cat", "/tmp/locked", 0755);
    int to[2], from[2];
    need(!pipe2(to, O_CLOEXEC) && !pipe2(from, O_CLOEXEC));
    pid_t child = fork();
    if (!child) {
        need(!fcntl(open_at("/tmp/locked", O_RDONLY, 5), F_SETLK, &(struct flock){.l_type = F_RDLCK}));
        need(dup2(to[0], 0) == 0 && dup2(from[1], 1) == 1);
        execve("/tmp/locked", ARGS("cat"), ENV(""));
        _exit(95);
    }
    char byte;
    need(!close(from[1]) && write(to[1], "x", 1) == 1 && read(from[0], &byte, 1) == 1);
    say_lock();
    close(to[1]);
    finish(child);
    done();
}

int main(int argc, char **argv) {
    (void)argc;
    return run_scenarios(argv + 1);
}
