// The making of one line of facts.
#include <dirent.h>

#define HASH_START 0xcbf29ce484222325ull

static inline uint64_t hash_of(const void *bytes, size_t len, uint64_t hash) {
    for (const unsigned char *at = bytes, *end = at + len; at < end; at++)
        hash = (hash ^ *at) * 0x100000001b3ull;
    return hash;
}

static char line_added[1 << 15];
static size_t line_len;

__attribute__((format(printf, 1, 2))) static inline void add(const char *format, ...) {
    va_list list;
    va_start(list, format);
    int len = vsnprintf(line_added + line_len, sizeof line_added - line_len, format, list);
    va_end(list);
    line_len += len;
    if (line_len >= sizeof line_added)
        line_len = sizeof line_added - 1;
}

static inline void add_bytes(const char *bytes, size_t len) {
    add("\"");
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = bytes[i];
        if (byte == '\n')
            add("\\n");
        else if (byte < ' ' || byte > '~' || byte == '"' || byte == '\\')
            add("\\x%02x", byte);
        else
            add("%c", byte);
    }
    add("\"");
}

static inline void add_quoted(const char *string) {
    size_t len = string ? strlen(string) : 0;
    if (!string)
        add("NULL");
    else if (len > 300)
        add("<%zu bytes %016llx>", len, (unsigned long long)hash_of(string, len, HASH_START));
    else
        add_bytes(string, len);
}

// A list of strings, without what is said to this program; what comes after the tenth is told by number and hash.
static inline void add_list(char **strings) {
    add("[");
    int count = 0;
    uint64_t hash = HASH_START;
    for (; *strings; strings++) {
        if (!strncmp(*strings, "SHOW=", 5))
            continue;
        hash = hash_of(*strings, strlen(*strings) + 1, hash);
        if (count < 10) {
            add("%s", count ? "," : "");
            add_quoted(*strings);
        }
        count++;
    }
    if (count > 10)
        add(" and %d more %016llx", count - 10, (unsigned long long)hash);
    add("]");
}

// Where a link leads, without the numbers that no two runs share.
static inline void add_link(const char *path) {
    char text[PATH_MAX];
    ssize_t len = readlink(path, text, sizeof text - 1);
    if (len < 0) {
        add("%s", errno_name(errno));
        return;
    }
    text[len] = 0;
    if (!strncmp(text, "pipe:", 5) || !strncmp(text, "socket:", 7))
        *strchr(text, '[') = 0;
    add_quoted(text);
}

// All of them, the session's too.
static inline int count_descriptors(void) {
    DIR *dir = opendir("/proc/self/fd");
    if (!dir)
        return -1;
    int count = 0;
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static inline void print_added(void) {
    add("\n");
    for (size_t at = 0; at < line_len; at += 4000)
        say("%.4000s", line_added + at);
}
