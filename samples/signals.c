// A handler on an alternate stack, one that jumps out of a fault, a timer, and a fork.
//#Layouts: static static-pie dynamic
//#Stdout: alternate stack
//#Stdout: jumped
//#Stdout: alarm
//#Stdout: child 9
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static sigjmp_buf back;
static char stack[65536];
static volatile int on_stack, alarmed;

static void fault(int number) {
    char here;
    (void)number;
    on_stack = &here > stack && &here < stack + sizeof stack;
    siglongjmp(back, 1);
}

static void alarm_rang(int number) { alarmed = number == SIGALRM; }

int main(void) {
    setbuf(stdout, NULL);
    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL);
    sigaction(SIGSEGV, &(struct sigaction){.sa_handler = fault, .sa_flags = SA_ONSTACK}, NULL);
    if (!sigsetjmp(back, 1))
        *(volatile int *)16 = 1;
    puts(on_stack ? "alternate stack" : "other stack");
    puts("jumped");
    signal(SIGALRM, alarm_rang);
    sigset_t alarm_only, before;
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    sigprocmask(SIG_BLOCK, &alarm_only, &before);
    setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {0, 1000}}, NULL);
    while (!alarmed)
        sigsuspend(&before);
    puts("alarm");
    pid_t child = fork();
    if (child == 0)
        _exit(9);
    int status = 0;
    waitpid(child, &status, 0);
    printf("child %d\n", WEXITSTATUS(status));
    return 0;
}
