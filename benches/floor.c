/* The least work that starts a container: one clone3 into the default bundle's namespaces, its mounts, device nodes, masked and
 * read-only paths, pivot_root and execve; no control group, no seccomp filter, no state, nothing checked beyond errors.
 *   floor ROOTFS PROGRAM [ARGUMENT ...]
 * Everything a runtime needs beyond this is its own cost: benches/runtime.sh compares. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    _exit(125);
}

static void must_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)
{
    if (mount(source, target, type, flags, data))
        die(target);
}

static const unsigned long QUIET = MS_NOSUID | MS_NOEXEC | MS_NODEV;

static void mounts(void)
{
    mkdir("proc", 0755);
    must_mount("proc", "proc", "proc", QUIET, NULL);
    mkdir("dev", 0755);
    must_mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
    mkdir("dev/pts", 0755);
    must_mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
    mkdir("sys", 0755);
    must_mount("sysfs", "sys", "sysfs", QUIET | MS_RDONLY, NULL);
    must_mount("tmpfs", "sys/fs/cgroup", "tmpfs", QUIET, "mode=755");
    mkdir("dev/mqueue", 0755);
    must_mount("mqueue", "dev/mqueue", "mqueue", QUIET, NULL);
    mkdir("dev/shm", 01777);
    must_mount("shm", "dev/shm", "tmpfs", QUIET, "mode=1777,size=67108864");
}

static void devices(void)
{
    static const struct { const char *path; unsigned minor_of_1; } memory[] = {
        {"dev/null", 3}, {"dev/zero", 5}, {"dev/full", 7}, {"dev/random", 8}, {"dev/urandom", 9},
    };
    static const char *links[][2] = {
        {"/proc/self/fd", "dev/fd"}, {"/proc/self/fd/0", "dev/stdin"}, {"/proc/self/fd/1", "dev/stdout"},
        {"/proc/self/fd/2", "dev/stderr"}, {"/proc/kcore", "dev/core"}, {"pts/ptmx", "dev/ptmx"},
    };
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        if (mknod(memory[i].path, S_IFCHR | 0666, makedev(1, memory[i].minor_of_1)))
            die(memory[i].path);
    if (mknod("dev/tty", S_IFCHR | 0666, makedev(5, 0)))
        die("dev/tty");
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (symlink(links[i][0], links[i][1]))
            die(links[i][1]);
}

static void hide(void)
{
    static const char *masked[] = {
        "proc/acpi", "proc/asound", "proc/interrupts", "proc/kcore", "proc/keys", "proc/latency_stats", "proc/sched_debug", "proc/scsi",
        "proc/timer_list", "proc/timer_stats", "sys/devices/virtual/powercap", "sys/firmware",
    };
    static const char *readonly[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};
    for (size_t i = 0; i < sizeof masked / sizeof *masked; i++) {
        if (!mount("dev/null", masked[i], NULL, MS_BIND, NULL) || errno == ENOENT)
            continue;
        if (errno != ENOTDIR)
            die(masked[i]);
        must_mount("tmpfs", masked[i], "tmpfs", MS_RDONLY, "size=0k");
    }
    for (size_t i = 0; i < sizeof readonly / sizeof *readonly; i++) {
        if (mount(readonly[i], readonly[i], NULL, MS_BIND | MS_REC, NULL)) {
            if (errno == ENOENT)
                continue;
            die(readonly[i]);
        }
        must_mount(NULL, readonly[i], NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | QUIET, NULL);
    }
}

static void container(const char *rootfs, char **argv)
{
    must_mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL);
    must_mount(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL);
    if (chdir(rootfs))
        die(rootfs);
    umask(0);
    mounts();
    devices();
    hide();
    if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
        die("pivot_root");
    if (sethostname("floor", 5))
        die("sethostname");
    execvp(argv[0], argv);
    die(argv[0]);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "floor ROOTFS PROGRAM [ARGUMENT ...]\n");
        return 2;
    }
    struct clone_args args = {
        .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS,
        .exit_signal = SIGCHLD,
    };
    long pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0)
        die("clone3");
    if (pid == 0)
        container(argv[1], argv + 2);
    int status = 0;
    if (waitpid((pid_t)pid, &status, 0) < 0)
        die("waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
