/* Stands between a program and the disk: records what it does below one directory, in order, and makes calls fail.

   Preloaded into the programs under test (LD_PRELOAD). LAYRFS_DISK_ROOT is the directory. With LAYRFS_DISK_LOG every
   change and every flush below it is appended to that file, one record each (tests/reliability/disk.py reads them): a
   change when it has been made, a flush when it begins and when it has ended. LAYRFS_DISK_FAULT names a file that, while
   it exists, says which calls fail: "CALLS ERRNO PART SKIP COUNT", CALLS being letters (o open for writing, w write,
   t truncate and punch, n names, f fsync and syncfs), PART a part of the path (its end, with a $ behind); the first SKIP
   of them pass, COUNT fail.
   Calls of its own go to the kernel directly. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { CREATE = 1, WRITE, TRUNCATE, PUNCH, UNLINK, RENAME, MKDIR, LINK, SYNC_BEGIN, SYNC_END, SYNC_FAILED, SYNCFS_BEGIN, SYNCFS_END };

struct record {
    uint32_t magic, kind, first_bytes, second_bytes, data_bytes, thread;
    uint64_t inode, offset, length, time_ns;
};

static const char *root, *fault;
static size_t root_bytes;
static int log_fd = -1;
static ino_t fault_inode;
static struct timespec fault_made;
static int fault_passed;

__attribute__((constructor)) static void begin(void)
{
    root = getenv("LAYRFS_DISK_ROOT");
    fault = getenv("LAYRFS_DISK_FAULT");
    root_bytes = root ? strlen(root) : 0;
    const char *log = getenv("LAYRFS_DISK_LOG");
    if (root && log)
        log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_ours(const char *path)
{
    return root && !strncmp(path, root, root_bytes) && (path[root_bytes] == '/' || !path[root_bytes]);
}

/* The path of a descriptor, if it is below the root. */
static int path_of(int fd, char *path)
{
    if (!root)
        return 0;
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return is_ours(path);
}

/* The absolute path of a name, if it is below the root. */
static int path_at(int directory, const char *name, char *path)
{
    if (!root || !name)
        return 0;
    if (name[0] == '/')
        snprintf(path, PATH_MAX, "%s", name);
    else {
        if (directory == AT_FDCWD) {
            if (!getcwd(path, PATH_MAX))
                return 0;
        } else if (!path_of(directory, path))
            return 0;
        size_t length = strlen(path);
        snprintf(path + length, PATH_MAX - length, "/%s", name);
    }
    return is_ours(path);
}

static uint64_t inode_of(int fd)
{
    struct stat found;
    return fstat(fd, &found) ? 0 : found.st_ino;
}

static void note(int kind, const char *first, const char *second, uint64_t inode, uint64_t offset, uint64_t length,
                 const void *data, size_t data_bytes)
{
    if (log_fd < 0)
        return;
    int before = errno;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct record record = {0x4B534944, kind, first ? strlen(first) : 0, second ? strlen(second) : 0, data_bytes,
                            syscall(SYS_gettid), inode, offset, length, now.tv_sec * 1000000000ull + now.tv_nsec};
    struct iovec parts[] = {{&record, sizeof record}, {(void *)first, record.first_bytes},
                            {(void *)second, record.second_bytes}, {(void *)data, data_bytes}};
    syscall(SYS_writev, log_fd, parts, 4);
    errno = before;
}

/* Whether a call is to fail now; errno is set then. */
static int fails(char call, const char *path)
{
    if (!fault)
        return 0;
    struct stat found;
    if (syscall(SYS_newfstatat, AT_FDCWD, fault, &found, 0))
        return 0;
    int fd = syscall(SYS_openat, AT_FDCWD, fault, O_RDONLY | O_CLOEXEC, 0);
    char text[256] = {0}, calls[16], part[160];
    int code, skip, count;
    if (fd < 0)
        return 0;
    long got = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    if (got <= 0 || sscanf(text, "%15s %d %159s %d %d", calls, &code, part, &skip, &count) != 5)
        return 0;
    size_t part_bytes = strlen(part), path_bytes = strlen(path);
    int at_end = part[part_bytes - 1] == '$' && path_bytes >= part_bytes - 1 &&
                 !strncmp(path + path_bytes - (part_bytes - 1), part, part_bytes - 1);
    if (!strchr(calls, call) || !(at_end || strstr(path, part)))
        return 0;
    if (found.st_ino != fault_inode || found.st_mtim.tv_nsec != fault_made.tv_nsec || found.st_mtim.tv_sec != fault_made.tv_sec) {
        fault_inode = found.st_ino;
        fault_made = found.st_mtim;
        __atomic_store_n(&fault_passed, 0, __ATOMIC_SEQ_CST);
    }
    int passed = __atomic_fetch_add(&fault_passed, 1, __ATOMIC_SEQ_CST);
    if (passed < skip || passed >= skip + count)
        return 0;
    errno = code;
    return 1;
}

