/*
 * What a power cut would leave. `kill -9` cannot show a missing fsync, because the page cache outlives the
 * process; this library, preloaded into the server, keeps beside the real files an image that holds only what
 * was synced:
 *
 *   - fsync or fdatasync of a file brings its content in the image up to date (only the ranges written since);
 *   - fsync of a folder brings its names up to date: creations, renames and removals;
 *   - nothing else reaches the image. A synced file whose name was never synced is lost, as POSIX allows.
 *
 * SHIM_ROOT names the folder to watch, SHIM_IMAGE an empty folder beside it on the same file system:
 *   SHIM_IMAGE/inodes/N   the durable content of a file
 *   SHIM_IMAGE/dirs/N     the durable names of folder N: hard links to the above, and for folders symbolic links
 *                         to their place in dirs
 *   SHIM_IMAGE/root       a symbolic link to the image of SHIM_ROOT
 * What lies in SHIM_ROOT at the start counts as durable. SQLite's -shm files are rebuilt after a crash and are
 * left out, and so are calls that SQLite and Rust's standard library do not make. The real fsync is not called:
 * the process is killed, not the machine, and what is tested is which syncs are asked for and in what order.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS 65536
#define INODES 4096

struct range { off_t from, to; };

/* A watched file or folder. */
struct inode {
    struct inode *next;
    ino_t number;
    unsigned long id;       /* unique: the system gives numbers of removed files to new ones */
    int is_dir;
    int image;              /* descriptor of the durable content */
    off_t least;            /* shortest length since the last sync */
    struct range *dirty;
    size_t dirty_count, dirty_room;
    pthread_mutex_t syncing;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct inode *inodes[INODES];
static struct inode *fds[FDS];
static unsigned long last_id;
static char root[PATH_MAX], image[PATH_MAX];
static size_t root_length;
static dev_t device;

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_pwritev)(int, const struct iovec *, int, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_unlink)(const char *);
static int (*real_rename)(const char *, const char *);
static ssize_t (*real_copy_file_range)(int, off_t *, int, off_t *, size_t, unsigned);
static ssize_t (*real_sendfile)(int, int, off_t *, size_t);

static void fail(const char *what) {
    /* A test whose instrument is broken must not pass. */
    fprintf(stderr, "sync_shim: %s: %s\n", what, strerror(errno));
    abort();
}

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) fail(name);
    return found;
}

static void bind_real(void) {
    if (real_open) return;
    real_openat = real("openat64");
    real_close = real("close");
    real_write = real("write");
    real_writev = real("writev");
    real_pwrite = real("pwrite64");
    real_pwritev = real("pwritev64");
    real_ftruncate = real("ftruncate64");
    real_fsync = real("fsync");
    real_unlink = real("unlink");
    real_rename = real("rename");
    real_copy_file_range = real("copy_file_range");
    real_sendfile = real("sendfile64");
    real_open = real("open64");
}

static void image_path(char *path, const char *kind, unsigned long id) {
    if (snprintf(path, PATH_MAX, "%s/%s/%lu", image, kind, id) >= PATH_MAX) fail("path too long");
}

/* Under the lock. */
static struct inode *find(ino_t number) {
    for (struct inode *inode = inodes[number % INODES]; inode; inode = inode->next)
        if (inode->number == number) return inode;
    return NULL;
}

/* Under the lock. */
static struct inode *add(ino_t number, int is_dir) {
    struct inode *inode = calloc(1, sizeof *inode);
    if (!inode) fail("memory");
    char path[PATH_MAX];
    inode->number = number;
    inode->id = ++last_id;
    inode->is_dir = is_dir;
    inode->image = -1;
    pthread_mutex_init(&inode->syncing, NULL);
    image_path(path, is_dir ? "dirs" : "inodes", inode->id);
    if (is_dir) {
        if (mkdir(path, 0700)) fail(path);
    } else if ((inode->image = real_open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) < 0) {
        fail(path);
    }
    inode->next = inodes[number % INODES];
    inodes[number % INODES] = inode;
    return inode;
}

/* Under the lock. The last name is gone: the number may come back for another file. Open descriptors keep what
 * they point to, so it is not freed, only no longer found. */
static void forget(ino_t number) {
    for (struct inode **at = &inodes[number % INODES]; *at; at = &(*at)->next)
        if ((*at)->number == number) {
            *at = (*at)->next;
            return;
        }
}

