// Who executes: threads, vfork and clone children, posix_spawn, popen, system; and what of the parent is left as it was.
#include "exec.h"
#include <pthread.h>
#include <sched.h>
#include <spawn.h>

static void execute_showing(const char *path) { execve(path, ARGV, ENV("fds process signals")); }

// Threads. The one that executes becomes the process; the others are gone. A failing execve harms nobody.
static volatile int beats;
static void *beat(void *unused) {
    for (;; usleep(500))
        beats++;
    return unused;
}

// While another thread executes something a new one may be refused: EAGAIN, of copy_fs().
static pthread_t start(pthread_attr_t *attributes, void *(*function)(void *), void *argument) {
    pthread_t thread;
    int error;
    while ((error = pthread_create(&thread, attributes, function, argument)) == EAGAIN)
        usleep(100);
    errno = error;
    need(!error);
    return thread;
}

static void start_others(int count) {
    for (int i = 0; i < count; i++)
        start(NULL, beat, NULL);
}

static const char *thread_path = SHOW;
static void *executing_thread(void *unused) {
    execute_showing(thread_path);
    say("%s", errno_name(errno));
    return unused;
}

static void from_thread(const char *path, size_t stack) {
    pthread_attr_t attributes;
    thread_path = path;
    need(!pthread_attr_init(&attributes) && (!stack || !pthread_attr_setstacksize(&attributes, stack)));
    need(!pthread_join(start(&attributes, executing_thread, NULL), NULL));
    // Not after a success.
    int seen = beats;
    if (seen)
        while (beats < seen + 3)
            usleep(500);
    say(", others live");
    done();
}

//# thread: argv=["arg0"
SCENARIO(thread) { from_thread(SHOW, 0); }
SCENARIO(thread_script) { from_thread("/scripts/plain", 0); }
SCENARIO(thread_static) { from_thread("/shows/static", 0); }
//# thread-missing: ENOENT, others live
SCENARIO(thread_missing) {
    start_others(3);
    beats = 1;
    from_thread("/missing", 0);
}
//# thread-among-others: argv=["arg0"
SCENARIO(thread_among_others) {
    start_others(8);
    from_thread(SHOW, 0);
}
SCENARIO(main_among_others) {
    start_others(8);
    execute_showing(SHOW);
}
SCENARIO(thread_among_others_script) {
    start_others(8);
    from_thread("/scripts/plain", 0);
}
SCENARIO(thread_of_smallest_stack) { from_thread(SHOW, PTHREAD_STACK_MIN); }
SCENARIO(thread_of_smallest_stack_missing) { from_thread("/missing", PTHREAD_STACK_MIN); }
AS_NOBODY(thread_among_others)

// Its own name, mask and alternate stack.
static void *strange_thread(void *unused) {
    static char stack[65536];
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    need(!pthread_sigmask(SIG_BLOCK, &set, NULL) && !raise(SIGUSR1));
    need(!sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL));
    execute_showing(SHOW);
    return unused;
}
SCENARIO(strange_thread_) {
    start_others(2);
    need(!pthread_join(start(NULL, strange_thread, NULL), NULL));
}

// Two threads at once: one wins, or both fail.
static void *racing_thread(void *path) {
    execve(path, ARGS("arg0"), ENV("nothing"));
    return NULL;
}
SCENARIO(threads_racing) {
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        if (!child) {
            pthread_t threads[4];
            for (int one = 0; one < 4; one++)
                threads[one] = start(NULL, racing_thread, SHOW);
            for (int one = 0; one < 4; one++)
                pthread_join(threads[one], NULL);
            _exit(94);
        }
        finish(child);
    }
    say("all ended well");
    done();
}
SCENARIO(threads_failing_at_once) {
    pthread_t threads[4];
    for (int i = 0; i < 50; i++) {
        for (int one = 0; one < 4; one++)
            threads[one] = start(NULL, racing_thread, one % 2 ? "/missing" : "/elf/text");
        for (int one = 0; one < 4; one++)
            need(!pthread_join(threads[one], NULL));
    }
    execute_showing(SHOW);
}

