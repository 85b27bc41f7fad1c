/* The sudo of the small image: runs a command as root for those who may.
 *
 * The endpoint may run the set-up program of the guest contract, and nothing else, without a password. A member of
 * the group sudo may run anything after giving the password: on the terminal, or with -S on standard input.
 * What the caller's environment says is forgotten, but for the terminal's kind and the language.
 */
#include <crypt.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <shadow.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define ENDPOINT "endpoint"
#define SET_UP "/bin/anweddol_container_setup.sh"
#define PASSWORD_MAX 512
#define ATTEMPTS 3

static _Noreturn void refuse(const char *why) {
    fprintf(stderr, "sudo: %s\n", why);
    exit(1);
}

struct wish {
    int from_stdin;
    int never_ask;
    int shell;
    /* What is written in the place of the usual question, if anything else. */
    const char *prompt;
    char **command;
};

static _Noreturn void usage(void) {
    fputs("usage: sudo [-S] [-n] [-p PROMPT] [-u root] [-i|-s] [--] COMMAND...\n", stderr);
    exit(1);
}

static struct wish read_arguments(char **words) {
    struct wish wish = {0};
    char **word = words;
    while (*word != NULL && **word == '-') {
        const char *option = *word++;
        if (strcmp(option, "--") == 0)
            break;
        if (strcmp(option, "-u") == 0) {
            if (*word == NULL || strcmp(*word, "root") != 0)
                refuse("only root can be become");
            word++;
        } else if (strcmp(option, "-p") == 0) {
            if (*word == NULL)
                usage();
            wish.prompt = *word++;
        } else if (strcmp(option, "-S") == 0) {
            wish.from_stdin = 1;
        } else if (strcmp(option, "-n") == 0) {
            wish.never_ask = 1;
        } else if (strcmp(option, "-i") == 0 || strcmp(option, "-s") == 0) {
            wish.shell = 1;
        } else if (strcmp(option, "-k") != 0 && strcmp(option, "-E") != 0 && strcmp(option, "-H") != 0) {
            usage();
        }
    }
    if (*word == NULL && !wish.shell)
        usage();
    wish.command = word;
    return wish;
}

/* Reads a line without its newline. Returns its length, or -1 at the end or when it is too long. */
static int read_line(int fd, char *line, size_t size) {
    size_t length = 0;
    char letter;
    for (;;) {
        ssize_t got = read(fd, &letter, 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0 && length == 0)
            return -1;
        if (got <= 0 || letter == '\n')
            break;
        if (length + 1 == size)
            return -1;
        line[length++] = letter;
    }
    line[length] = '\0';
    return (int)length;
}

static int ask(const struct wish *wish, const char *user, char *password, size_t size) {
    struct termios seen, hidden;
    char prompt[96];
    int fd = 0, out = 2, restore = 0;
    if (!wish->from_stdin) {
        fd = out = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
        if (fd < 0)
            refuse("a terminal is required to read the password; or use -S to read it from standard input");
        if (tcgetattr(fd, &seen) == 0) {
            hidden = seen;
            hidden.c_lflag &= ~(tcflag_t)ECHO;
            restore = tcsetattr(fd, TCSAFLUSH, &hidden) == 0;
        }
    }
    snprintf(prompt, sizeof prompt, "[sudo] password for %s: ", user);
    const char *question = wish->prompt != NULL ? wish->prompt : prompt;
    if (write(out, question, strlen(question)) < 0)
        refuse("cannot ask for the password");
    int length = read_line(fd, password, size);
    if (restore)
        tcsetattr(fd, TCSAFLUSH, &seen);
    if (!wish->from_stdin) {
        if (write(out, "\n", 1) < 0)
            length = -1;
        close(fd);
    }
    return length;
}

static int same(const char *one, const char *other) {
    size_t length = strlen(one);
    unsigned char differs = 0;
    if (strlen(other) != length)
        return 0;
    for (size_t i = 0; i < length; i++)
        differs |= (unsigned char)(one[i] ^ other[i]);
    return differs == 0;
}

static void prove(const struct wish *wish, const char *user) {
    char password[PASSWORD_MAX + 1];
    const struct spwd *entry = getspnam(user);
    if (entry == NULL || entry->sp_pwdp[0] != '$')
        refuse("you have no password");
    if (wish->never_ask)
        refuse("a password is required");
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        if (ask(wish, user, password, sizeof password) < 0)
            refuse("no password was given");
        const char *hash = crypt(password, entry->sp_pwdp);
        explicit_bzero(password, sizeof password);
        if (hash != NULL && same(hash, entry->sp_pwdp))
            return;
        sleep(1);
        fputs("Sorry, try again.\n", stderr);
    }
    refuse("3 incorrect password attempts");
}

static int is_member(const char *user, const char *group) {
    const struct group *entry = getgrnam(group);
    if (entry == NULL)
        return 0;
    for (char **member = entry->gr_mem; *member != NULL; member++)
        if (strcmp(*member, user) == 0)
            return 1;
    return 0;
}

static void forget_environment(const char *user) {
    static const char *const kept[] = {"TERM", "LANG"};
    char values[2][64] = {"", ""};
    for (int i = 0; i < 2; i++) {
        const char *value = getenv(kept[i]);
        if (value != NULL && strlen(value) < sizeof values[i])
            strcpy(values[i], value);
    }
    int bad = clearenv() != 0;
    for (int i = 0; i < 2; i++)
        if (values[i][0] != '\0')
            bad |= setenv(kept[i], values[i], 1) != 0;
    bad |= setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1) != 0;
    bad |= setenv("HOME", "/root", 1) != 0 || setenv("SHELL", "/bin/sh", 1) != 0;
    bad |= setenv("USER", "root", 1) != 0 || setenv("LOGNAME", "root", 1) != 0;
    bad |= setenv("SUDO_USER", user, 1) != 0;
    if (bad)
        refuse("out of memory");
}

int main(int count, char **words) {
    (void)count;
    char user[64];
    static char *shell[] = {"/bin/sh", NULL};
    const struct wish wish = read_arguments(words + (words[0] != NULL));
    char **command = wish.shell && *wish.command == NULL ? shell : wish.command;
    const struct passwd *caller = getpwuid(getuid());
    if (geteuid() != 0)
        refuse("must be owned by root and have the setuid bit set");
    if (caller == NULL || strlen(caller->pw_name) >= sizeof user)
        refuse("who are you?");
    strcpy(user, caller->pw_name);
    if (strcmp(user, ENDPOINT) == 0) {
        if (wish.shell || strcmp(command[0], SET_UP) != 0)
            refuse(ENDPOINT " may run " SET_UP " only");
    } else if (getuid() != 0) {
        if (!is_member(user, "sudo"))
            refuse("you are not in the group sudo");
        prove(&wish, user);
    }
    forget_environment(user);
    gid_t root = 0;
    if (setgroups(1, &root) != 0 || setresgid(0, 0, 0) != 0 || setresuid(0, 0, 0) != 0)
        refuse("cannot become root");
    execvp(command[0], command);
    fprintf(stderr, "sudo: %s: %s\n", command[0], strerror(errno));
    return errno == ENOENT ? 127 : 126;
}
