/* Files, numbers and base64: the few things that both halves of the agent need. */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int write_all(int fd, const void *bytes, size_t length) {
    const char *at = bytes;
    while (length > 0) {
        ssize_t written = write(fd, at, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return -1;
        at += written;
        length -= (size_t)written;
    }
    return 0;
}

failure file_replace(const char *path, const void *bytes, size_t length, unsigned mode) {
    char fresh[128];
    int size = snprintf(fresh, sizeof fresh, "%s.new", path);
    if (size < 0 || (size_t)size >= sizeof fresh)
        return "a path is too long";
    unlink(fresh);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0)
        return "cannot create a file";
    /* The mode is what was asked for, whatever the umask is. */
    int bad = fchmod(fd, mode) != 0 || write_all(fd, bytes, length) != 0;
    bad |= close(fd) != 0;
    if (!bad && rename(fresh, path) == 0)
        return NULL;
    unlink(fresh);
    return "cannot write a file";
}

long file_read(const char *path, char *bytes, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    size_t length = 0;
    for (;;) {
        ssize_t got = read(fd, bytes + length, size - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            close(fd);
            return -1;
        }
        if (got == 0)
            break;
        length += (size_t)got;
        if (length == size) {
            close(fd);
            return -1;
        }
    }
    close(fd);
    bytes[length] = '\0';
    return (long)length;
}

static int base64_value(char letter) {
    if (letter >= 'A' && letter <= 'Z')
        return letter - 'A';
    if (letter >= 'a' && letter <= 'z')
        return letter - 'a' + 26;
    if (letter >= '0' && letter <= '9')
        return letter - '0' + 52;
    return letter == '+' ? 62 : letter == '/' ? 63 : -1;
}

long base64_decode(char *text) {
    size_t length = strlen(text);
    if (length == 0 || length % 4 != 0)
        return -1;
    size_t padding = text[length - 1] == '=' ? (text[length - 2] == '=' ? 2 : 1) : 0;
    size_t out = 0;
    for (size_t i = 0; i < length; i += 4) {
        unsigned bits = 0;
        for (size_t j = 0; j < 4; j++) {
            int value = i + j >= length - padding ? 0 : base64_value(text[i + j]);
            if (value < 0)
                return -1;
            bits = bits << 6 | (unsigned)value;
        }
        text[out++] = (char)(bits >> 16);
        text[out++] = (char)(bits >> 8);
        text[out++] = (char)bits;
    }
    return (long)(out - padding);
}

int number_read(const char *text, unsigned digits_max, unsigned long long max, unsigned long long *number) {
    size_t length = strlen(text);
    unsigned long long value = 0;
    if (length == 0 || length > digits_max || digits_max > 19)
        return -1;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    if (value > max)
        return -1;
    *number = value;
    return 0;
}