// vfork: the child has the parent's memory until it has executed something.
SCENARIO(vfork_) {
    pid_t child = vfork();
    if (!child) {
        execute_showing(SHOW);
        _exit(93);
    }
    finish(child);
    say(", parent goes on");
    done();
}
//# vfork-failing-first: argv=["arg0"
SCENARIO(vfork_failing_first) {
    volatile int error = 0;
    pid_t child = vfork();
    if (!child) {
        execute_showing("/missing");
        error = errno * 1000;
        execute_showing("/files/mode-0644");
        error += errno;
        execute_showing(SHOW);
        _exit(93);
    }
    finish(child);
    say(", errors %d", error);
    done();
}
SCENARIO(vfork_failing_only) {
    volatile int error = 0;
    pid_t child = vfork();
    if (!child) {
        execute_showing("/elf/text");
        error = errno;
        _exit(9);
    }
    finish(child);
    say(", %s", errno_name(error));
    done();
}
SCENARIO(vfork_script) {
    pid_t child = vfork();
    if (!child) {
        execute_showing("/scripts/nested-3");
        _exit(93);
    }
    finish(child);
    done();
}
// The parent's close-on-exec descriptors stay the parent's, and it gets none of the child's.
SCENARIO(vfork_descriptors) {
    open_at("/dev/null", O_RDONLY | O_CLOEXEC, 10);
    pid_t child = vfork();
    if (!child) {
        close(0);
        execute_showing(SHOW);
        _exit(93);
    }
    finish(child);
    say(" parent:");
    for (int fd = 0; fd < 30; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            say(" %d", fd);
    done();
}
SCENARIO(fork_in_vfork) {
    pid_t child = vfork();
    if (!child) {
        pid_t grandchild = vfork();
        if (!grandchild) {
            execute_showing(SHOW);
            _exit(93);
        }
        int status;
        waitpid(grandchild, &status, 0);
        execute_showing(SHOW);
        _exit(93);
    }
    finish(child);
    done();
}

// A child that shares the table of descriptors: execve gives it one of its own, the parent's is not touched.
static char clone_stack[1 << 18] __attribute__((aligned(16)));
static int cloned(void *path) {
    execute_showing(path);
    say("%s", errno_name(errno));
    return 0;
}
static void with_clone(int flags, char *path) {
    open_at("/dev/null", O_RDONLY | O_CLOEXEC, 10);
    open_at("/dev/null", O_RDONLY, 11);
    int count[2] = {0, 0};
    for (int fd = 0; fd < 1024; fd++)
        count[0] += fcntl(fd, F_GETFD) >= 0;
    pid_t child = clone(cloned, clone_stack + sizeof clone_stack, flags | SIGCHLD, path);
    finish(child);
    for (int fd = 0; fd < 1024; fd++)
        count[1] += fcntl(fd, F_GETFD) >= 0;
    say(", parent has %d descriptors more", count[1] - count[0]);
    done();
}
SCENARIO(clone_files) { with_clone(CLONE_FILES, SHOW); }
SCENARIO(clone_files_script) { with_clone(CLONE_FILES, "/scripts/plain"); }
//# clone-files-missing: ENOENT, parent has 0 descriptors more
SCENARIO(clone_files_missing) { with_clone(CLONE_FILES, "/missing"); }
SCENARIO(clone_fs) { with_clone(CLONE_FS, SHOW); }
SCENARIO(clone_memory_and_files) { with_clone(CLONE_VM | CLONE_FILES | CLONE_VFORK, SHOW); }
// Without CLONE_VFORK: both run on in the same memory.
SCENARIO(clone_memory) { with_clone(CLONE_VM, SHOW); }
SCENARIO(clone_memory_text) { with_clone(CLONE_VM, "/elf/text"); }
SCENARIO(clone_handlers) { with_clone(CLONE_VM | CLONE_SIGHAND, SHOW); }

// posix_spawn says what execve said, or in which step it failed.
static void spawn(const char *path, posix_spawn_file_actions_t *actions, posix_spawnattr_t *attributes, char **argv) {
    pid_t child = 0;
    int error = posix_spawn(&child, path, actions, attributes, argv, ENV("fds process signals"));
    if (error) {
        say("%s", errno_name(error));
        // No child is left.
        say(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD ? "" : ", A CHILD IS LEFT");
    } else {
        finish(child);
    }
    done();
}
//# spawn: argv=["arg0"
SCENARIO(spawn_) { spawn(SHOW, NULL, NULL, ARGV); }
SCENARIO(spawn_script) { spawn("/scripts/plain", NULL, NULL, ARGV); }
// The child of musl's has a stack of 5 KiB, which is the parent's.
SCENARIO(spawn_script_of_scripts) { spawn("/scripts/nested-5", NULL, NULL, ARGV); }
//# spawn-too-many-scripts: ELOOP
SCENARIO(spawn_too_many_scripts) { spawn("/scripts/nested-6", NULL, NULL, ARGV); }
//# spawn-missing: ENOENT
SCENARIO(spawn_missing) { spawn("/missing", NULL, NULL, ARGV); }
//# spawn-not-executable: EACCES
SCENARIO(spawn_not_executable) { spawn("/files/mode-0644", NULL, NULL, ARGV); }
//# spawn-text: ENOEXEC
SCENARIO(spawn_text) { spawn("/elf/text", NULL, NULL, ARGV); }
//# spawn-directory: EACCES
SCENARIO(spawn_directory) { spawn("/bin", NULL, NULL, ARGV); }
SCENARIO(spawn_missing_interpreter) { spawn("/scripts/interpreter-missing", NULL, NULL, ARGV); }
AS_NOBODY(spawn_)
SCENARIO(spawn_twice) {
    pid_t children[2];
    for (int i = 0; i < 2; i++)
        need(!posix_spawn(&children[i], SHOW, NULL, NULL, ARGS("arg0"), ENV("nothing")));
    finish(children[0]);
    finish(children[1]);
    spawn(SHOW, NULL, NULL, ARGV);
}
SCENARIO(spawn_actions) {
    posix_spawn_file_actions_t actions;
    open_at("/dev/null", O_RDONLY | O_CLOEXEC, 12);
    need(!posix_spawn_file_actions_init(&actions));
    need(!posix_spawn_file_actions_addopen(&actions, 10, "/scripts/plain", O_RDONLY, 0));
    need(!posix_spawn_file_actions_addclose(&actions, 0));
    need(!posix_spawn_file_actions_adddup2(&actions, 10, 11));
    need(!posix_spawn_file_actions_adddup2(&actions, 12, 12));
    spawn(SHOW, &actions, NULL, ARGV);
}
SCENARIO(spawn_actions_chdir) {
    posix_spawn_file_actions_t actions;
    need(!posix_spawn_file_actions_init(&actions) && !posix_spawn_file_actions_addchdir_np(&actions, "/bin"));
    spawn("show", &actions, NULL, ARGV);
}
SCENARIO(spawn_actions_failing) {
    posix_spawn_file_actions_t actions;
    need(!posix_spawn_file_actions_init(&actions));
    need(!posix_spawn_file_actions_addopen(&actions, 10, "/missing", O_RDONLY, 0));
    spawn(SHOW, &actions, NULL, ARGV);
}
static void spawn_with(short flags, const char *path) {
    posix_spawnattr_t attributes;
    sigset_t set;
    need(!posix_spawnattr_init(&attributes) && !posix_spawnattr_setflags(&attributes, flags));
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGTERM);
    need(!posix_spawnattr_setsigmask(&attributes, &set) && !posix_spawnattr_setsigdefault(&attributes, &set));
    need(signal(SIGUSR1, SIG_IGN) != SIG_ERR && signal(SIGUSR2, SIG_IGN) != SIG_ERR);
    spawn(path, NULL, &attributes, ARGV);
}
SCENARIO(spawn_setsigmask) { spawn_with(POSIX_SPAWN_SETSIGMASK, SHOW); }
SCENARIO(spawn_setsigdef) { spawn_with(POSIX_SPAWN_SETSIGDEF, SHOW); }
SCENARIO(spawn_setsigdef_missing) { spawn_with(POSIX_SPAWN_SETSIGDEF, "/missing"); }
SCENARIO(spawn_setsigdef_and_mask) { spawn_with(POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK, SHOW); }
SCENARIO(spawn_setsid) { spawn_with(POSIX_SPAWN_SETSID, SHOW); }
SCENARIO(spawn_setpgroup) { spawn_with(POSIX_SPAWN_SETPGROUP, SHOW); }
SCENARIO(spawn_resetids) { spawn_with(POSIX_SPAWN_RESETIDS, SHOW); }
static void spawn_with_all_default(const char *path) {
    // SIGSYS as well: a child whose handler is gone must still be able to execute something.
    posix_spawnattr_t attributes;
    sigset_t all;
    sigfillset(&all);
    need(!posix_spawnattr_init(&attributes));
    need(!posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK));
    need(!posix_spawnattr_setsigdefault(&attributes, &all) && !posix_spawnattr_setsigmask(&attributes, &all));
    spawn(path, NULL, &attributes, ARGV);
}
SCENARIO(spawn_all_default_and_blocked) { spawn_with_all_default(SHOW); }
SCENARIO(spawn_all_default_and_blocked_missing) { spawn_with_all_default("/missing"); }
SCENARIO(spawn_with_caught_signals) {
    for (int number = 1; number < 65; number++)
        signal(number, (void (*)(int))finish);
    spawn(SHOW, NULL, NULL, ARGV);
}
SCENARIO(spawn_from_thread) {
    start_others(4);
    spawn(SHOW, NULL, NULL, ARGV);
}