/* Under the lock. */
static struct inode *known(ino_t number, int is_dir) {
    struct inode *inode = find(number);
    if (inode && inode->is_dir != is_dir) {
        forget(number);
        inode = NULL;
    }
    return inode ? inode : add(number, is_dir);
}

static int is_shm(const char *path) {
    size_t length = strlen(path);
    return length > 4 && !strcmp(path + length - 4, "-shm");
}

/* Under the lock. A new descriptor: watched when it is a file or folder below the root. */
static void opened(int fd, int flags, int existed) {
    if (fd < 0 || fd >= FDS || !root_length) return;
    int kept = errno;
    struct stat st;
    char link[64], path[PATH_MAX];
    struct inode *inode = NULL;
    if (!fstat(fd, &st) && st.st_dev == device && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, path, sizeof path - 1);
        if (length > 0) {
            path[length] = 0;
            int inside = !strncmp(path, root, root_length) && (!path[root_length] || path[root_length] == '/');
            if (inside && !is_shm(path)) {
                if (!existed) forget(st.st_ino);
                inode = known(st.st_ino, S_ISDIR(st.st_mode));
                if (flags & O_TRUNC) inode->least = 0;
            }
        }
    }
    fds[fd] = inode;
    errno = kept;
}

/* Under the lock. Bytes from `from` to `to` of a watched file have changed. */
static void changed(struct inode *inode, off_t from, off_t to) {
    struct range *last = inode->dirty_count ? &inode->dirty[inode->dirty_count - 1] : NULL;
    if (last && from <= last->to && to >= last->from) {
        if (from < last->from) last->from = from;
        if (to > last->to) last->to = to;
    } else {
        if (inode->dirty_count == inode->dirty_room) {
            inode->dirty_room = inode->dirty_room ? 2 * inode->dirty_room : 64;
            inode->dirty = realloc(inode->dirty, inode->dirty_room * sizeof *inode->dirty);
            if (!inode->dirty) fail("memory");
        }
        inode->dirty[inode->dirty_count++] = (struct range){from, to};
    }
}

static struct inode *watched(int fd) {
    struct inode *inode = fd >= 0 && fd < FDS ? fds[fd] : NULL;
    return inode && !inode->is_dir ? inode : NULL;
}

static void copy_range(int from_fd, int to_fd, off_t from, off_t to) {
    char buffer[1 << 16];
    while (from < to) {
        size_t want = (size_t)(to - from) < sizeof buffer ? (size_t)(to - from) : sizeof buffer;
        ssize_t got = pread64(from_fd, buffer, want, from);
        if (got < 0) fail("read of a file to sync");
        if (got == 0) return;
        if (real_pwrite(to_fd, buffer, (size_t)got, from) != got) fail("write to the image");
        from += got;
    }
}

