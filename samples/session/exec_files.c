// Executes every file of the directories that are its arguments, as it is and, if it may, as nobody. The files are made by
// tests/common/exec_tree.rs: scripts, ELF files, what is no regular file, permissions.
#include "exec.h"
#include <dirent.h>

static char path[PATH_MAX];

static void it(void) {
    execve(path, ARGV, ENV("script"));
}

static void it_as_nobody(void) {
    become_nobody();
    it();
}

static int visible(const struct dirent *entry) { return entry->d_name[0] != '.'; }

int main(int argc, char **argv) {
    // This is what `#!/proc/self/exe` comes to.
    if (!strcmp(argv[0], "/proc/self/exe")) {
        say("the driver itself, with %d arguments, %s first", argc - 1, argv[1]);
        return 0;
    }
    static char name[PATH_MAX + 10];
    begin();
    for (int i = 1; i < argc; i++) {
        struct dirent **entries;
        int count = scandir(argv[i], &entries, visible, alphasort);
        need(count > 0);
        for (int number = 0; number < count; number++) {
            snprintf(path, sizeof path, "%s/%s", argv[i], entries[number]->d_name);
            strcpy(name, path);
            run(name, it);
            if (is_root()) {
                strcat(name, " as nobody");
                run(name, it_as_nobody);
            }
        }
    }
    return 0;
}
