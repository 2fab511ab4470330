# A program of several files that make has built: compiled, linked with libraries of both kinds, run, and built again.
#= sum of squares: 385
#= plugin: 42
#= by 4 threads: 4000
#= nothing to be done
#= greet.o: relocatable
#= undefined reference
#= from standard input: 12
mkdir -p src include
cat > include/shape.h <<'END'
#pragma once
int squares(int last);
typedef int plugin_function(int);
END
cat > src/squares.c <<'END'
#include <shape.h>
int squares(int last) { return last ? last * last + squares(last - 1) : 0; }
END
cat > src/greet.c <<'END'
#include <stdarg.h>
#include <stdio.h>
void greet(const char *format, ...) {
    va_list list;
    va_start(list, format);
    vprintf(format, list);
    va_end(list);
}
END
cat > src/plugin.c <<'END'
int plugin(int number);
int plugin(int number) { return number * 2; }
END
cat > src/main.c <<'END'
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <shape.h>
#include <stdio.h>
#include <string.h>
void greet(const char *format, ...);
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int total;
static void *count(void *unused) {
    for (int n = 0; n < 1000; n++) {
        pthread_mutex_lock(&lock);
        total++;
        pthread_mutex_unlock(&lock);
    }
    return unused;
}
int main(int argc, char **argv) {
    pthread_t threads[4];
    greet("%d %s: %d\n", argc, "sum of squares", squares(10));
    void *library = dlopen("./libplugin.so", RTLD_NOW);
    plugin_function *plugin = library ? dlsym(library, "plugin") : NULL;
    greet("plugin: %d\n", plugin ? plugin(21) : -1);
    for (int n = 0; n < 4; n++) pthread_create(&threads[n], NULL, count, NULL);
    for (int n = 0; n < 4; n++) pthread_join(threads[n], NULL);
    greet("by 4 threads: %d %s\n", total, strerror(ENOEXEC));
    return argv[1] ? 3 : 0;
}
END
cat > Makefile <<'END'
CFLAGS = -Wall -Iinclude
objects = $(patsubst src/%.c,%.o,$(filter-out src/plugin.c src/squares.c,$(wildcard src/*.c)))
all: program libplugin.so program.stripped
program: $(objects) libsquares.a
	$(CC) -o $@ $^ -ldl -lpthread
program.stripped: program
	strip -o $@ $<
libsquares.a: squares.o
	$(AR) rcsD $@ $^
libplugin.so: src/plugin.c
	$(CC) -shared -o $@ $<
%.o: src/%.c $(wildcard include/*.h)
	$(CC) $(CFLAGS) -c -o $@ $<
check: all
	./program
	./program.stripped x || test $$? = 3
	@$(foreach word,one two three,echo $(shell echo $(word) | tr a-z A-Z);)
	$(MAKE) --no-print-directory -s nested
nested:
	echo level $(MAKELEVEL)
clean:
	rm -f *.o *.a *.so program program.stripped
.PHONY: all check clean nested
END
make check
make | sed 's/.*Nothing/nothing/; s/\.$//' | sed 's/for .all.*//; s/nothing.*/nothing to be done/'
# Older than the header; a header of the future would have make say by how many seconds.
touch -d -1minute ./*.o libsquares.a
make 2>/dev/null | sort
make clean
make -s -j 4 check

nm squares.o
readelf -d program | grep NEEDED
objdump -d squares.o | sed -n '1,12p'
size program | awk 'NR == 1'
ar t libsquares.a
printf '%s: %s\n' greet.o "$(objdump -f greet.o | grep -q RELOC && echo relocatable)"
echo 'int main(void) { return nowhere(); }' > src/wrong.c
tcc -o wrong src/wrong.c 2>&1 | sed 's/.*undefined/undefined/; s/undefined symbol/undefined reference/' || true
echo 'int main(void {' | tcc -c -o wrong.o - || echo the compiler says $?
echo '#include <stdio.h>
int main(int argc, char **argv) { printf("from standard input: %d\n", argc * 6); return 0; }' | tcc -run - x
echo '.globl _start; _start: mov $60, %eax; mov $9, %edi; syscall' > tiny.s
if [ "$(uname -m)" = x86_64 ]; then
    as -o tiny.o tiny.s
    ld -o tiny tiny.o
    ./tiny || echo assembled: $?
fi
make clean
rm -f tiny*
