// Runs a command again and again; each time something happens to it, or to a process that it started, at another system call:
//
//     inject ACTION FIRST STEP COMMAND [ARG]...
//
// ACTION is `errno` (the call is not made and fails as it could fail), `every` (so do all that follow), `kill` (SIGKILL to the
// caller), `int` (SIGINT to the command's process group, as ^C does), `stop` (SIGSTOP, and SIGCONT when it has stopped), `storm`
// (at each call from that one on SIGCHLD, SIGWINCH and SIGALRM, which the command ignores, and now and then SIGSTOP and
// SIGCONT) or `none`. It happens at the call FIRST, then at FIRST + STEP ... until a command ends before it comes that far.
// A command makes the system call 777, which there is not, with 0 to have its calls counted from there on, and with 1 to have
// them counted no more. At the start they are counted, unless ACTION ends with `@`.
//
// Prints a line of JSON for every run: the call's number and name, who made it, how the command ended, what it printed, and
// what went wrong with its processes: `hang` if it did not end, `left` if others did not end after it. It waits for the last of
// them: a seccomp filter that nobody has any more tells its listener so. Nothing that a process of the command does is hidden
// from that, and every zombie comes to this process, which is a subreaper.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MARKER 777
#define WAIT_KILLABLE (1 << 5)

enum { HANG_MS = 20000, LEFT_MS = 5000 };

// What is counted, and how it fails; 0: it cannot, but signals come there too. (brk(2) answers no errno.)
static const struct call {
    int number;
    int error;
    const char *name;
} CALLS[] = {
#define CALL(name, error) {SYS_##name, error, #name}
    CALL(mmap, ENOMEM), CALL(mprotect, ENOMEM), CALL(mremap, ENOMEM), CALL(memfd_create, ENOMEM),
    CALL(munmap, 0), CALL(open, EMFILE), CALL(openat, EMFILE), CALL(pipe, ENFILE), CALL(pipe2, ENFILE), CALL(dup, EMFILE),
    CALL(dup2, EBUSY), CALL(dup3, EBUSY), CALL(fcntl, EMFILE), CALL(read, EIO), CALL(pread64, EIO), CALL(write, EIO),
    CALL(writev, EIO), CALL(pwrite64, ENOSPC), CALL(ftruncate, ENOSPC), CALL(fstat, ENOMEM), CALL(stat, ENOMEM),
    CALL(newfstatat, ENOMEM), CALL(statx, ENOMEM), CALL(readlink, ENOMEM), CALL(getdents64, EIO), CALL(lseek, EINVAL),
    CALL(clone, EAGAIN), CALL(fork, EAGAIN), CALL(vfork, EAGAIN), CALL(execve, ENOMEM), CALL(execveat, ENOMEM),
    CALL(unshare, ENOSPC), CALL(mount, ENOMEM), CALL(umount2, EBUSY), CALL(pivot_root, EBUSY), CALL(chroot, ENOMEM),
    CALL(chdir, EIO), CALL(fchdir, EIO), CALL(mount_setattr, ENOMEM), CALL(prctl, ENOMEM), CALL(seccomp, ENOMEM),
    CALL(capset, EPERM), CALL(setsid, EPERM), CALL(prlimit64, EPERM), CALL(fchmod, EPERM), CALL(faccessat2, EIO),
    CALL(close_range, ENOMEM), CALL(mincore, EAGAIN), CALL(close, 0), CALL(wait4, 0), CALL(rt_sigaction, 0),
    CALL(rt_sigprocmask, 0), CALL(brk, 0), CALL(exit_group, 0), CALL(poll, 0), CALL(ioctl, 0), CALL(capget, EINVAL),
};
enum { CALLS_LEN = sizeof CALLS / sizeof *CALLS };

static char *action;
static int only_marked;

static void die(const char *what) {
    perror(what);
    exit(2);
}

static long now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static int is(const char *name) {
    return !strcmp(action, name);
}

