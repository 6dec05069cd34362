// Keeps what a disk would have after a power cut. Preloaded into a process (LD_PRELOAD): each file under $POWER_LIVE has
// a twin under $POWER_DISK that holds only what was fsynced. The other side of the coin, $POWER_IGNORES_SYNC, leaves the
// twins empty: a test that loses nothing then sees nothing.
//
// A file $POWER_FAILS with a line "EIO 1 -wal" makes the next fsync of a file whose name ends so fail, as Linux does it: the
// error is told once, and the pages that were not written are taken for written. "EIO -1 -wal" goes on until the file is
// gone; "ENOSPC" likewise. The file goes when all of its failures have been. "HANG 1 -wal" lets such an fsync begin, and end
// only when the file is gone.
//
// What is not modelled: torn pages (SQLite's checksums find those), and directory entries, which count as durable at once.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096
#define PAGES (1 << 18)
#define DESCRIPTORS 4096

struct file {
    char path[PATH_MAX];
    unsigned char *dirty;
    struct file *next;
};
static struct file *files, *opened[DESCRIPTORS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *live, *disk, *fails;
static int ignores_sync;

#define NEXT(name) \
    static __typeof__(&name) next; \
    if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void start(void) {
    live = getenv("POWER_LIVE");
    disk = getenv("POWER_DISK");
    fails = getenv("POWER_FAILS");
    ignores_sync = getenv("POWER_IGNORES_SYNC") != NULL;
}

// Shared memory is rebuilt from the write-ahead log, and needs no disk.
static int is_ours(const char *path) { return live && disk && !strncmp(path, live, strlen(live)) && !strstr(path, "-shm"); }

static void twin(const char *path, char *out) { snprintf(out, PATH_MAX, "%s%s", disk, path + strlen(live)); }

static int open_next(const char *path, int flags) {
    NEXT(open);
    return next(path, flags, 0644);
}

static void note_open(int fd, const char *path) {
    struct stat is;
    if (fd < 0 || fd >= DESCRIPTORS) return;
    opened[fd] = NULL;
    if (!is_ours(path) || fstat(fd, &is) || !S_ISREG(is.st_mode)) return;
    pthread_mutex_lock(&lock);
    struct file *file = files;
    while (file && strcmp(file->path, path)) file = file->next;
    if (!file) {
        file = calloc(1, sizeof *file);
        snprintf(file->path, PATH_MAX, "%s", path);
        file->dirty = calloc(1, PAGES);
        file->next = files;
        files = file;
    }
    opened[fd] = file;
    pthread_mutex_unlock(&lock);
    char to[PATH_MAX];
    twin(path, to);
    int created = open_next(to, O_WRONLY | O_CREAT);
    if (created >= 0) close(created);
}

static void note_write(int fd, off_t at, ssize_t bytes) {
    if (bytes <= 0 || fd < 0 || fd >= DESCRIPTORS || !opened[fd]) return;
    for (off_t page = at / PAGE; page <= (at + bytes - 1) / PAGE && page < PAGES; page++) opened[fd]->dirty[page] = 1;
}

static void note_sync(int fd) {
    if (ignores_sync || fd < 0 || fd >= DESCRIPTORS || !opened[fd]) return;
    struct file *file = opened[fd];
    char to[PATH_MAX], page[PAGE];
    twin(file->path, to);
    int from = open_next(file->path, O_RDONLY), into = open_next(to, O_WRONLY | O_CREAT);
    struct stat is;
    if (from < 0 || into < 0 || fstat(from, &is)) abort();
    static ssize_t (*next)(int, const void *, size_t, off_t);
    if (!next) next = (ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
    for (off_t n = 0; n <= is.st_size / PAGE && n < PAGES; n++) {
        if (!file->dirty[n]) continue;
        file->dirty[n] = 0;
        ssize_t bytes = pread(from, page, PAGE, n * PAGE);
        if (bytes > 0 && next(into, page, bytes, n * PAGE) != bytes) abort();
    }
    if (ftruncate(into, is.st_size)) abort();
    close(from);
    close(into);
}

static mode_t mode_of(int flags, va_list more) { return flags & O_CREAT ? va_arg(more, mode_t) : 0; }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        NEXT(name); \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = mode_of(flags, more); \
        va_end(more); \
        int fd = next(path, flags, mode); \
        note_open(fd, path); \
        return fd; \
    }
OPEN(open)
OPEN(open64)

#define PWRITE(name, offset) \
    ssize_t name(int fd, const void *from, size_t bytes, offset at) { \
        NEXT(name); \
        ssize_t written = next(fd, from, bytes, at); \
        note_write(fd, at, written); \
        return written; \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t write(int fd, const void *from, size_t bytes) {
    NEXT(write);
    int ours = fd >= 0 && fd < DESCRIPTORS && opened[fd];
    off_t at = ours ? lseek(fd, 0, SEEK_CUR) : 0;
    ssize_t written = next(fd, from, bytes);
    if (ours) note_write(fd, at, written);
    return written;
}

int close(int fd) {
    NEXT(close);
    if (fd >= 0 && fd < DESCRIPTORS) opened[fd] = NULL;
    return next(fd);
}

int unlink(const char *path) {
    NEXT(unlink);
    int outcome = next(path);
    if (!outcome && is_ours(path)) {
        char to[PATH_MAX];
        twin(path, to);
        next(to);
        for (struct file *file = files; file; file = file->next)
            if (!strcmp(file->path, path)) memset(file->dirty, 0, PAGES);
    }
    return outcome;
}

// Whether this fsync fails; then errno says how.
static int is_to_fail(int fd) {
    if (!fails || fd < 0 || fd >= DESCRIPTORS || !opened[fd]) return 0;
    pthread_mutex_lock(&lock);
    FILE *order = fopen(fails, "r");
    char error[16], end[64];
    int times = 0, fields = order ? fscanf(order, "%15s %d %63s", error, &times, end) : 0;
    if (order) fclose(order);
    const char *path = opened[fd]->path;
    int failing = fields == 3 && times && strlen(path) >= strlen(end) && !strcmp(path + strlen(path) - strlen(end), end);
    if (failing && !strcmp(error, "HANG")) {
        pthread_mutex_unlock(&lock);
        while (!access(fails, F_OK)) usleep(20000);
        return 0;
    }
    if (failing) {
        memset(opened[fd]->dirty, 0, PAGES);
        if (times > 0) {
            if (--times == 0)
                remove(fails);
            else if ((order = fopen(fails, "w"))) {
                fprintf(order, "%s %d %s", error, times, end);
                fclose(order);
            }
        }
        errno = strcmp(error, "ENOSPC") ? EIO : ENOSPC;
    }
    pthread_mutex_unlock(&lock);
    return failing;
}

static int synced(int fd) {
    if (is_to_fail(fd)) return -1;
    note_sync(fd);
    return 0;
}

int fsync(int fd) { return synced(fd); }

int fdatasync(int fd) { return synced(fd); }
