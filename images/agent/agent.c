/* The guest agent: gives a cloned machine an identity of its own and makes its user.
 *
 *   gatehouse-guest serve                       answers the server on the virtio-serial port
 *   gatehouse-guest setup USER PASSWORD PORT    does the same as the request `setup`, silent on success
 *
 * The port carries lines of ASCII: one request, one answer `ok[ WORDS]` or `error WORDS`; values are base64, `-` is
 * absence. It trusts the server, which owns the machine anyway, but not the form of what it says.
 */
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define PORT_NAME "org.gatehouse.agent.0"
#define WORDS_MAX 8
/* How long `hello` waits for the SSH server, in steps of 5 ms. */
#define SSH_STEPS_MAX 24000
/* How long an answer may wait until the server takes it. */
#define ANSWER_MS_MAX 1000

static void pause_ms(long ms) {
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

/* Finds the port by its name; its device has a number that depends on the machine. */
static int open_port(void) {
    char path[300], name[64];
    int found = -1;
    DIR *ports = opendir("/sys/class/virtio-ports");
    struct dirent *entry;
    if (ports == NULL)
        return -1;
    while (found < 0 && (entry = readdir(ports)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
        if (file_read(path, name, sizeof name) < 0 || strcmp(name, PORT_NAME "\n") != 0)
            continue;
        snprintf(path, sizeof path, "/dev/%s", entry->d_name);
        found = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    }
    closedir(ports);
    return found;
}

/* Splits a line at single spaces. Returns the number of words, or -1 for too many or an empty one. */
static int split(char *line, char *words[WORDS_MAX]) {
    int count = 0;
    for (char *at = line; at != NULL; count++) {
        if (count == WORDS_MAX)
            return -1;
        char *space = strchr(at, ' ');
        if (space != NULL)
            *space++ = '\0';
        if (*at == '\0')
            return -1;
        words[count] = at;
        at = space;
    }
    return count;
}

static int absent(const char *word) { return strcmp(word, "-") == 0; }

static failure hello(void) {
    for (int step = 0; step < SSH_STEPS_MAX; step++) {
        if (port_listens(22))
            return NULL;
        pause_ms(5);
    }
    return "the SSH server does not listen";
}

/* SEED NANOS HOSTNAME MACHINE_ID MAC HOSTKEY: entropy first, so that nothing is made of a sibling's. */
static failure refresh(char *words[]) {
    failure why = NULL;
    if (!absent(words[0])) {
        long length = base64_decode(words[0]);
        why = length < 0 ? "bad seed" : identity_entropy((unsigned char *)words[0], (size_t)length);
        if (length > 0)
            explicit_bzero(words[0], (size_t)length);
    }
    if (why == NULL && !absent(words[1]))
        why = identity_clock(words[1]);
    if (why == NULL && !absent(words[2]))
        why = identity_hostname(words[2]);
    if (why == NULL && !absent(words[3]))
        why = identity_machine_id(words[3]);
    if (why == NULL && !absent(words[4]))
        why = identity_mac(words[4]);
    if (why == NULL && !absent(words[5])) {
        long length = base64_decode(words[5]);
        why = length < 0 ? "bad host key" : identity_host_key((unsigned char *)words[5], (size_t)length);
    }
    return why;
}

/* USER PASSWORDHASH PORT AUTHORIZED_KEYS */
static failure setup(char *words[]) {
    long length = 0;
    if (absent(words[3]))
        return account_setup(words[0], words[1], words[2], NULL, 0);
    length = base64_decode(words[3]);
    if (length < 0)
        return "bad authorized keys";
    return account_setup(words[0], words[1], words[2], words[3], (size_t)length);
}

static failure keys(char *words[]) {
    if (absent(words[0]))
        return account_keys("", 0);
    long length = base64_decode(words[0]);
    return length < 0 ? "bad authorized keys" : account_keys(words[0], (size_t)length);
}

/* Does what a line asks for and writes the answer, with its newline, to `answer`. */
static int answer_line(char *line, char *answer, size_t size) {
    char *words[WORDS_MAX];
    int count = split(line, words);
    failure why = "unknown";
    if (count == 1 && strcmp(words[0], "hello") == 0) {
        why = hello();
        if (why == NULL)
            return snprintf(answer, size, "ok gatehouse-agent 1\n");
    } else if (count == 7 && strcmp(words[0], "refresh") == 0) {
        why = refresh(words + 1);
    } else if (count == 5 && strcmp(words[0], "setup") == 0) {
        why = setup(words + 1);
    } else if (count == 2 && strcmp(words[0], "keys") == 0) {
        why = keys(words + 1);
    }
    return why == NULL ? snprintf(answer, size, "ok\n") : snprintf(answer, size, "error %s\n", why);
}

/* The port's data and the news that its other end was opened take different ways, and the data may be quicker: a port
 * that seems closed may only not yet be known to be open. Hence a closed one is waited for, too. */
static void send_answer(int port, const char *answer, size_t length) {
    for (int waited_ms = 0; length > 0 && waited_ms < ANSWER_MS_MAX; waited_ms++) {
        ssize_t written = write(port, answer, length);
        if (written > 0) {
            answer += written;
            length -= (size_t)written;
        } else if (written < 0 && errno != EAGAIN && errno != EINTR) {
            return;
        } else {
            pause_ms(1);
        }
    }
}

struct input {
    char line[LINE_MAX_BYTES];
    size_t length;
    /* The rest of a line that was too long is passed over. */
    int too_long;
};

static void take_line(int port, struct input *input, size_t length) {
    char answer[160];
    int size;
    input->line[length] = '\0';
    if (input->too_long)
        size = snprintf(answer, sizeof answer, "error the line is too long\n");
    else if (strlen(input->line) != length)
        size = snprintf(answer, sizeof answer, "error unknown\n");
    else
        size = answer_line(input->line, answer, sizeof answer);
    input->too_long = 0;
    send_answer(port, answer, (size_t)size);
}

/* Takes what the port has. Returns whether there was something. */
static int take(int port, struct input *input) {
    ssize_t got = read(port, input->line + input->length, sizeof input->line - input->length);
    if (got <= 0)
        return 0;
    size_t end = input->length + (size_t)got, from = 0;
    for (size_t i = input->length; i < end; i++) {
        if (input->line[i] != '\n')
            continue;
        /* Lines are taken at the front, as requests are decoded in place. */
        size_t length = i - from;
        if (from > 0)
            memmove(input->line, input->line + from, end - from);
        end -= from;
        i -= from;
        take_line(port, input, length);
        from = length + 1;
    }
    memmove(input->line, input->line + from, end - from);
    input->length = end - from;
    if (input->length == sizeof input->line) {
        input->too_long = 1;
        input->length = 0;
    }
    return 1;
}

static _Noreturn void serve(void) {
    static struct input input;
    sigset_t io;
    int port, early = 0;
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&io);
    sigaddset(&io, SIGIO);
    sigprocmask(SIG_BLOCK, &io, NULL);
    int signals = signalfd(-1, &io, SFD_NONBLOCK | SFD_CLOEXEC);
    /* The driver may find the port a moment after it was loaded. A machine without one needs no agent: it waits. */
    for (long wait = 5; (port = open_port()) < 0; wait = wait < 1000 ? wait * 2 : 1000)
        pause_ms(wait);
    /* A port whose other end is closed is always `ready`; the signal tells when it opens, without asking over and
     * over. The second is for a signal that was missed. */
    fcntl(port, F_SETOWN, getpid());
    fcntl(port, F_SETFL, fcntl(port, F_GETFL) | O_ASYNC);
    for (;;) {
        struct pollfd waits[2] = {{.fd = signals, .events = POLLIN}, {.fd = port, .events = POLLIN}};
        struct signalfd_siginfo ignored;
        poll(waits, 2, -1);
        while (read(signals, &ignored, sizeof ignored) > 0)
            ;
        int closed = (waits[1].revents & POLLHUP) != 0;
        if (waits[1].revents & POLLIN && take(port, &input)) {
            early = closed;
            continue;
        }
        if (!closed)
            continue;
        /* The beginning of a line dies with its connection, unless it came before the news of that. */
        if (!early) {
            input.length = 0;
            input.too_long = 0;
        }
        early = 0;
        poll(waits, 1, 1000);
    }
}

static int complain(const char *why) {
    fprintf(stderr, "%s\n", why);
    return 1;
}

int main(int count, char **words) {
    if (count == 2 && strcmp(words[1], "serve") == 0)
        serve();
    if (count == 5 && strcmp(words[1], "setup") == 0) {
        char hash[HASH_MAX];
        failure why = account_hash(words[3], hash);
        if (why == NULL)
            why = account_setup(words[2], hash, words[4], NULL, 0);
        return why == NULL ? 0 : complain(why);
    }
    return complain("usage: gatehouse-guest serve | setup USER PASSWORD PORT");
}
