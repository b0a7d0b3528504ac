/* A step that tries every call that takes the id of a process or thread.
 *
 * reach NAME:ID:PROCESS:GROUP...   on others: a process or thread, its process, and the group of that
 *
 * Each line of the output is a call, whom it named, and its errno or 0. The program itself, its child, its child's
 * group and an orphan come last, as `own`. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRY(name, call) do { errno = 0; long done = (call); \
    printf("%s %s %d\n", name, who, done < 0 ? errno : 0); } while (0)

static void others(const char *who, int id, int process, int group) {
    int fds[2], memory = 0;
    unsigned long mask = 1;
    char info[128] = {0}, attributes[128] = {0};
    struct rlimit limit = {12345, 12345};
    struct sched_param parameter = {0};
    struct timespec time;
    struct iovec ours = {&memory, sizeof memory}, theirs = {&memory, sizeof memory};
    struct { int type, id; } owner = {1, id};
    struct { unsigned size, policy; unsigned long flags; int nice; unsigned priority; unsigned long rest[4]; }
        schedule = {48, 0, 0, 7, 0, {0}};
    void *head; size_t length;
    if (pipe(fds)) exit(9);
    /* The structure of a signal that the kernel lets a process make up. */
    ((int *) info)[0] = 0; ((int *) info)[2] = -1;
    TRY("kill", syscall(SYS_kill, id, 0));
    if (group > 1) TRY("kill-group", syscall(SYS_kill, -group, 0));
    TRY("tkill", syscall(SYS_tkill, id, 0));
    TRY("tgkill", syscall(SYS_tgkill, process, id, 0));
    TRY("rt_sigqueueinfo", syscall(SYS_rt_sigqueueinfo, id, 0, info));
    TRY("rt_tgsigqueueinfo", syscall(SYS_rt_tgsigqueueinfo, process, id, 0, info));
    TRY("prlimit64", syscall(SYS_prlimit64, id, RLIMIT_MSGQUEUE, &limit, 0));
    TRY("prlimit64-get", syscall(SYS_prlimit64, id, RLIMIT_MSGQUEUE, 0, &limit));
    TRY("setpriority", syscall(SYS_setpriority, PRIO_PROCESS, id, 7));
    if (group > 1) TRY("setpriority-group", syscall(SYS_setpriority, PRIO_PGRP, group, 7));
    TRY("getpriority", syscall(SYS_getpriority, PRIO_PROCESS, id));
    TRY("ioprio_set", syscall(SYS_ioprio_set, 1, id, 3 << 13));
    if (group > 1) TRY("ioprio_set-group", syscall(SYS_ioprio_set, 2, group, 3 << 13));
    TRY("ioprio_get", syscall(SYS_ioprio_get, 1, id));
    TRY("sched_setaffinity", syscall(SYS_sched_setaffinity, id, sizeof mask, &mask));
    TRY("sched_getaffinity", syscall(SYS_sched_getaffinity, id, sizeof attributes, attributes));
    TRY("sched_setscheduler", syscall(SYS_sched_setscheduler, id, SCHED_BATCH, &parameter));
    TRY("sched_getscheduler", syscall(SYS_sched_getscheduler, id));
    TRY("sched_setparam", syscall(SYS_sched_setparam, id, &parameter));
    TRY("sched_getparam", syscall(SYS_sched_getparam, id, &parameter));
    TRY("sched_setattr", syscall(SYS_sched_setattr, id, &schedule, 0));
    TRY("sched_getattr", syscall(SYS_sched_getattr, id, attributes, 48, 0));
    TRY("sched_rr_get_interval", syscall(SYS_sched_rr_get_interval, id, &time));
    TRY("getpgid", syscall(SYS_getpgid, id));
    TRY("getsid", syscall(SYS_getsid, id));
    TRY("setpgid", syscall(SYS_setpgid, id, 0));
    if (group > 1) TRY("setpgid-join", syscall(SYS_setpgid, 0, group));
    TRY("get_robust_list", syscall(SYS_get_robust_list, id, &head, &length));
    TRY("ptrace", syscall(SYS_ptrace, 0x4206, id, 0, 0));
    TRY("process_vm_readv", syscall(SYS_process_vm_readv, id, &ours, 1, &theirs, 1, 0));
    TRY("process_vm_writev", syscall(SYS_process_vm_writev, id, &ours, 1, &theirs, 1, 0));
    TRY("kcmp", syscall(SYS_kcmp, id, getpid(), 1, 0, 0));
    TRY("migrate_pages", syscall(SYS_migrate_pages, id, 64, &mask, &mask));
    TRY("move_pages", syscall(SYS_move_pages, id, 0, 0, 0, 0, 0));
    TRY("perf_event_open", syscall(SYS_perf_event_open, attributes, id, -1, -1, 0));
    int held;
    TRY("pidfd_open", held = syscall(SYS_pidfd_open, id, 0));
    TRY("pidfd_send_signal", syscall(SYS_pidfd_send_signal, held, 0, 0, 0));
    TRY("pidfd_getfd", syscall(438, held, 0, 0));
    TRY("process_madvise", syscall(440, held, &theirs, 1, 21, 0));
    TRY("process_mrelease", syscall(448, held, 0));
    TRY("F_SETOWN", fcntl(fds[0], F_SETOWN, id));
    if (group > 1) TRY("F_SETOWN-group", fcntl(fds[0], F_SETOWN, -group));
    if (process > 1) {
        /* Pid 1 of a table of its own ignores what it has not asked for. */
        TRY("F_SETOWN_EX", fcntl(fds[0], F_SETOWN_EX, &owner));
        TRY("FIOSETOWN", ioctl(fds[0], 0x8901, &id));
        TRY("SIOCSPGRP", ioctl(fds[0], 0x8902, &id));
        TRY("clock_gettime", syscall(SYS_clock_gettime, (~process << 3) | 2, &time));
    }
    TRY("PR_SCHED_CORE", prctl(62, 1, id, 0, 0));
}

