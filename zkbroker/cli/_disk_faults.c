/* A disk that hangs or forgets, for one process that this library is preloaded into: see _disk_faults.py.
 *
 * DISK_FAULTS_FOLDER: only files below it are meant.
 * DISK_FAULTS_CONTROL: a file of two bytes. While the first is not zero, writes do not return; while the second is not,
 *     fsync, fdatasync and msync do not. Calls that hang do what they were called for when it is zero again: as with a
 *     device that comes back.
 * DISK_FAULTS_NOTES: a file that gets a line for whatever changes how much of a file a loss of power leaves:
 *     "S INODE SIZE" so many bytes were there when an fsync that has returned began; "T INODE SIZE" it was cut to that;
 *     "U INODE" the file is gone, another one may get its inode.
 *     A line is written after the call, so a kill between the two can only let too much survive.
 *
 * Not seen: what is changed through mmap, and files that are emptied by opening them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITES, SYNCS };
enum { LOOK_AGAIN_US = 5000 };

static const char *folder;
static size_t folder_length;
static const volatile char *hanging;
static int notes = -1;

/* The function that stands behind ours, looked up once. */
#define REAL(name)                        \
    (__extension__({                      \
        static __typeof__(&name) found;   \
        if (found == NULL)                \
            found = find(#name);          \
        found;                            \
    }))

static void *find(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);

    if (found == NULL)
        abort();
    return found;
}

__attribute__((constructor)) static void begin(void)
{
    const char *control = getenv("DISK_FAULTS_CONTROL"), *path = getenv("DISK_FAULTS_NOTES");
    int fd;

    folder = getenv("DISK_FAULTS_FOLDER");
    if (folder == NULL)
        return;
    folder_length = strlen(folder);
    if (control != NULL && (fd = open(control, O_RDONLY | O_CLOEXEC)) >= 0) {
        void *mapped = mmap(NULL, 2, PROT_READ, MAP_SHARED, fd, 0);
        if (mapped != MAP_FAILED)
            hanging = mapped;
        close(fd);
    }
    if (path != NULL)
        notes = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static int is_below(const char *path)
{
    return strncmp(path, folder, folder_length) == 0 && path[folder_length] == '/';
}

static int is_meant(int fd)
{
    char link[64], path[PATH_MAX];
    ssize_t length;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return 0;
    path[length] = '\0';
    return is_below(path);
}

/* fd -1: whatever it is about. */
static void hang(int fd, int what)
{
    if (hanging == NULL || !hanging[what] || (fd >= 0 && !is_meant(fd)))
        return;
    while (hanging[what])
        usleep(LOOK_AGAIN_US);
}

static void note(const char *format, ...)
{
    char line[96];
    va_list values;
    int length;

    va_start(values, format);
    length = vsnprintf(line, sizeof line, format, values);
    va_end(values);
    /* In one piece, for other threads write there too. A note that is not written would falsify all that follows. */
    if (REAL(write)(notes, line, (size_t)length) != length)
        abort();
}

static int synced(int fd, int (*sync)(int))
{
    struct stat64 before;
    int is_noted = notes >= 0 && fstat64(fd, &before) == 0 && S_ISREG(before.st_mode) && is_meant(fd);
    int failed;

    hang(fd, SYNCS);
    failed = sync(fd);
    if (!failed && is_noted)
        note("S %llu %lld\n", (unsigned long long)before.st_ino, (long long)before.st_size);
    return failed;
}

int fsync(int fd)
{
    return synced(fd, REAL(fsync));
}

int fdatasync(int fd)
{
    return synced(fd, REAL(fdatasync));
}

int msync(void *start, size_t size, int flags)
{
    hang(-1, SYNCS);
    return REAL(msync)(start, size, flags);
}

ssize_t write(int fd, const void *data, size_t size)
{
    hang(fd, WRITES);
    return REAL(write)(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *pieces, int count)
{
    hang(fd, WRITES);
    return REAL(writev)(fd, pieces, count);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t position)
{
    hang(fd, WRITES);
    return REAL(pwrite64)(fd, data, size, position);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t position)
{
    return pwrite64(fd, data, size, position);
}

ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off64_t position)
{
    hang(fd, WRITES);
    return REAL(pwritev64)(fd, pieces, count, position);
}

ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t position)
{
    return pwritev64(fd, pieces, count, position);
}

/* Python's os.pwritev calls this one. */
ssize_t pwritev64v2(int fd, const struct iovec *pieces, int count, off64_t position, int flags)
{
    hang(fd, WRITES);
    return REAL(pwritev64v2)(fd, pieces, count, position, flags);
}

ssize_t pwritev2(int fd, const struct iovec *pieces, int count, off_t position, int flags)
{
    return pwritev64v2(fd, pieces, count, position, flags);
}

int ftruncate64(int fd, off64_t size)
{
    struct stat64 file;
    int failed;

    hang(fd, WRITES);
    failed = REAL(ftruncate64)(fd, size);
    if (!failed && notes >= 0 && fstat64(fd, &file) == 0 && is_meant(fd))
        note("T %llu %lld\n", (unsigned long long)file.st_ino, (long long)size);
    return failed;
}

int ftruncate(int fd, off_t size)
{
    return ftruncate64(fd, size);
}

/* The inode that goes away when the name is taken from it; 0: none. */
static unsigned long long leaving(const char *path)
{
    struct stat64 file;

    if (notes < 0 || !is_below(path) || lstat64(path, &file) != 0 || !S_ISREG(file.st_mode) || file.st_nlink > 1)
        return 0;
    return file.st_ino;
}

static int gone(int failed, unsigned long long inode)
{
    if (!failed && inode != 0)
        note("U %llu\n", inode);
    return failed;
}

int unlink(const char *path)
{
    unsigned long long inode = leaving(path);

    return gone(REAL(unlink)(path), inode);
}

int rename(const char *old, const char *new)
{
    unsigned long long inode = leaving(new);

    return gone(REAL(rename)(old, new), inode);
}
