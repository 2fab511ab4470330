// What would change a file or a directory of the image, by every call that can: the errors are those of a filesystem that is
// mounted read-only, in the kernel's order, for root and for others.
#include "lines.h"
#include <sys/statvfs.h>

static const char *user;
static struct words words;
static const char *last_name;

static void flush(const char *scenario) {
    char name[128];
    snprintf(name, sizeof name, "%s, %s", scenario, user);
    line(name, "%s", all_words(&words));
    words = (struct words){.len = 0};
}
// Each call by its name and what it answers; one that succeeds where none may is told apart.
static void did(const char *name, long result) {
    char word[32];
    snprintf(word, sizeof word, "%s=%s", name, err(result));
    last_name = name;
    add_word(&words, word);
}
#define DO(name, ...) did(#name, RAW(SYS_##name, __VA_ARGS__))

static const char *const paths[] = {"/var/files/direct",     "/var/files/compressed", "/var/files/empty", "/var/files",
                                    "/var/files/none",       "/var/files/none/none",  "/var/files/direct/none", "/var/files/."};

static void by_path(const char *path) {
    static const int ways[] = {O_RDONLY,           O_WRONLY,          O_RDWR,           O_RDONLY | O_TRUNC,
                               O_WRONLY | O_TRUNC, O_RDWR | O_APPEND, O_RDWR | O_CREAT, O_RDONLY | O_CREAT,
                               O_WRONLY | O_CREAT | O_EXCL, O_RDWR | O_TMPFILE, O_PATH | O_RDWR};
    char scenario[128];
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        long fd = RAW(SYS_openat, AT_FDCWD, path, ways[i] | O_CLOEXEC, 0600);
        did("open", fd);
        if (!failed(fd))
            close(fd);
    }
    snprintf(scenario, sizeof scenario, "%s opened", path);
    flush(scenario);
    for (int mode = 0; mode < 8; mode++)
        DO(faccessat, AT_FDCWD, path, mode);
    snprintf(scenario, sizeof scenario, "%s accessed", path);
    flush(scenario);
    struct timespec times[2] = {{1, 0}, {2, 0}};
    DO(truncate, path, 5);
    DO(truncate, path, -1);
    DO(unlinkat, AT_FDCWD, path, 0);
    DO(unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
    DO(mkdirat, AT_FDCWD, path, 0700);
    DO(mknodat, AT_FDCWD, path, S_IFREG | 0600, 0);
    DO(mknodat, AT_FDCWD, path, S_IFIFO | 0600, 0);
    DO(symlinkat, "somewhere", AT_FDCWD, path);
    DO(linkat, AT_FDCWD, path, AT_FDCWD, "/var/files/other", 0);
    DO(linkat, AT_FDCWD, "/var/files/direct", AT_FDCWD, path, 0);
    DO(renameat2, AT_FDCWD, path, AT_FDCWD, "/var/files/other", 0);
    DO(renameat2, AT_FDCWD, "/var/files/direct", AT_FDCWD, path, 0);
    DO(renameat2, AT_FDCWD, "/var/files/direct", AT_FDCWD, path, 1 /* RENAME_NOREPLACE */);
    DO(fchmodat, AT_FDCWD, path, 0777);
    DO(fchownat, AT_FDCWD, path, 1, 1, 0);
    DO(fchownat, AT_FDCWD, path, -1, -1, 0);
    DO(utimensat, AT_FDCWD, path, times, 0);
    DO(utimensat, AT_FDCWD, path, NULL, 0);
    DO(setxattr, path, "user.name", "value", 5, 0);
    DO(removexattr, path, "user.name");
    snprintf(scenario, sizeof scenario, "%s changed", path);
    flush(scenario);
}

static void by_descriptor(const char *path) {
    int fd = open_file(path), other = open_file("/var/files/pages"), pipes[2];
    char scenario[128], byte = 0;
    struct timespec times[2] = {{1, 0}, {2, 0}};
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    loff_t at = 0;
    if (pipe(pipes) || write(pipes[1], "x", 1) != 1)
        broken("pipe");
    DO(write, fd, &byte, 1);
    DO(pwrite64, fd, &byte, 1, 0);
    DO(ftruncate, fd, 0);
    DO(fallocate, fd, 0, 0, 4096);
    DO(fallocate, fd, 3 /* FALLOC_FL_PUNCH_HOLE, KEEP_SIZE */, 0, 4096);
    DO(fchmod, fd, 0777);
    DO(fchown, fd, 1, 1);
    DO(utimensat, fd, NULL, times, 0);
    DO(fsetxattr, fd, "user.name", "value", 5, 0);
    DO(sendfile, fd, other, NULL, 1);
    DO(splice, pipes[0], NULL, fd, &at, 1, 0);
    DO(copy_file_range, other, NULL, fd, NULL, 1, 0);
    DO(fcntl, fd, F_SETLK, &lock);
    DO(fcntl, fd, F_ADD_SEALS, F_SEAL_WRITE);
    DO(fcntl, fd, F_SETFL, O_APPEND);
    DO(fcntl, fd, F_GETFL);
    DO(fsync, fd);
    DO(fdatasync, fd);
    DO(syncfs, fd);
    // Reading stays what it was.
    DO(sendfile, pipes[1], fd, &at, 1);
    DO(lseek, fd, 0, SEEK_DATA);
    DO(readahead, fd, 0, 4096);
    DO(fadvise64, fd, 0, 0, POSIX_FADV_DONTNEED);
    DO(flock, fd, 2 /* LOCK_EX */);
    snprintf(scenario, sizeof scenario, "%s by its descriptor", path);
    flush(scenario);
    close(pipes[0]);
    close(pipes[1]);
    close(other);
    close(fd);
}

static void all(const char *name) {
    user = name;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        by_path(paths[i]);
    for (size_t i = 0; i < 3; i++)
        by_descriptor(paths[i]);
    struct statvfs vfs;
    line(user, "%s", statvfs("/var/files", &vfs) ? err(-errno) : vfs.f_flag & ST_RDONLY ? "read-only" : "DIFFERENT");
}

static void as_nobody(const char *scenario) {
    if (setgid(65534) || setuid(65534))
        broken(scenario);
    all("nobody");
}

int main(void) {
    all("root");
    apart("as nobody", as_nobody);
    line("end", "of %s", last_name ? "all" : "nothing");
}