static void spawn_by_name(const char *name) {
    pid_t child;
    setenv("PATH", "/missing:/private:/files:/bin", 1);
    int error = posix_spawnp(&child, name, NULL, NULL, ARGV, ENV("process"));
    if (error)
        say("%s", errno_name(error));
    else
        finish(child);
    done();
}
//# spawnp: argv=["arg0"
SCENARIO(spawnp) { spawn_by_name("show"); }
AS_NOBODY(spawnp)
//# spawnp-missing: ENOENT
SCENARIO(spawnp_missing) { spawn_by_name("missing"); }
//# spawnp-not-executable: EACCES
SCENARIO(spawnp_not_executable) { spawn_by_name("mode-0644"); }
SCENARIO(spawnp_text) { spawn_by_name("../elf/text"); }

// glibc's execvp runs a text as a script of the shell, musl's says ENOEXEC.
static void execute_by_name(const char *name) {
    setenv("PATH", "/missing:/private:/files:/scripts:/elf:/bin", 1);
    setenv("SHOW", "process", 1);
    execvp(name, ARGV);
}
//# execvp: argv=["arg0"
SCENARIO(execvp_) { execute_by_name("show"); }
AS_NOBODY(execvp_)
SCENARIO(execvp_script) { execute_by_name("plain"); }
SCENARIO(execvp_shell_text) { execute_by_name("shell-text"); }
//# execvp-missing: ENOENT
SCENARIO(execvp_missing) { execute_by_name("missing"); }
SCENARIO(execvp_not_executable) { execute_by_name("mode-0644"); }

