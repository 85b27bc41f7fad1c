/* What a clone of a snapshot must have anew: random numbers, the time, its names, its address, its host key. */
#include "agent.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/random.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SEED_MIN 32
#define SEED_MAX 512
#define HOST_KEY_MAX 4096

/* The kernel's interface to add random bytes: as in linux/random.h, with a body of fixed size. */
struct seeding {
    int bits;
    int size;
    unsigned char bytes[SEED_MAX];
};

failure identity_entropy(const unsigned char *seed, size_t length) {
    if (length < SEED_MIN || length > SEED_MAX)
        return "a seed has 32 to 512 bytes";
    struct seeding seeding = {.bits = (int)length * 8, .size = (int)length};
    memcpy(seeding.bytes, seed, length);
    int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return "cannot open /dev/urandom";
    /* Adding alone leaves the generator's key as it is until its next reseeding: hence the second call. */
    int bad = ioctl(fd, RNDADDENTROPY, &seeding) != 0 || ioctl(fd, RNDRESEEDCRNG) != 0;
    close(fd);
    explicit_bzero(&seeding, sizeof seeding);
    return bad ? "cannot seed the kernel's random numbers" : NULL;
}

failure identity_clock(const char *nanos) {
    unsigned long long value;
    /* 19 digits reach to the year 2286; the kernel takes no more than 2262. */
    if (number_read(nanos, 19, 9200000000000000000ULL, &value) != 0)
        return "bad clock";
    struct timespec now = {.tv_sec = (time_t)(value / 1000000000), .tv_nsec = (long)(value % 1000000000)};
    return clock_settime(CLOCK_REALTIME, &now) == 0 ? NULL : "cannot set the clock";
}

failure identity_hostname(const char *name) {
    char text[HOSTNAME_CHARS_MAX + 64];
    size_t length = strlen(name);
    if (length == 0 || length > HOSTNAME_CHARS_MAX || name[0] == '-' ||
        strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != length)
        return "bad host name";
    if (sethostname(name, length) != 0)
        return "cannot set the host name";
    int size = snprintf(text, sizeof text, "%s\n", name);
    failure why = file_replace("/etc/hostname", text, (size_t)size, 0644);
    if (why != NULL)
        return why;
    size = snprintf(text, sizeof text, "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %s\n", name);
    return file_replace("/etc/hosts", text, (size_t)size, 0644);
}

static int is_machine_id(const char *text) {
    return strlen(text) == 32 && strspn(text, "0123456789abcdef") == 32;
}

/* The journal is kept, and looked for, in a folder that has the machine's id for a name. Its keeper runs already and
 * goes on with the old name; by the new one readers find the same folder. Where there is no journal, nothing is done. */
static void keep_journal(const char *old, const char *id) {
    static const char *const journals[] = {"/run/log/journal", "/var/log/journal"};
    char path[64];
    struct stat folder;
    for (size_t i = 0; i < sizeof journals / sizeof *journals; i++) {
        snprintf(path, sizeof path, "%s/%s", journals[i], old);
        if (lstat(path, &folder) != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", journals[i], id);
        (void)!symlink(old, path);
    }
}

failure identity_machine_id(const char *id) {
    char text[34], old[34];
    if (!is_machine_id(id))
        return "bad machine id";
    if (file_read("/etc/machine-id", old, sizeof old) == 33 && old[32] == '\n') {
        old[32] = '\0';
        if (is_machine_id(old) && strcmp(old, id) != 0)
            keep_journal(old, id);
    }
    int size = snprintf(text, sizeof text, "%s\n", id);
    return file_replace("/etc/machine-id", text, (size_t)size, 0444);
}

/* The first network card by name that is not the loopback. */
static int first_card(char name[IFNAMSIZ]) {
    DIR *cards = opendir("/sys/class/net");
    struct dirent *card;
    name[0] = '\0';
    if (cards == NULL)
        return -1;
    while ((card = readdir(cards)) != NULL) {
        if (card->d_name[0] == '.' || strcmp(card->d_name, "lo") == 0 || strlen(card->d_name) >= IFNAMSIZ)
            continue;
        if (name[0] == '\0' || strcmp(card->d_name, name) < 0)
            strcpy(name, card->d_name);
    }
    closedir(cards);
    return name[0] == '\0' ? -1 : 0;
}

static int hex_value(char digit) {
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/* Has the card tell its neighbours when its address changes; else they go on writing to the old one. */
static void notify_neighbours(const char *card) {
    char path[64 + IFNAMSIZ];
    snprintf(path, sizeof path, "/proc/sys/net/ipv4/conf/%s/arp_notify", card);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    /* Where it cannot be written, neighbours find out by themselves, later. */
    (void)!write(fd, "1", 1);
    close(fd);
}

failure identity_mac(const char *address) {
    struct ifreq request = {.ifr_hwaddr.sa_family = ARPHRD_ETHER};
    if (strlen(address) != 17)
        return "bad MAC address";
    for (int i = 0; i < 6; i++) {
        int high = hex_value(address[3 * i]), low = hex_value(address[3 * i + 1]);
        if (high < 0 || low < 0 || (i < 5 && address[3 * i + 2] != ':'))
            return "bad MAC address";
        request.ifr_hwaddr.sa_data[i] = (char)(high << 4 | low);
    }
    if (request.ifr_hwaddr.sa_data[0] & 1)
        return "a card's MAC address is not a group's";
    if (first_card(request.ifr_name) != 0)
        return "there is no network card";
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return "cannot reach the network card";
    notify_neighbours(request.ifr_name);
    int bad = ioctl(fd, SIOCSIFHWADDR, &request) != 0;
    close(fd);
    return bad ? "cannot set the MAC address" : NULL;
}

failure identity_host_key(const unsigned char *key, size_t length) {
    struct stat dropbear;
    if (length == 0 || length > HOST_KEY_MAX)
        return "a host key has 1 to 4096 bytes";
    if (stat("/etc/dropbear", &dropbear) == 0)
        return file_replace("/etc/dropbear/dropbear_ed25519_host_key", key, length, 0600);
    /* The public half beside it would be the old one's; the server makes it from the private one. */
    unlink("/etc/ssh/ssh_host_ed25519_key.pub");
    return file_replace("/etc/ssh/ssh_host_ed25519_key", key, length, 0600);
}
