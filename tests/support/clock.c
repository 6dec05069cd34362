// A clock of its own for a process (LD_PRELOAD): the real time plus the milliseconds in the first eight bytes of $CLOCK_FILE;
// the kernel says that it is set while the next eight are not zero. What counts from the kernel's start stays as it is.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

// include/uapi/linux/timex.h
#define TIME_OK 0
#define TIME_ERROR 5

static const volatile struct { int64_t by_ms; int64_t is_set; } *order;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) abort();
    void *found = mmap(NULL, sizeof *order, PROT_READ, MAP_SHARED, file, 0);
    if (found == MAP_FAILED) abort();
    order = found;
    close(file);
}

static long forward(long number, long a, long b, long c, long d, long e, long f) {
    static long (*next)(long, ...);
    if (!next) next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return next(number, a, b, c, d, e, f);
}

long syscall(long number, ...) {
    va_list list;
    va_start(list, number);
    long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long);
    long d = va_arg(list, long), e = va_arg(list, long), f = va_arg(list, long);
    va_end(list);
    if (number == SYS_adjtimex && order) return order->is_set ? TIME_OK : TIME_ERROR;
    return forward(number, a, b, c, d, e, f);
}

int clock_gettime(clockid_t clock, struct timespec *found) {
    int failed = (int)forward(SYS_clock_gettime, clock, (long)found, 0, 0, 0, 0);
    if (!failed && order && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t ns = found->tv_nsec + order->by_ms % 1000 * 1000000;
        int64_t carry = ns < 0 ? -1 : ns / 1000000000;
        found->tv_sec += order->by_ms / 1000 + carry;
        found->tv_nsec = ns - carry * 1000000000;
    }
    return failed;
}

int gettimeofday(struct timeval *restrict found, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    found->tv_sec = now.tv_sec;
    found->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *found) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (found) *found = now.tv_sec;
    return now.tv_sec;
}
