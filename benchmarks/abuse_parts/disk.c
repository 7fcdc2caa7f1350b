/* A disk that fails: what a process does to the files of one folder is counted, recorded, and at the n-th call fails or
 * ends the process. Linux; loaded with LD_PRELOAD, so that it is below Python, Pillow and safetensors alike. */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum action { NOTHING, ONCE, FROM_THEN_ON, KILL, TORN };

static char folder[PATH_MAX];
static size_t length;
static long calls, chosen;
static enum action action;
static int failure, record = -1, strict;

/* record_to: a descriptor that the calls are written to, or -1. as_windows: files in use are not replaced or removed. */
void abuse_watch(const char *path, int record_to, int as_windows) {
    calls = 0, action = NOTHING, record = record_to, strict = as_windows;
    length = (size_t)snprintf(folder, sizeof folder, "%s", path);
}

void abuse_at(long call, int what, int error) { chosen = call, action = what, failure = error; }

static int inside(const char *path) {
    return length && path && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static const char *path_of(int file, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    path[size > 0 ? size : 0] = 0;
    return path;
}

static void end(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* The error with which this call fails; 0: it goes through. */
static int due(int full_disks_allow_it) {
    long call = __sync_add_and_fetch(&calls, 1);
    if (call == chosen && action == KILL) end();
    if (full_disks_allow_it && failure == ENOSPC) return 0;
    return (action == FROM_THEN_ON && call >= chosen) || (action == ONCE && call == chosen) ? failure : 0;
}

/* One line, then the data. */
static void note(const char *call, const char *path, const char *other, long offset, const void *data, size_t size) {
    char line[2 * PATH_MAX + 99];
    if (record < 0) return;
    int written = snprintf(line, sizeof line, "%s\t%s\t%s\t%ld\t%zu\n", call, path, other, offset, size);
    syscall(SYS_write, record, line, (size_t)written);
    if (size) syscall(SYS_write, record, data, size);
}

/* Whether this process has a file open or mapped, as Windows asks before it replaces or removes one. */
static int in_use(const char *path) {
    char line[PATH_MAX + 99], link[PATH_MAX];
    struct dirent *entry;
    int found = 0;
    DIR *files = opendir("/proc/self/fd");
    while (files && (entry = readdir(files))) found |= !strcmp(path_of(atoi(entry->d_name), link), path);
    closedir(files);
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps)) {
        char *place = strchr(line, '/');
        if (place) place[strcspn(place, "\n")] = 0, found |= !strcmp(place, path);
    }
    fclose(maps);
    return found;
}

static int failed(int error) {
    errno = error;
    return -1;
}

/* --- Calls -------------------------------------------------------------------------------------------------------- */

static int opened(const char *path, int flags, mode_t mode) {
    int changes = flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC), error;
    if (!changes || !inside(path)) return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if ((error = due(0))) return failed(error);
    int file = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (file >= 0) note(flags & O_TRUNC ? "empty" : "open", path, "", 0, "", 0);
    return file;
}

#define OPEN(name)                                                       \
    int name(const char *path, int flags, ...) {                         \
        va_list rest;                                                    \
        va_start(rest, flags);                                           \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                    \
        return opened(path, flags, mode);                                \
    }
OPEN(open)
OPEN(open64)

ssize_t write(int file, const void *data, size_t size) {
    char path[PATH_MAX];
    struct stat status;
    if (!length || file == record || !inside(path_of(file, path))) return syscall(SYS_write, file, data, size);
    long offset = lseek(file, 0, SEEK_CUR);
    if (fcntl(file, F_GETFL) & O_APPEND && !fstat(file, &status)) offset = status.st_size;
    long call = calls + 1;
    int error = due(0);
    if (call == chosen && action == TORN) syscall(SYS_write, file, data, size / 2), end();
    if (error == ENOSPC && call == chosen && size > 1) error = 0, size /= 2; /* a full disk takes what still fits */
    if (error) return failed(error);
    ssize_t written = syscall(SYS_write, file, data, size);
    if (written > 0) note("write", path, "", offset, data, (size_t)written);
    return written;
}

static int synced(const char *call, long number, int file) {
    char path[PATH_MAX];
    int error;
    if (!length || !inside(path_of(file, path))) return (int)syscall(number, file);
    if ((error = due(0))) return failed(error);
    note(call, path, "", 0, "", 0);
    return (int)syscall(number, file);
}

int fsync(int file) { return synced("sync", SYS_fsync, file); }
int fdatasync(int file) { return synced("sync", SYS_fdatasync, file); }

int ftruncate(int file, off_t size) {
    char path[PATH_MAX];
    int error;
    if (!length || !inside(path_of(file, path))) return (int)syscall(SYS_ftruncate, file, size);
    if ((error = due(0))) return failed(error);
    note("truncate", path, "", size, "", 0);
    return (int)syscall(SYS_ftruncate, file, size);
}

int ftruncate64(int file, off_t size) { return ftruncate(file, size); }

int rename(const char *from, const char *to) {
    int error;
    if (!inside(to)) return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if ((error = due(0))) return failed(error);
    if (strict && (in_use(from) || in_use(to))) return note("in use", from, to, 0, "", 0), failed(EACCES);
    note("rename", from, to, 0, "", 0);
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlink(const char *path) {
    int error;
    if (!inside(path)) return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (access(path, F_OK)) return failed(ENOENT);
    if ((error = due(1))) return failed(error);
    if (strict && in_use(path)) return note("in use", path, "", 0, "", 0), failed(EACCES);
    note("unlink", path, "", 0, "", 0);
    return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int mkdir(const char *path, mode_t mode) {
    int error;
    if (!inside(path) || !access(path, F_OK)) return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if ((error = due(0))) return failed(error);
    note("mkdir", path, "", 0, "", 0);
    return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}
