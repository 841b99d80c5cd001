/* Library to preload: moves the wall clock of a process by the seconds that a file holds (int64).

   Waits until a time of the wall clock end at the same moment as without it. The monotonic clock
   does not change, as when an administrator sets the clock. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t zero, *offset_s = &zero;

__attribute__((constructor)) static void map_file(void) {
  int file = open(getenv("WALL_CLOCK_FILE"), O_RDONLY | O_CLOEXEC);
  void *mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
  if (file < 0 || mapped == MAP_FAILED) abort();
  offset_s = mapped;
  close(file);
}

#define NEXT(result, name, ...)                              \
  static result (*next)(__VA_ARGS__);                        \
  if (!next) next = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static struct timespec unmoved(const struct timespec *until) {
  struct timespec real = *until;
  real.tv_sec -= *offset_s;
  return real;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  NEXT(int, "clock_gettime", clockid_t, struct timespec *);
  int result = next(clock, now);
  if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += *offset_s;
  return result;
}

int gettimeofday(struct timeval *now, void *zone) {
  struct timespec precise;
  int result = clock_gettime(CLOCK_REALTIME, &precise);
  *now = (struct timeval){precise.tv_sec, precise.tv_nsec / 1000};
  (void)zone;
  return result;
}

time_t time(time_t *result) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (result) *result = now.tv_sec;
  return now.tv_sec;
}

int sem_timedwait(sem_t *semaphore, const struct timespec *until) {
  struct timespec real = unmoved(until);
  return sem_clockwait(semaphore, CLOCK_REALTIME, &real);
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex,
                           const struct timespec *until) {
  /* The time since the start of the machine is below, the time since 1970 above. */
  if (until->tv_sec < 1000000000)
    return pthread_cond_clockwait(condition, mutex, CLOCK_MONOTONIC, until);
  struct timespec real = unmoved(until);
  return pthread_cond_clockwait(condition, mutex, CLOCK_REALTIME, &real);
}

long syscall(long number, ...) {
  long a[6];
  va_list arguments;
  va_start(arguments, number);
  for (int i = 0; i < 6; i++) a[i] = va_arg(arguments, long);
  va_end(arguments);
  NEXT(long, "syscall", long, ...);
  struct timespec real;
  if (number == SYS_futex && (a[1] & FUTEX_CLOCK_REALTIME) && a[3]) {
    real = unmoved((const struct timespec *)a[3]);
    a[3] = (long)&real;
  }
  return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
