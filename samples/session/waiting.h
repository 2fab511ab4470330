// The calls that wait with a signal mask of their own.
#ifndef WAITING_H
#define WAITING_H
#include "lines.h"

enum wait { SUSPEND, PPOLL, PSELECT, EPOLL_PWAIT, EPOLL_PWAIT2, RING, RING_EXTENDED, AIO, WAITS };
static const char *const wait_names[] = {"sigsuspend",     "ppoll",          "pselect",
                                         "epoll_pwait",    "epoll_pwait2",   "io_uring_enter",
                                         "io_uring_enter, extended", "io_pgetevents"};
static UNUSED int poll_fd, ring_fd;
static UNUSED unsigned long aio;
#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

// Is there such a call? Containers often forbid io_uring. The descriptors are made by the first who asks.
static UNUSED int can_wait(enum wait wait) {
    static uint32_t parameters[30];
    if (!poll_fd) {
        poll_fd = epoll_create1(EPOLL_CLOEXEC);
        ring_fd = RAW(SYS_io_uring_setup, 1, parameters);
    }
    return (wait != RING && wait != RING_EXTENDED) || ring_fd >= 0;
}

static UNUSED long wait_with(enum wait wait, const uint64_t *mask, size_t size, struct timespec *timeout) {
    struct epoll_event event;
    struct {
        const uint64_t *mask;
        size_t size;
    } sized = {mask, size};
    // Calls that are younger than such times have them everywhere.
    int64_t wide[2];
    struct {
        uint64_t mask;
        uint32_t size, unused;
        uint64_t timeout;
    } extended = {(uintptr_t)mask, size, 0, (uintptr_t)timeout};
    int is_time = timeout > (struct timespec *)PAGE;
    if (is_time) {
        wide[0] = timeout->tv_sec, wide[1] = timeout->tv_nsec;
        extended.timeout = (uintptr_t)wide;
    }
    switch (wait) {
    case SUSPEND:
        return RAW(SYS_rt_sigsuspend, mask, size);
    case PPOLL:
        return RAW(SYS_ppoll, NULL, 0, timeout, mask, size);
    case PSELECT:
        return RAW(SYS_pselect6, 0, NULL, NULL, NULL, timeout, &sized);
    case EPOLL_PWAIT:
        // Its time is a number; at_once() has pointers that lead nowhere.
        return RAW(SYS_epoll_pwait, poll_fd, &event, 1, is_time ? timeout->tv_sec * 1000 : 0, mask, size);
    case EPOLL_PWAIT2:
        return RAW(SYS_epoll_pwait2, poll_fd, &event, 1, is_time ? (void *)wide : timeout, mask, size);
    case RING:
        // It has no time.
        return RAW(SYS_io_uring_enter, ring_fd, 0, is_time && timeout->tv_sec, 1, mask, size);
    case RING_EXTENDED:
        return RAW(SYS_io_uring_enter, ring_fd, 0, 1, 1 | 1 << 3, &extended, sizeof extended);
    default:
        return RAW(SYS_io_pgetevents, aio, 1, 1, &event, timeout, &sized);
    }
}

static UNUSED void ring_after(long microseconds) {
    setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {0, microseconds}}, NULL);
}

#endif
