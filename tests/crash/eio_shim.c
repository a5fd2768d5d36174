/*
 * A disk that fails: as long as the file that EIO_SHIM names exists, writes to and syncs of the write-ahead log give
 * EIO. Preloaded into the server.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int fd) {
    char link[64], path[4096];
    const char *trigger = getenv("EIO_SHIM");
    if (!trigger || access(trigger, F_OK)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    return length > 4 && !memcmp(path + length - 4, "-wal", 4);
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define FAIL(fd) do { int kept = errno; if (fails(fd)) { errno = EIO; return -1; } errno = kept; } while (0)

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { REAL(pwrite64); FAIL(fd); return real(fd, data, size, at); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { REAL(pwrite); FAIL(fd); return real(fd, data, size, at); }
int fdatasync(int fd) { REAL(fdatasync); FAIL(fd); return real(fd); }
int fsync(int fd) { REAL(fsync); FAIL(fd); return real(fd); }
