// The calls that wait with a signal mask of their own.
#ifndef WAITING_H
#define WAITING_H
#include "lines.h"

enum wait { SUSPEND, PPOLL, PSELECT, EPOLL_PWAIT, EPOLL_PWAIT2, AIO, WAITS };
static const char *const wait_names[] = {"sigsuspend", "ppoll", "pselect", "epoll_pwait", "epoll_pwait2", "io_pgetevents"};
static UNUSED int poll_fd;
static UNUSED unsigned long aio;
#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif
#ifndef SYS_io_pgetevents
#define SYS_io_pgetevents 333
#endif

static UNUSED long wait_with(enum wait wait, const uint64_t *mask, size_t size, struct timespec *timeout) {
    struct epoll_event event;
    struct {
        const uint64_t *mask;
        size_t size;
    } sized = {mask, size};
    switch (wait) {
    case SUSPEND:
        return RAW(SYS_rt_sigsuspend, mask, size);
    case PPOLL:
        return RAW(SYS_ppoll, NULL, 0, timeout, mask, size);
    case PSELECT:
        return RAW(SYS_pselect6, 0, NULL, NULL, NULL, timeout, &sized);
    case EPOLL_PWAIT:
        // Its time is a number; at_once() has pointers that lead nowhere.
        return RAW(SYS_epoll_pwait, poll_fd, &event, 1, timeout > (struct timespec *)PAGE ? timeout->tv_sec * 1000 : 0,
                   mask, size);
    case EPOLL_PWAIT2:
        return RAW(SYS_epoll_pwait2, poll_fd, &event, 1, timeout, mask, size);
    default:
        return RAW(SYS_io_pgetevents, aio, 1, 1, &event, timeout, &sized);
    }
}

static UNUSED void ring_after(long microseconds) {
    setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {0, microseconds}}, NULL);
}

#endif