static void open_process(const char *command) {
    char text[4096];
    setenv("PATH", "/bin", 1);
    FILE *from = popen(command, "r");
    need(from);
    size_t len = fread(text, 1, sizeof text - 1, from);
    text[len] = 0;
    int status = pclose(from);
    say("%s", text);
    say_status(status);
    done();
}
//# popen: hello
SCENARIO(popen_) { open_process("echo hello; exit 3"); }
SCENARIO(popen_program) { open_process("SHOW='fds process' show 'a b' c"); }
SCENARIO(popen_missing) { open_process("exec /missing 2>&1"); }
SCENARIO(popen_twice) {
    FILE *first = popen("/bin/cat > /dev/null", "w");
    need(first);
    open_process("SHOW=fds /bin/show");
}

static void by_system(const char *command) {
    setenv("PATH", "/bin", 1);
    int status = system(command);
    need(status >= 0);
    say_status(status);
    done();
}
//# system: hello
SCENARIO(system_) { by_system("echo hello; exit 3"); }
AS_NOBODY(system_)
//# system-with-all-blocked: hello
SCENARIO(system_with_all_blocked) {
    sigset_t all;
    sigfillset(&all);
    need(!sigprocmask(SIG_BLOCK, &all, NULL));
    by_system("echo hello; SHOW='signals' show; /missing; echo $?");
}
SCENARIO(system_with_children_ignored) {
    signal(SIGCHLD, SIG_IGN);
    need(system("echo hello") == -1);
    say("%s", errno_name(errno));
    done();
}
static void using_handler(int number) {
    (void)number;
    int status = system("SHOW=signals show in a handler");
    say_status(status);
}
SCENARIO(system_in_handler) {
    setenv("PATH", "/bin", 1);
    struct sigaction action = {.sa_handler = using_handler};
    sigfillset(&action.sa_mask);
    need(!sigaction(SIGUSR1, &action, NULL) && !raise(SIGUSR1));
    done();
}
SCENARIO(many_processes) {
    for (volatile int i = 0; i < 100; i++) {
        pid_t child = i % 2 ? vfork() : fork();
        if (!child) {
            execve(i % 3 ? SHOW : "/scripts/plain", ARGS("arg0"), ENV("nothing"));
            _exit(92);
        }
        finish(child);
    }
    say("all ended well");
    done();
}

int main(int argc, char **argv) {
    (void)argc;
    return run_scenarios(argv + 1);
}
