// Of a signal for the process Linux tells the main thread, if it does not block it. Interpreters rely on that: the signal
// interrupts what the main thread waits in. No thread that comes or goes takes it away, however busy the machine is. (With
// musl one may, now and then.)
//#Layouts: dynamic static musl
//#Stdout: 100 signals, for the main thread
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SIGNALS = 100, BUSY = 2 };

static atomic_int own, others, stop;

static void on_signal(int number) {
    (void)number;
    atomic_fetch_add(syscall(SYS_gettid) == getpid() ? &own : &others, 1);
}

static void *send(void *argument) {
    usleep(500);
    kill(getpid(), SIGUSR1);
    return argument;
}

static void *be_busy(void *argument) {
    while (!stop)
        ;
    return argument;
}

int main(void) {
    pthread_t thread, busy[BUSY];
    sigset_t usr1;
    signal(SIGUSR1, on_signal);
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &usr1, NULL);
    for (int number = 0; number < BUSY; number++)
        pthread_create(&busy[number], NULL, be_busy, NULL);
    pthread_sigmask(SIG_UNBLOCK, &usr1, NULL);
    for (int number = 0; number < SIGNALS; number++) {
        pthread_create(&thread, NULL, send, NULL);
        pthread_join(thread, NULL);
        while (own + others <= number)
            ;
    }
    stop = 1;
    for (int number = 0; number < BUSY; number++)
        pthread_join(busy[number], NULL);
    printf("%d signals, %s\n", SIGNALS, others < SIGNALS / 20 ? "for the main thread" : "for any thread");
    return 0;
}
