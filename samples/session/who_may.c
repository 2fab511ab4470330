// What a process of a session can do that it must not. Prints a line for each way: the errno's name, or what it got.
//
//     who_may device            the image's descriptor: every way to a byte of it, or to another descriptor
//     who_may filter FILE       every way to get rid of the filter and its handler; then FILE is mapped: from where
//     who_may tail FILE         what is behind the end of FILE in its last page, however that is mapped
//     who_may open FILE         opens it for reading; who we are
//     who_may as UID ...        the same, executed as that user
//     who_may run PROGRAM ...   executes it
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "session_fds.h"

enum { PAGE = 4096, IMAGE = SESSION_FD_IMAGE };

static char text[1 << 16];

static void say(const char *name, long answer) {
    if (answer == -1)
        printf("%s: %s\n", name, strerrorname_np(errno));
    else
        printf("%s: %ld\n", name, answer);
}

static void say_map(const char *name, int prot, int flags, int fd) {
    void *at = mmap(NULL, PAGE, prot, flags, fd, 0);
    say(name, at == MAP_FAILED ? -1 : 0);
    if (at != MAP_FAILED)
        munmap(at, PAGE);
}

// Another process that has the descriptor, by a message.
static int passed(int fd) {
    int ends[2], got = -1;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
        return -1;
    char byte = 'x', room[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    *head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
    if (sendmsg(ends[0], &message, 0) == 1 && recvmsg(ends[1], &message, 0) == 1)
        memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof got);
    return got;
}

static void through(const char *name, int fd) {
    char line[60], byte;
#define SAY(what, answer) snprintf(line, sizeof line, "%s " what, name), say(line, answer)
    SAY("read", read(fd, &byte, 1));
    SAY("pread", pread(fd, &byte, 1, 0));
    SAY("lseek", lseek(fd, 0, SEEK_END));
    SAY("ioctl", ioctl(fd, FIONREAD, line));
    snprintf(line, sizeof line, "%s mmap", name);
    say_map(line, PROT_READ, MAP_PRIVATE, fd);
    snprintf(line, sizeof line, "%s mmap shared", name);
    say_map(line, PROT_READ, MAP_SHARED, fd);
    SAY("pwrite", pwrite(fd, "x", 1, 0));
    snprintf(line, sizeof line, "%s mmap to write", name);
    say_map(line, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    SAY("ftruncate", ftruncate(fd, 1));
    SAY("sendfile", sendfile(1, fd, NULL, 1));
    int pipe_ends[2];
    if (!pipe(pipe_ends)) {
        SAY("splice", splice(fd, NULL, pipe_ends[1], NULL, 1, 0));
        close(pipe_ends[0]), close(pipe_ends[1]);
    }
    SAY("copy_file_range", copy_file_range(fd, NULL, 1, NULL, 1, 0));
    SAY("fchmod", fchmod(fd, 0666));
    SAY("fchown", fchown(fd, getuid(), -1));
    char *empty[] = {"x", NULL};
    SAY("execveat", syscall(SYS_execveat, fd, "", empty, empty + 1, AT_EMPTY_PATH));
    SAY("linkat", linkat(fd, "", AT_FDCWD, "/tmp/link", AT_EMPTY_PATH));
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    SAY("open again", open(path, O_RDONLY));
    SAY("open again to write", open(path, O_RDWR));
    SAY("link again", linkat(AT_FDCWD, path, AT_FDCWD, "/tmp/link", AT_SYMLINK_FOLLOW));
    SAY("chmod again", chmod(path, 0666));
    SAY("execute again", execve(path, empty, empty + 1));
    struct {
        struct file_handle head;
        char room[128];
    } handle = {.head.handle_bytes = 128};
    int mount_id;
    if (!name_to_handle_at(fd, "", &handle.head, &mount_id, AT_EMPTY_PATH))
        SAY("open by handle", open_by_handle_at(AT_FDCWD, &handle.head, O_RDONLY));
#undef SAY
}

static int device(void) {
    through("inherited", IMAGE);
    through("dup", dup(IMAGE));
    through("passed", passed(IMAGE));
    // Those that have more rights, and the handler's own ways.
    say("ptrace", ptrace(PTRACE_SEIZE, getppid(), 0, 0));
    char path[40];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", getppid(), IMAGE);
    say("the parent's", open(path, O_RDONLY));
    snprintf(path, sizeof path, "/proc/%d/mem", getppid());
    say("the parent's memory", open(path, O_RDONLY));
    say("pidfd", syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, getppid(), 0), IMAGE, 0));
    snprintf(path, sizeof path, "/proc/self/fd/%d", IMAGE);
    say("mount", mount(path, "/tmp", NULL, MS_BIND, NULL));
    return 0;
}