static void own(void) {
    const char *who = "own";
    int self = getpid(), fds[2], said[2];
    unsigned long mask[16] = {0};
    struct rlimit limit;
    struct sched_param parameter = {0};
    struct timespec time;
    if (pipe(fds) || pipe(said)) exit(9);
    TRY("prlimit64", syscall(SYS_prlimit64, self, RLIMIT_NOFILE, 0, &limit));
    TRY("prlimit64-set", syscall(SYS_prlimit64, self, RLIMIT_NOFILE, &limit, 0));
    TRY("prlimit64-zero", syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &limit, 0));
    TRY("sched_getaffinity", syscall(SYS_sched_getaffinity, self, sizeof mask, mask));
    TRY("sched_setaffinity", syscall(SYS_sched_setaffinity, self, sizeof mask, mask));
    TRY("sched_setscheduler", syscall(SYS_sched_setscheduler, self, SCHED_OTHER, &parameter));
    TRY("setpriority", syscall(SYS_setpriority, PRIO_PROCESS, self, 1));
    TRY("getpriority-group", syscall(SYS_getpriority, PRIO_PGRP, 0));
    TRY("ioprio_set", syscall(SYS_ioprio_set, 1, self, (2 << 13) | 4));
    TRY("tgkill", syscall(SYS_tgkill, self, syscall(SYS_gettid), 0));
    TRY("getpgid", syscall(SYS_getpgid, self));
    TRY("F_SETOWN", fcntl(fds[0], F_SETOWN, self));
    TRY("F_SETOWN-nobody", fcntl(fds[0], F_SETOWN, 0));
    TRY("clock_gettime", syscall(SYS_clock_gettime, (~self << 3) | 2, &time));
    TRY("kill-own-group", syscall(SYS_kill, 0, 0));
    int child = fork();
    if (!child) { pause(); _exit(0); }
    TRY("setpgid", syscall(SYS_setpgid, child, child));
    TRY("prlimit64-child", syscall(SYS_prlimit64, child, RLIMIT_NOFILE, &limit, 0));
    TRY("kill-group", syscall(SYS_kill, -child, 0));
    TRY("kill", syscall(SYS_kill, child, SIGKILL));
    TRY("wait", waitpid(child, 0, 0));
    TRY("gone", -(syscall(SYS_kill, child, 0) == 0));
    /* An orphan is taken in by whoever looks after the step, and stays the step's. */
    child = fork();
    if (!child) {
        int orphan = fork();
        if (!orphan) { pause(); _exit(0); }
        _exit(write(said[1], &orphan, sizeof orphan) != sizeof orphan);
    }
    int orphan = 0;
    if (read(said[0], &orphan, sizeof orphan) != sizeof orphan) exit(9);
    waitpid(child, 0, 0);
    TRY("kill-orphan", syscall(SYS_kill, orphan, SIGKILL));
}

int main(int count, char **words) {
    setvbuf(stdout, 0, _IOLBF, 0);
    others("guard", getppid(), getppid(), getppid() == 1 ? 1 : 0);
    for (int i = 1; i < count; i++) {
        char name[32];
        int id, process, group;
        if (sscanf(words[i], "%31[^:]:%d:%d:%d", name, &id, &process, &group) != 4) return 9;
        others(name, id, process, group);
    }
    own();
    return 0;
}