static const struct call *call_of(int number) {
    for (int i = 0; i < CALLS_LEN; i++)
        if (CALLS[i].number == number)
            return &CALLS[i];
    return NULL;
}

// Returns the listener's descriptor. The calls that this process still makes before the command are counted by nobody.
static int install(void) {
    enum { LEN = 2 * CALLS_LEN + 4 };
    static struct sock_filter filter[LEN];
    struct sock_filter *next = filter;
    *next++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i <= CALLS_LEN; i++) {
        unsigned number = i < CALLS_LEN ? (unsigned)CALLS[i].number : MARKER;
        *next++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
        *next++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    }
    *next++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {LEN, filter};
    if (geteuid() != 0)
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    int flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | WAIT_KILLABLE;
    int fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    // Linux before 5.19 lets signals interrupt a call that waits here: it is made, and counted, once more.
    return fd >= 0 ? fd : syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags & ~WAIT_KILLABLE, &program);
}

static void print_string(const char *name, const char *bytes, size_t len) {
    printf(",\"%s\":\"", name);
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = bytes[i];
        if (byte == '"' || byte == '\\')
            printf("\\%c", byte);
        else if (byte < ' ' || byte > '~')
            printf("\\u%04x", byte);
        else
            putchar(byte);
    }
    putchar('"');
}

static void print_file(const char *name, int fd) {
    static char text[1 << 16];
    ssize_t len = pread(fd, text, sizeof text, 0);
    print_string(name, text, len < 0 ? 0 : len);
}

static void read_comm(int pid, char comm[17]) {
    char path[40];
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 ? 0 : read(fd, comm, 16);
    comm[len > 0 ? len - 1 : 0] = 0;
    if (fd >= 0)
        close(fd);
}

static int is_stopped(int pid) {
    char path[40], text[200] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 1;
    ssize_t len = read(fd, text, sizeof text - 1);
    close(fd);
    return len <= 0 || strstr(text, ") T ") || strstr(text, ") Z ") || strstr(text, ") X ");
}

// It stops once its call is let go: it cannot do so before.
static void go_on(int pid) {
    for (int i = 0; i < 200 && !is_stopped(pid); i++)
        usleep(100);
    kill(pid, SIGCONT);
}

// Kills whatever is left of the command: children of this process, and theirs.
static void kill_all(int pid) {
    char path[60], text[4000] = "";
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", pid, pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t len = read(fd, text, sizeof text - 1);
    close(fd);
    text[len < 0 ? 0 : len] = 0;
    for (char *at = text, *end; (pid = strtol(at, &end, 10)) > 0; at = end) {
        kill_all(pid);
        kill(pid, SIGKILL);
    }
}

