/*
 * Tries the sync shim as a database uses it: one thread appends blocks to a file and syncs after each, another
 * thread syncs the same file all the while. `two_threads FILE COUNT [cut]` prints nothing; afterwards the image of
 * FILE must hold COUNT blocks of 512 bytes, each filled with its number. With `cut` the file is cut to nothing and
 * begun again now and then, as a log that is reset; what counts then are the blocks since the last cut.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK 512
#define BETWEEN_CUTS 1000

static atomic_int ended;
static const char *path;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void *sync_all_the_while(void *unused) {
    (void)unused;
    int fd = open(path, O_RDWR);
    if (fd < 0) fail(path);
    while (!atomic_load(&ended))
        if (fdatasync(fd)) fail("sync beside");
    return NULL;
}

int main(int count, char **given) {
    if (count < 3) return 2;
    path = given[1];
    uint64_t blocks = strtoull(given[2], NULL, 10);
    int cuts = count > 3;
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0) fail(path);
    pthread_t beside;
    if (pthread_create(&beside, NULL, sync_all_the_while, NULL)) fail("thread");
    uint64_t block[BLOCK / sizeof(uint64_t)], place = 0;
    for (uint64_t number = 1; number <= blocks; number++) {
        if (cuts && number % BETWEEN_CUTS == 1) {
            if (ftruncate(fd, 0)) fail("cut");
            place = 0;
        }
        for (size_t n = 0; n < BLOCK / sizeof(uint64_t); n++) block[n] = number;
        if (pwrite(fd, block, BLOCK, (off_t)(place++ * BLOCK)) != BLOCK) fail("write");
        if (fdatasync(fd)) fail("sync");
    }
    /* As a power cut: what this process does afterwards must not count. */
    _exit(0);
}