static void sync_file(int fd, struct inode *inode) {
    pthread_mutex_lock(&inode->syncing);
    pthread_mutex_lock(&lock);
    /* The length belongs to the ranges that are taken here: of an earlier one, what others write meanwhile would be
     * cut off again, and their own sync would find nothing left to bring. */
    struct stat st;
    if (fstat(fd, &st)) fail("fstat");
    struct range *dirty = inode->dirty;
    size_t count = inode->dirty_count;
    off_t least = inode->least;
    inode->dirty = NULL;
    inode->dirty_count = inode->dirty_room = 0;
    inode->least = st.st_size;
    pthread_mutex_unlock(&lock);
    /* Most descriptors read as well; the others are files that nobody locks, so closing a second descriptor
     * drops nobody's lock. */
    int from = fd;
    if ((fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY && count) {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        if ((from = real_open(link, O_RDONLY | O_CLOEXEC)) < 0) fail(link);
    }
    struct stat durable;
    if (fstat(inode->image, &durable)) fail("fstat of the image");
    if (least < durable.st_size && real_ftruncate(inode->image, least)) fail("truncate of the image");
    for (size_t n = 0; n < count; n++) copy_range(from, inode->image, dirty[n].from, dirty[n].to);
    if (real_ftruncate(inode->image, st.st_size)) fail("truncate of the image");
    if (from != fd) real_close(from);
    free(dirty);
    pthread_mutex_unlock(&inode->syncing);
}

/* Makes `name` in the image of a folder stand for `inode`, in one step when it stood for another. */
static void name_in(const char *folder, const char *name, struct inode *inode) {
    char place[PATH_MAX + NAME_MAX + 2], part[PATH_MAX + 16], target[PATH_MAX];
    snprintf(place, sizeof place, "%s/%s", folder, name);
    snprintf(part, sizeof part, "%s.part", folder);
    real_unlink(part);
    if (inode->is_dir) {
        snprintf(target, sizeof target, "../%lu", inode->id);
        if (symlink(target, part)) fail(part);
    } else {
        image_path(target, "inodes", inode->id);
        struct stat a, b;
        if (!stat(target, &a) && !lstat(place, &b) && a.st_ino == b.st_ino) return;
        if (link(target, part)) fail(part);
    }
    if (real_rename(part, place)) fail(place);
}

static int exists(const char *folder, const char *name) {
    char path[PATH_MAX + NAME_MAX + 2];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return !lstat(path, &st);
}

static void sync_dir(int fd, struct inode *inode) {
    char actual[PATH_MAX], link[64], durable[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, actual, sizeof actual - 1);
    if (length < 0) fail(link);
    actual[length] = 0;
    image_path(durable, "dirs", inode->id);
    pthread_mutex_lock(&lock);
    DIR *names = opendir(actual);
    if (!names) fail(actual);
    for (struct dirent *entry; (entry = readdir(names));) {
        struct stat st;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || is_shm(entry->d_name)) continue;
        if (fstatat(dirfd(names), entry->d_name, &st, AT_SYMLINK_NOFOLLOW)) continue;
        if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) continue;
        struct inode *named = known(st.st_ino, S_ISDIR(st.st_mode));
        name_in(durable, entry->d_name, named);
    }
    closedir(names);
    if (!(names = opendir(durable))) fail(durable);
    for (struct dirent *entry; (entry = readdir(names));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (!exists(actual, entry->d_name)) {
            char path[PATH_MAX + NAME_MAX + 2];
            snprintf(path, sizeof path, "%s/%s", durable, entry->d_name);
            if (real_unlink(path)) fail(path);
        }
    }
    closedir(names);
    pthread_mutex_unlock(&lock);
}

/* What is there at the start is durable. */
static struct inode *import(const char *path) {
    struct stat st;
    if (lstat(path, &st)) fail(path);
    if (S_ISREG(st.st_mode)) {
        struct inode *inode = add(st.st_ino, 0);
        int fd = real_open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) fail(path);
        copy_range(fd, inode->image, 0, st.st_size);
        inode->least = st.st_size;
        real_close(fd);
        return inode;
    }
    if (!S_ISDIR(st.st_mode)) return NULL;
    struct inode *inode = add(st.st_ino, 1);
    char durable[PATH_MAX];
    image_path(durable, "dirs", inode->id);
    DIR *names = opendir(path);
    if (!names) fail(path);
    for (struct dirent *entry; (entry = readdir(names));) {
        char inner[PATH_MAX];
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || is_shm(entry->d_name)) continue;
        if (snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name) >= PATH_MAX) fail("path too long");
        struct inode *named = import(inner);
        if (named) name_in(durable, entry->d_name, named);
    }
    closedir(names);
    return inode;
}

__attribute__((constructor)) static void begin(void) {
    bind_real();
    const char *watch = getenv("SHIM_ROOT"), *keep = getenv("SHIM_IMAGE");
    if (!watch || !keep || !realpath(watch, root) || !realpath(keep, image)) fail("SHIM_ROOT and SHIM_IMAGE");
    char path[PATH_MAX + 16], target[64];
    struct stat st;
    if (stat(root, &st)) fail(root);
    device = st.st_dev;
    snprintf(path, sizeof path, "%s/inodes", image);
    if (mkdir(path, 0700)) fail(path);
    snprintf(path, sizeof path, "%s/dirs", image);
    if (mkdir(path, 0700)) fail(path);
    pthread_mutex_lock(&lock);
    struct inode *top = import(root);
    pthread_mutex_unlock(&lock);
    snprintf(path, sizeof path, "%s/root", image);
    snprintf(target, sizeof target, "dirs/%lu", top->id);
    if (symlink(target, path)) fail(path);
    /* From here on descriptors are watched. */
    root_length = strlen(root);
}