// One run. Returns whether it came as far as the call.
static int run(long target, char **command) {
    int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int out = memfd_create("stdout", MFD_CLOEXEC), err = memfd_create("stderr", MFD_CLOEXEC);
    volatile int *their_fd = shared, *go = shared + 1;
    *their_fd = -1;
    pid_t first = fork();
    if (first < 0)
        die("fork");
    if (first == 0) {
        int null = open("/dev/null", O_RDWR);
        dup2(null, 0), dup2(out, 1), dup2(err, 2), close(null);
        setpgid(0, 0);
        if (is("storm"))
            signal(SIGALRM, SIG_IGN);
        *their_fd = install();
        // No system call: it would be the first that is counted, and nobody listens yet.
        while (!*go)
            ;
        execvp(command[0], command);
        _exit(127);
    }
    int pidfd = syscall(SYS_pidfd_open, first, 0);
    while (*their_fd < 0)
        if (waitpid(first, NULL, WNOHANG))
            die("no seccomp listener");
    int listener = syscall(SYS_pidfd_getfd, pidfd, *their_fd, 0);
    if (pidfd < 0 || listener < 0)
        die("pidfd_getfd");
    close(pidfd);
    *go = 1;

    const struct call *what = NULL;
    char who[17] = "";
    int by_first = 0, status = -1, hang = 0, left = 0, armed = !only_marked;
    long count = 0, begin = now_ms(), ended = 0;
    for (;;) {
        struct pollfd poll_it = {listener, POLLIN, 0};
        poll(&poll_it, 1, 20);
        int ending;
        for (pid_t pid; (pid = waitpid(-1, &ending, WNOHANG | __WALL)) > 0;)
            if (pid == first)
                status = ending, ended = now_ms();
        if (poll_it.revents & POLLHUP && !(poll_it.revents & POLLIN))
            break;
        if (!hang && status < 0 && now_ms() - begin > HANG_MS)
            hang = 1;
        if (!left && ended && now_ms() - ended > LEFT_MS)
            left = 1;
        if (hang || left)
            kill_all(getpid());
        if (!(poll_it.revents & POLLIN))
            continue;
        struct seccomp_notif request = {0};
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request))
            continue;
        struct seccomp_notif_resp answer = {.id = request.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        const struct call *call = call_of(request.data.nr);
        int is_counted = call != NULL;
        if (!call) {
            armed = request.data.args[0] == 0;
        } else if (call->number == SYS_fcntl) {
            // Only what makes something.
            int how = request.data.args[1];
            is_counted = how == F_DUPFD || how == F_DUPFD_CLOEXEC || how == F_ADD_SEALS;
        } else if (call->number == SYS_prlimit64) {
            // To ask never fails.
            is_counted = request.data.args[2] != 0;
        } else if (call->number == SYS_write || call->number == SYS_writev) {
            // What is said is said.
            is_counted = request.data.args[0] > 2;
        }
        int may = is("errno") || is("every") ? call && call->error : 1;
        int is_now = is_counted && may && armed && ++count >= target && !is("none");
        int stops = 0;
        if (is_now && (count == target || is("every") || is("storm"))) {
            if (count == target) {
                what = call;
                read_comm(request.pid, who);
                by_first = (pid_t)request.pid == first;
            }
            if (is("errno") || is("every")) {
                answer.flags = 0;
                answer.error = -call->error;
            } else if (is("kill")) {
                kill(request.pid, SIGKILL);
            } else if (is("int")) {
                kill(-first, SIGINT);
            } else if (is("storm")) {
                kill(request.pid, SIGCHLD), kill(request.pid, SIGWINCH), kill(request.pid, SIGALRM);
                stops = count % 16 == 0;
            } else {
                stops = 1;
            }
            if (stops)
                kill(request.pid, SIGSTOP);
        }
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
        if (stops)
            go_on(request.pid);
    }
    // Those that have no filter any more end at once.
    if (status < 0)
        waitpid(first, &status, 0);
    while (waitpid(-1, NULL, __WALL) > 0)
        ;
    printf("{\"n\":%ld,\"calls\":%ld,\"reached\":%s,\"first\":%s,\"code\":%d,\"signal\":%d,\"hang\":%s,\"left\":%s",
           target, count, what ? "true" : "false", by_first ? "true" : "false",
           WIFEXITED(status) ? WEXITSTATUS(status) : -1, WIFSIGNALED(status) ? WTERMSIG(status) : 0,
           hang ? "true" : "false", left ? "true" : "false");
    print_string("call", what ? what->name : "", what ? strlen(what->name) : 0);
    print_string("who", who, strlen(who));
    print_file("out", out);
    print_file("err", err);
    printf("}\n");
    fflush(stdout);
    close(out), close(err), close(listener);
    munmap(shared, 4096);
    return what != NULL;
}

int main(int argc, char **argv) {
    if (argc < 5) {
        fprintf(stderr, "inject ACTION FIRST STEP COMMAND [ARG]...\n");
        return 2;
    }
    // Descriptors that this process was started with are none of the command.
    close_range(3, ~0U, 0);
    action = argv[1];
    char *mark = strchr(action, '@');
    if (mark)
        *mark = 0, only_marked = 1;
    long target = atol(argv[2]), step = atol(argv[3]);
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
        die("prctl");
    while (run(target, argv + 4) && step > 0)
        target += step;
    return 0;
}
