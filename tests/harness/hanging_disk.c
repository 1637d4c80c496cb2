/* Makes the disk of one process hang while a file says so: preloaded by tests (see hanging_disk.py).
 *
 * HANGING_DISK is a folder. While HANGING_SYNC_FLAG exists, fsync and fdatasync of files in it do not return; while
 * HANGING_WRITE_FLAG exists, neither do pwrite and pwritev. Calls that hang return when the flag is gone, and do then
 * what they were called for: as with a device that comes back.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int lies_in_folder(int fd)
{
    const char *folder = getenv("HANGING_DISK");
    char link[64], path[PATH_MAX];
    ssize_t length;

    if (folder == NULL)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return 0;
    path[length] = '\0';
    return strncmp(path, folder, strlen(folder)) == 0;
}

static void hang(int fd, const char *variable)
{
    const char *flag = getenv(variable);

    if (flag == NULL || access(flag, F_OK) != 0 || !lies_in_folder(fd))
        return;
    while (access(flag, F_OK) == 0)
        usleep(5000);
}

int fdatasync(int fd)
{
    static int (*real)(int);
    if (real == NULL)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    hang(fd, "HANGING_SYNC_FLAG");
    return real(fd);
}

int fsync(int fd)
{
    static int (*real)(int);
    if (real == NULL)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    hang(fd, "HANGING_SYNC_FLAG");
    return real(fd);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t position)
{
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (real == NULL)
        real = (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    hang(fd, "HANGING_WRITE_FLAG");
    return real(fd, data, size, position);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t position)
{
    return pwrite64(fd, data, size, position);
}

ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off64_t position)
{
    static ssize_t (*real)(int, const struct iovec *, int, off64_t);
    if (real == NULL)
        real = (ssize_t (*)(int, const struct iovec *, int, off64_t))dlsym(RTLD_NEXT, "pwritev64");
    hang(fd, "HANGING_WRITE_FLAG");
    return real(fd, pieces, count, position);
}

ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t position)
{
    return pwritev64(fd, pieces, count, position);
}
