/* Makes the folder $LACKING_IN behave as a file system that lacks what $LACKING names: locks, dirsync, links.
   cc -shared -fPIC -o lacking.so lacking.c -ldl; LD_PRELOAD=lacking.so LACKING_IN=/folder LACKING=locks,links COMMAND */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int lacks(const char *what) {
    const char *named = getenv("LACKING");
    return named && strstr(named, what) != NULL;
}

static int is_in(const char *path) {
    const char *folder = getenv("LACKING_IN");
    return folder && strncmp(path, folder, strlen(folder)) == 0;
}

static int is_open_in(int descriptor) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return is_in(path);
}

static int refuse(int number) {
    errno = number;
    return -1;
}

int flock(int descriptor, int operation) {
    int (*real)(int, int) = dlsym(RTLD_NEXT, "flock");
    return lacks("locks") && is_open_in(descriptor) ? refuse(ENOLCK) : real(descriptor, operation);
}

int fsync(int descriptor) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    struct stat about;
    int folder = fstat(descriptor, &about) == 0 && S_ISDIR(about.st_mode);
    return lacks("dirsync") && folder && is_open_in(descriptor) ? refuse(EINVAL) : real(descriptor);
}

int link(const char *old, const char *new) {
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "link");
    char full[PATH_MAX];
    const char *folder = new[0] == '/' ? new : getcwd(full, sizeof full);
    return lacks("links") && folder && is_in(folder) ? refuse(EPERM) : real(old, new);
}
