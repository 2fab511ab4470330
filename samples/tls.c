// Thread-local variables, initialized and zero, of the first thread and of others.
//#Layouts: static static-pie dynamic
//#Cflags: -pthread
//#Stdout: ok
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>

_Thread_local int initialized = 7;
_Thread_local char text[] = "thread";
_Thread_local int zero[100];
_Thread_local int aligned __attribute__((aligned(64))) = 9;

static int check(int value) {
    int bad = initialized != 7 || text[5] != 'd' || aligned != 9 || (uintptr_t)&aligned % 64;
    for (int i = 0; i < 100; i++)
        bad |= zero[i];
    initialized = zero[99] = aligned = value;
    text[0] = 'T';
    return bad;
}

static void *thread(void *value) {
    return (void *)(intptr_t)check((int)(intptr_t)value);
}

int main(void) {
    int bad = check(1);
    for (int round = 0; round < 3; round++) {
        pthread_t threads[4];
        for (intptr_t i = 0; i < 4; i++)
            pthread_create(&threads[i], NULL, thread, (void *)(i + 2));
        for (int i = 0; i < 4; i++) {
            void *result;
            pthread_join(threads[i], &result);
            bad |= result != NULL;
        }
    }
    puts(bad || initialized != 1 || zero[99] != 1 ? "bad" : "ok");
    return 0;
}
