/* The least work that starts a container: one clone3 into the default bundle's namespaces, its mounts, device nodes, masked and
 * read-only paths, pivot_root and execve; no control group, no seccomp filter, no state, nothing checked beyond errors.
 *   floor ROOTFS PROGRAM [ARGUMENT ...]
 *   floor --whole FOLDER ROOTFS PROGRAM [ARGUMENT ...]
 * Everything a runtime needs beyond this is its own cost: benches/runtime.sh compares. With --whole it also does, as plainly as
 * it can be done, what the standard asks of a runtime besides: a control group of its own in every hierarchy of version 1, with
 * the default rules for devices and the view of it inside, a filter for system calls of the default one's size, and a FOLDER
 * with two files for its state. That is how near to the first one a runtime can come. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
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

#define GROUPS "/sys/fs/cgroup"

static const char *whole; /* folder of the state, if all is wanted; its last part names the group */
static char *hierarchies[32];
static size_t count;

static void put(const char *path, const char *text, int flags)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0600);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        die(path);
    close(fd);
}

static const char *in_group(size_t hierarchy, const char *file)
{
    static char path[512];
    const char *name = strrchr(whole, '/') ? strrchr(whole, '/') + 1 : whole;
    snprintf(path, sizeof path, GROUPS "/%s/floor-%s/%s", hierarchies[hierarchy], name, file);
    return path;
}

static void groups(void)
{
    static const char *allowed[] = {"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm",
                                    "c 5:0 rwm", "c 5:1 rwm", "c 5:2 rwm", "c 136:* rwm"};
    DIR *all = opendir(GROUPS);
    if (!all)
        die(GROUPS);
    for (struct dirent *entry; (entry = readdir(all)) && count < 32;)
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.' && strcmp(entry->d_name, "unified")) {
            char tasks[300];
            snprintf(tasks, sizeof tasks, GROUPS "/%s/tasks", entry->d_name);
            if (!access(tasks, F_OK)) /* else a folder without a hierarchy */
                hierarchies[count++] = strdup(entry->d_name);
        }
    closedir(all);
    for (size_t i = 0; i < count; i++) {
        if (mkdir(in_group(i, ""), 0755))
            die(in_group(i, ""));
        if (!strcmp(hierarchies[i], "cpuset")) {
            static const char *files[] = {"cpuset.cpus", "cpuset.mems"};
            for (size_t f = 0; f < 2; f++) {
                char text[256] = "", parent[256];
                snprintf(parent, sizeof parent, GROUPS "/cpuset/%s", files[f]);
                int fd = open(parent, O_RDONLY | O_CLOEXEC);
                if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
                    die(parent);
                close(fd);
                put(in_group(i, files[f]), text, 0);
            }
        }
        if (!strcmp(hierarchies[i], "devices")) {
            put(in_group(i, "devices.deny"), "a", 0);
            for (size_t a = 0; a < sizeof allowed / sizeof *allowed; a++)
                put(in_group(i, "devices.allow"), allowed[a], 0);
        }
    }
}

static void view_of_groups(void)
{
    for (size_t i = 0; i < count; i++) {
        char target[300];
        snprintf(target, sizeof target, "sys/fs/cgroup/%s", hierarchies[i]);
        mkdir(target, 0755);
        must_mount(in_group(i, ""), target, NULL, MS_BIND, NULL);
        must_mount(NULL, target, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | QUIET, NULL);
    }
}

/* As many instructions as docker's default filter becomes, all of which let pass. */
static void filter(void)
{
    enum { LENGTH = 380 };
    static struct sock_filter code[LENGTH];
    code[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0);
    for (size_t i = 1; i < LENGTH - 1; i++)
        code[i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (uint32_t)(1000 + i), 0, i + 8 < LENGTH ? 7 : 0);
    code[LENGTH - 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {.len = LENGTH, .filter = code};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program))
        die("seccomp");
}

static void state(int make)
{
    static char spec[25000];
    char path[300];
    memset(spec, ' ', sizeof spec - 1);
    if (make && mkdir(whole, 0700))
        die(whole);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", whole, i ? "state.json" : "config.json");
        if (make)
            put(path, i ? "{}" : spec, O_CREAT);
        else
            unlink(path);
    }
    if (!make)
        rmdir(whole);
}

static void forget(void)
{
    for (size_t i = 0; i < count; i++)
        rmdir(in_group(i, ""));
    state(0);
}

static void container(const char *rootfs, char **argv)
{
    for (size_t i = 0; i < count; i++)
        put(in_group(i, "tasks"), "0", 0);
    must_mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL);
    must_mount(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL);
    if (chdir(rootfs))
        die(rootfs);
    umask(0);
    mounts();
    view_of_groups();
    devices();
    hide();
    if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
        die("pivot_root");
    if (sethostname("floor", 5))
        die("sethostname");
    if (whole)
        filter();
    execvp(argv[0], argv);
    die(argv[0]);
}

int main(int argc, char **argv)
{
    if (argc > 2 && !strcmp(argv[1], "--whole")) {
        whole = argv[2];
        groups();
        state(1);
        argc -= 2;
        argv += 2;
    }
    if (argc < 3) {
        fprintf(stderr, "floor [--whole FOLDER] ROOTFS PROGRAM [ARGUMENT ...]\n");
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
    if (whole)
        forget();
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