/* ------------------------------------------------------------------ opening */

static int opened(int directory, const char *name, int flags, mode_t mode)
{
    char path[PATH_MAX];
    int is_change = flags & (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR);
    if (!is_change || !path_at(directory, name, path))
        return syscall(SYS_openat, directory, name, flags, mode);
    if (fails('o', path))
        return -1;
    struct stat before;
    int existed = !syscall(SYS_newfstatat, AT_FDCWD, path, &before, 0);
    int fd = syscall(SYS_openat, directory, name, flags, mode);
    if (fd >= 0 && !existed)
        note(CREATE, path, NULL, inode_of(fd), 0, 0, NULL, 0);
    else if (fd >= 0 && (flags & O_TRUNC))
        note(TRUNCATE, path, NULL, inode_of(fd), 0, 0, NULL, 0);
    return fd;
}

#define MODE va_list rest; va_start(rest, flags); mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(rest, mode_t) : 0; va_end(rest)

int open(const char *name, int flags, ...) { MODE; return opened(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE; return opened(AT_FDCWD, name, flags | O_LARGEFILE, mode); }
int openat(int directory, const char *name, int flags, ...) { MODE; return opened(directory, name, flags, mode); }
int openat64(int directory, const char *name, int flags, ...) { MODE; return opened(directory, name, flags | O_LARGEFILE, mode); }

/* ------------------------------------------------------------------ writing */

static ssize_t wrote(int fd, const char *path, const void *data, ssize_t got, off_t offset)
{
    if (got > 0)
        note(WRITE, path, NULL, inode_of(fd), offset, got, data, got);
    return got;
}

ssize_t write(int fd, const void *data, size_t length)
{
    char path[PATH_MAX];
    if (!root || !path_of(fd, path))
        return syscall(SYS_write, fd, data, length);
    if (fails('w', path))
        return -1;
    ssize_t got = syscall(SYS_write, fd, data, length);
    return wrote(fd, path, data, got, lseek(fd, 0, SEEK_CUR) - got);
}

static ssize_t written(int fd, const void *data, size_t length, off_t offset)
{
    char path[PATH_MAX];
    if (!root || !path_of(fd, path))
        return syscall(SYS_pwrite64, fd, data, length, offset);
    if (fails('w', path))
        return -1;
    return wrote(fd, path, data, syscall(SYS_pwrite64, fd, data, length, offset), offset);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return written(fd, data, length, offset); }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) { return written(fd, data, length, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    char path[PATH_MAX];
    if (!root || !path_of(fd, path))
        return syscall(SYS_writev, fd, parts, count);
    ssize_t total = 0;
    for (int at = 0; at < count; at++) {
        ssize_t got = write(fd, parts[at].iov_base, parts[at].iov_len);
        if (got < 0)
            return total ? total : got;
        total += got;
    }
    return total;
}

/* ------------------------------------------------------- cutting and punching */

static int truncated(int fd, off_t size)
{
    char path[PATH_MAX];
    if (!path_of(fd, path))
        return syscall(SYS_ftruncate, fd, size);
    if (fails('t', path))
        return -1;
    int failed = syscall(SYS_ftruncate, fd, size);
    if (!failed)
        note(TRUNCATE, path, NULL, inode_of(fd), size, 0, NULL, 0);
    return failed;
}

int ftruncate(int fd, off_t size) { return truncated(fd, size); }
int ftruncate64(int fd, off64_t size) { return truncated(fd, size); }

static int truncated_path(const char *name, off_t size)
{
    int fd = syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int failed = truncated(fd, size), code = errno;
    syscall(SYS_close, fd);
    errno = code;
    return failed;
}

int truncate(const char *name, off_t size) { return truncated_path(name, size); }
int truncate64(const char *name, off64_t size) { return truncated_path(name, size); }

static int punched(int fd, int mode, off_t offset, off_t length)
{
    char path[PATH_MAX];
    if (!path_of(fd, path))
        return syscall(SYS_fallocate, fd, mode, offset, length);
    if (fails('t', path))
        return -1;
    int failed = syscall(SYS_fallocate, fd, mode, offset, length);
    if (!failed && (mode & FALLOC_FL_PUNCH_HOLE))
        note(PUNCH, path, NULL, inode_of(fd), offset, length, NULL, 0);
    return failed;
}

int fallocate(int fd, int mode, off_t offset, off_t length) { return punched(fd, mode, offset, length); }
int fallocate64(int fd, int mode, off64_t offset, off64_t length) { return punched(fd, mode, offset, length); }

/* -------------------------------------------------------------------- names */

static int unlinked(int directory, const char *name, int flags)
{
    char path[PATH_MAX];
    int ours = path_at(directory, name, path);
    if (ours && fails('n', path))
        return -1;
    int failed = syscall(SYS_unlinkat, directory, name, flags);
    if (ours && !failed)
        note(UNLINK, path, NULL, 0, 0, 0, NULL, 0);
    return failed;
}

int unlink(const char *name) { return unlinked(AT_FDCWD, name, 0); }
int unlinkat(int directory, const char *name, int flags) { return unlinked(directory, name, flags); }
int rmdir(const char *name) { return unlinked(AT_FDCWD, name, AT_REMOVEDIR); }

static int renamed(int from, const char *old, int to, const char *new)
{
    char first[PATH_MAX], second[PATH_MAX];
    int ours = path_at(from, old, first) && path_at(to, new, second);
    if (ours && fails('n', second))
        return -1;
    int failed = syscall(SYS_renameat2, from, old, to, new, 0);
    if (ours && !failed)
        note(RENAME, first, second, 0, 0, 0, NULL, 0);
    return failed;
}

int rename(const char *old, const char *new) { return renamed(AT_FDCWD, old, AT_FDCWD, new); }
int renameat(int from, const char *old, int to, const char *new) { return renamed(from, old, to, new); }

static int linked(int from, const char *old, int to, const char *new, int flags)
{
    char first[PATH_MAX], second[PATH_MAX];
    int ours = path_at(from, old, first) && path_at(to, new, second);
    if (ours && fails('n', second))
        return -1;
    int failed = syscall(SYS_linkat, from, old, to, new, flags);
    if (ours && !failed)
        note(LINK, first, second, 0, 0, 0, NULL, 0);
    return failed;
}

int link(const char *old, const char *new) { return linked(AT_FDCWD, old, AT_FDCWD, new, 0); }
int linkat(int from, const char *old, int to, const char *new, int flags) { return linked(from, old, to, new, flags); }

static int made(int directory, const char *name, mode_t mode)
{
    char path[PATH_MAX];
    int ours = path_at(directory, name, path);
    if (ours && fails('n', path))
        return -1;
    int failed = syscall(SYS_mkdirat, directory, name, mode);
    struct stat found;
    if (ours && !failed && !syscall(SYS_newfstatat, AT_FDCWD, path, &found, 0))
        note(MKDIR, path, NULL, found.st_ino, 0, 0, NULL, 0);
    return failed;
}

int mkdir(const char *name, mode_t mode) { return made(AT_FDCWD, name, mode); }
int mkdirat(int directory, const char *name, mode_t mode) { return made(directory, name, mode); }

/* ------------------------------------------------------------------ flushing */

static int flushed(int fd, long call)
{
    char path[PATH_MAX];
    if (!path_of(fd, path))
        return syscall(call, fd);
    int whole = call == SYS_syncfs;
    uint64_t inode = inode_of(fd);
    note(whole ? SYNCFS_BEGIN : SYNC_BEGIN, path, NULL, inode, 0, 0, NULL, 0);
    if (fails('f', path)) {
        int code = errno;
        if (!whole)
            note(SYNC_FAILED, path, NULL, inode, 0, 0, NULL, 0);
        errno = code;
        return -1;
    }
    int failed = syscall(call, fd);
    if (!failed)
        note(whole ? SYNCFS_END : SYNC_END, path, NULL, inode, 0, 0, NULL, 0);
    return failed;
}

int fsync(int fd) { return flushed(fd, SYS_fsync); }
int fdatasync(int fd) { return flushed(fd, SYS_fdatasync); }
int syncfs(int fd) { return flushed(fd, SYS_syncfs); }