static int open_at(int folder, const char *path, int flags, mode_t mode) {
    bind_real();
    struct stat st;
    int kept = errno;
    /* In one piece: two threads that create one name must not both take it for new, and a file that is cut to
     * nothing must not be synced before that is known. */
    pthread_mutex_lock(&lock);
    int existed = !(flags & O_CREAT) || !fstatat(folder, path, &st, 0);
    errno = kept;
    int fd = real_openat(folder, path, flags, mode);
    opened(fd, flags, existed);
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE(flags, last) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, last); mode = va_arg(more, mode_t); va_end(more); }

int open(const char *path, int flags, ...) { MODE(flags, flags) return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, flags) return open_at(AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE(flags, flags) return open_at(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE(flags, flags) return open_at(folder, path, flags, mode); }
int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int fd) {
    bind_real();
    if (fd >= 0 && fd < FDS) fds[fd] = NULL;
    return real_close(fd);
}

/* Runs a call that writes at the descriptor's own place, and notes what it wrote. In one piece: that place is shared
 * by all who have the descriptor. */
#define WRITES(fd, call) \
    bind_real(); \
    struct inode *inode = watched(fd); \
    if (!inode) return call; \
    pthread_mutex_lock(&lock); \
    ssize_t bytes = call; \
    int kept = errno; \
    off_t end = lseek(fd, 0, SEEK_CUR); \
    if (bytes > 0) changed(inode, end - bytes, end); \
    pthread_mutex_unlock(&lock); \
    errno = kept; \
    return bytes;

/* Notes what was written at a place of its own. Afterwards is early enough: only the writer's own sync, which comes
 * later still, promises these bytes. */
static ssize_t written_at(int fd, ssize_t bytes, off_t from) {
    struct inode *inode = bytes > 0 ? watched(fd) : NULL;
    if (inode) {
        pthread_mutex_lock(&lock);
        changed(inode, from, from + bytes);
        pthread_mutex_unlock(&lock);
    }
    return bytes;
}

ssize_t write(int fd, const void *data, size_t size) { WRITES(fd, real_write(fd, data, size)) }
ssize_t writev(int fd, const struct iovec *data, int count) { WRITES(fd, real_writev(fd, data, count)) }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { bind_real(); return written_at(fd, real_pwrite(fd, data, size, at), at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { bind_real(); return written_at(fd, real_pwrite(fd, data, size, at), at); }
ssize_t pwritev(int fd, const struct iovec *data, int count, off_t at) { bind_real(); return written_at(fd, real_pwritev(fd, data, count, at), at); }
ssize_t pwritev64(int fd, const struct iovec *data, int count, off64_t at) { bind_real(); return written_at(fd, real_pwritev(fd, data, count, at), at); }

static ssize_t copied(int in, off64_t *in_at, int out, size_t size, unsigned flags) { WRITES(out, real_copy_file_range(in, in_at, out, NULL, size, flags)) }

ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t size, unsigned flags) {
    bind_real();
    if (!out_at) return copied(in, in_at, out, size, flags);
    off_t at = *out_at;
    return written_at(out, real_copy_file_range(in, in_at, out, out_at, size, flags), at);
}

ssize_t sendfile64(int out, int in, off64_t *at, size_t size) { WRITES(out, real_sendfile(out, in, at, size)) }

static int truncated(int fd, off_t size) {
    bind_real();
    struct inode *inode = watched(fd);
    if (!inode) return real_ftruncate(fd, size);
    /* In one piece: a sync between the two would bring what is written next, and the one after it cut that off. */
    pthread_mutex_lock(&lock);
    int failed = real_ftruncate(fd, size);
    if (!failed && size < inode->least) inode->least = size;
    pthread_mutex_unlock(&lock);
    return failed;
}

int ftruncate(int fd, off_t size) { return truncated(fd, size); }
int ftruncate64(int fd, off64_t size) { return truncated(fd, size); }

static int synced(int fd) {
    bind_real();
    struct inode *inode = fd >= 0 && fd < FDS ? fds[fd] : NULL;
    if (!inode) return real_fsync(fd);
    if (inode->is_dir) sync_dir(fd, inode);
    else sync_file(fd, inode);
    return 0;
}

int fsync(int fd) { return synced(fd); }
int fdatasync(int fd) { return synced(fd); }