static const char *line_of(const void *at) {
    int fd = open("/proc/self/maps", O_RDONLY), len = 0;
    for (ssize_t got; (got = read(fd, text + len, sizeof text - 1 - len)) > 0;)
        len += got;
    text[len] = 0;
    close(fd);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        unsigned long start, end;
        if (sscanf(line, "%lx-%lx", &start, &end) == 2 && start <= (unsigned long)at && (unsigned long)at < end)
            return strchr(line, '/') ? strchr(line, '/') : "nothing";
    }
    return "nowhere";
}

static int filter(const char *file) {
    say("disable", prctl(PR_SET_SECCOMP, SECCOMP_MODE_DISABLED, 0, 0, 0));
    say("strict", prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0));
    // Filters add up: one that lets everything pass changes nothing.
    struct sock_filter pass = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {1, &pass};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    say("allow all", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
    pid_t child = fork();
    if (child == 0)
        pause(), _exit(0);
    say("suspend", ptrace(PTRACE_SEIZE, child, 0, PTRACE_O_SUSPEND_SECCOMP));
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    struct sigaction action = {.sa_handler = SIG_DFL};
    say("default action", sigaction(SIGSYS, &action, NULL));
    action.sa_handler = SIG_IGN;
    say("ignore", sigaction(SIGSYS, &action, NULL));
    sigset_t all;
    sigfillset(&all);
    say("block", sigprocmask(SIG_BLOCK, &all, NULL));
    say("close", close(IMAGE));
    say("dup2", dup2(0, IMAGE + 1));
    say("close_range", syscall(SYS_close_range, 3, ~0U, 0));
    int fd = open(file, O_RDONLY);
    void *at = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
    printf("mapped: %s\n", at == MAP_FAILED ? strerrorname_np(errno) : line_of(at));
    fflush(stdout);
    // It is there for what comes from this process, and after execve(2).
    if (fork() == 0)
        execl("/proc/self/exe", "who_may", "seccomp", NULL);
    wait(NULL);
    return 0;
}

// All bytes behind a file's end in its last page are zero, however it is mapped.
static int tail(const char *file) {
    int fd = open(file, O_RDONLY);
    struct stat stat;
    fstat(fd, &stat);
    size_t whole = (stat.st_size + PAGE - 1) / PAGE * PAGE;
    for (int way = 0; way < 4; way++) {
        static const char *NAMES[] = {"private", "shared", "writable", "executable"};
        int prot = way == 2 ? PROT_READ | PROT_WRITE : way == 3 ? PROT_READ | PROT_EXEC : PROT_READ;
        const char *at = mmap(NULL, whole, prot, way == 1 ? MAP_SHARED : MAP_PRIVATE, fd, 0);
        size_t strange = 0;
        for (size_t i = stat.st_size; at != MAP_FAILED && i < whole; i++)
            strange += at[i] != 0;
        printf("%s: %zu of %zu\n", NAMES[way], strange, whole - stat.st_size);
    }
    return 0;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 3 && !strcmp(argv[1], "as")) {
        int id = atoi(argv[2]);
        if (setgroups(0, NULL) || setgid(id) || setuid(id))
            return 3;
        execv("/proc/self/exe", argv + 2);
        return 4;
    }
    if (argc > 2 && !strcmp(argv[1], "run")) {
        execv(argv[2], argv + 2);
        return 5;
    }
    if (argc == 2 && !strcmp(argv[1], "device"))
        return device();
    if (argc == 2 && !strcmp(argv[1], "seccomp")) {
        char comm[16] = "";
        printf("mode: %d\n", prctl(PR_GET_SECCOMP, 0, 0, 0, 0));
        printf("comm: %s\n", prctl(PR_GET_NAME, comm) ? "" : comm);
        return 0;
    }
    if (argc == 3 && !strcmp(argv[1], "filter"))
        return filter(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "tail"))
        return tail(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "open")) {
        say("open", open(argv[2], O_RDONLY) < 0 ? -1 : 0);
        printf("uid: %d %d\n", getuid(), geteuid());
        return 0;
    }
    return 2;
}
