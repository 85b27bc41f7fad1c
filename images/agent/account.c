/* The one user of a machine: made once, after which the endpoint is locked.
 *
 * The account files are written directly: under software emulation each program that is started costs milliseconds.
 */
#include "agent.h"

#include <crypt.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MARK "/etc/gatehouse-user"
#define UID_OF_USER 2000
#define HOMES "/home"
/* Members of this group may ask for commands as root, and with their password get them. */
#define GROUP_SUDO "sudo"
/* Where the SSH server looks at groups, it admits this one. */
#define GROUP_LOGIN "ssh-login"

static const char welcome[] =
    "Welcome to your machine.\n\n"
    "It is yours until its time is over or you give it back; then everything on it is gone.\n"
    "Become root with sudo and your password. Give the machine back with: sudo poweroff\n";

static char table[TABLE_MAX_BYTES];
static char changed[TABLE_MAX_BYTES];

static failure user_check(const char *user) {
    size_t length = strlen(user);
    if (length == 0 || length > USER_MAX || strspn(user, "abcdefghijklmnopqrstuvwxyz0123456789_-") != length ||
        user[0] == '-' || (user[0] >= '0' && user[0] <= '9'))
        return "bad user name";
    return NULL;
}

static failure hash_check(const char *hash) {
    size_t length = strlen(hash);
    if (length < 4 || length >= HASH_MAX || hash[0] != '$')
        return "bad password hash";
    for (size_t i = 0; i < length; i++)
        if (hash[i] <= ' ' || hash[i] > '~' || strchr(":!*\\;", hash[i]) != NULL)
            return "bad password hash";
    return NULL;
}

failure account_hash(const char *password, char hash[HASH_MAX]) {
    static const char letters[] = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    static struct crypt_data data;
    unsigned char random[16];
    /* Passwords of machines are long and random: rounds would only slow their owners down. */
    char setting[] = "$6$rounds=1000$----------------";
    size_t length = strlen(password);
    if (length == 0 || length > PASSWORD_MAX)
        return "bad password: it has 1 to 512 characters";
    for (size_t i = 0; i < length; i++)
        if (password[i] < ' ' || password[i] > '~')
            return "bad password: only printable characters";
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return "no random numbers";
    for (size_t i = 0; i < sizeof random; i++)
        setting[sizeof setting - 1 - sizeof random + i] = letters[random[i] & 63];
    const char *made = crypt_r(password, setting, &data);
    if (made == NULL || made[0] != '$' || strlen(made) >= HASH_MAX)
        return "cannot hash the password";
    strcpy(hash, made);
    return NULL;
}

/* Whether the line at `line` is that of `name` in a table with colons. */
static int line_is_of(const char *line, const char *name) {
    size_t length = strlen(name);
    return strncmp(line, name, length) == 0 && line[length] == ':';
}

struct edit {
    char *at;
    int full;
};

static void add(struct edit *edit, const char *bytes, size_t length) {
    if (length >= (size_t)(changed + sizeof changed - edit->at)) {
        edit->full = 1;
        return;
    }
    memcpy(edit->at, bytes, length);
    edit->at += length;
}

static void add_text(struct edit *edit, const char *text) { add(edit, text, strlen(text)); }

typedef void (*line_editor)(struct edit *edit, const char *line, size_t length, const char *user);

/* Rewrites a table line by line and appends one line. */
static failure table_edit(const char *path, unsigned mode, line_editor editor, const char *user, const char *last) {
    struct edit edit = {.at = changed};
    if (file_read(path, table, sizeof table) < 0)
        return "cannot read the account files";
    for (const char *line = table; *line != '\0';) {
        const char *end = strchrnul(line, '\n');
        if (line_is_of(line, user))
            return "the user exists already";
        editor(&edit, line, (size_t)(end - line), user);
        add_text(&edit, "\n");
        line = *end == '\n' ? end + 1 : end;
    }
    add_text(&edit, last);
    if (edit.full)
        return "the account files are too large";
    return file_replace(path, changed, (size_t)(edit.at - changed), mode);
}

/* The endpoint's shell becomes one that is no shell. */
static void edit_passwd(struct edit *edit, const char *line, size_t length, const char *user) {
    (void)user;
    const char *shell = memrchr(line, ':', length);
    if (!line_is_of(line, ENDPOINT) || shell == NULL) {
        add(edit, line, length);
        return;
    }
    add(edit, line, (size_t)(shell - line) + 1);
    add_text(edit, "/bin/false");
}

/* The endpoint's password becomes one that nothing matches. */
static void edit_shadow(struct edit *edit, const char *line, size_t length, const char *user) {
    (void)user;
    if (line_is_of(line, ENDPOINT))
        add_text(edit, ENDPOINT ":!:1:0:99999:7:::");
    else
        add(edit, line, length);
}

/* The user joins those who may become root and those who may log in; of the latter nobody else is left. */
static void edit_group(struct edit *edit, const char *line, size_t length, const char *user) {
    const char *members = memrchr(line, ':', length);
    if (members == NULL || (!line_is_of(line, GROUP_SUDO) && !line_is_of(line, GROUP_LOGIN))) {
        add(edit, line, length);
        return;
    }
    if (line_is_of(line, GROUP_LOGIN)) {
        add(edit, line, (size_t)(members - line) + 1);
    } else {
        add(edit, line, length);
        if (line[length - 1] != ':')
            add_text(edit, ",");
    }
    add_text(edit, user);
}

static failure own_file(int directory, const char *name, const void *bytes, size_t length, unsigned mode) {
    /* The directory is the user's, who may have put a link there: it is never followed. */
    if (unlinkat(directory, name, 0) != 0 && errno != ENOENT)
        return "cannot replace a file in the home directory";
    int fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0)
        return "cannot write to the home directory";
    int bad = write_all(fd, bytes, length) != 0 || fchmod(fd, mode) != 0 || fchown(fd, UID_OF_USER, UID_OF_USER) != 0;
    bad |= close(fd) != 0;
    return bad ? "cannot write to the home directory" : NULL;
}

static failure write_keys(int home, const char *keys, size_t length) {
    if (mkdirat(home, ".ssh", 0700) != 0 && errno != EEXIST)
        return "cannot make .ssh";
    int ssh = openat(home, ".ssh", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (ssh < 0)
        return "cannot open .ssh";
    failure why = fchown(ssh, UID_OF_USER, UID_OF_USER) != 0 ? "cannot give .ssh to the user" : NULL;
    if (why == NULL)
        why = own_file(ssh, "authorized_keys", keys, length, 0600);
    close(ssh);
    return why;
}

static int open_home(const char *user) {
    char path[sizeof HOMES + USER_MAX + 2];
    snprintf(path, sizeof path, HOMES "/%s", user);
    return open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* The files that every new user gets, where the image has some. */
static failure copy_skeleton(int home) {
    char path[288];
    failure why = NULL;
    DIR *skeleton = opendir("/etc/skel");
    struct dirent *entry;
    if (skeleton == NULL)
        return NULL;
    while (why == NULL && (entry = readdir(skeleton)) != NULL) {
        if (entry->d_type != DT_REG)
            continue;
        snprintf(path, sizeof path, "/etc/skel/%s", entry->d_name);
        long length = file_read(path, table, sizeof table);
        if (length >= 0)
            why = own_file(home, entry->d_name, table, (size_t)length, 0644);
    }
    closedir(skeleton);
    return why;
}

static failure make_home(const char *user, const char *keys, size_t keys_length) {
    char path[sizeof HOMES + USER_MAX + 2];
    snprintf(path, sizeof path, HOMES "/%s", user);
    if (mkdir(path, 0700) != 0 || chown(path, UID_OF_USER, UID_OF_USER) != 0)
        return "cannot make the home directory";
    int home = open_home(user);
    if (home < 0)
        return "cannot open the home directory";
    failure why = copy_skeleton(home);
    if (why == NULL)
        why = own_file(home, "WELCOME.txt", welcome, sizeof welcome - 1, 0644);
    if (why == NULL && keys != NULL)
        why = write_keys(home, keys, keys_length);
    close(home);
    return why;
}

/* Whether /proc/net/tcp or tcp6 has a listener (state 0A) on the port. */
static int table_listens(const char *path, unsigned port) {
    char wanted[8];
    snprintf(wanted, sizeof wanted, ":%04X ", port);
    if (file_read(path, table, sizeof table) < 0)
        return 0;
    for (char *line = table; line != NULL && *line != '\0'; line = strchr(line, '\n')) {
        line += *line == '\n';
        char *end = strchrnul(line, '\n');
        char *local = memmem(line, (size_t)(end - line), wanted, strlen(wanted));
        /* ` sl  local_address rem_address   st`: the remote address of a listener has port 0. */
        if (local != NULL && memmem(local, (size_t)(end - local), ":0000 0A ", 9) != NULL)
            return 1;
    }
    return 0;
}

int port_listens(unsigned port) {
    return table_listens("/proc/net/tcp", port) || table_listens("/proc/net/tcp6", port);
}

/* Starts a second SSH server on another port; both kinds go into the background once they listen. */
static failure listen_too(const char *port) {
    static char *const environment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL};
    char *dropbear[] = {"/usr/sbin/dropbear", "-r", "/etc/dropbear/dropbear_ed25519_host_key",
                        "-w", "-p", (char *)port, "-P", "", NULL};
    char *openssh[] = {"/usr/sbin/sshd", "-p", (char *)port, "-o", "PidFile=none", NULL};
    char **command = access(dropbear[0], X_OK) == 0 ? dropbear : openssh;
    posix_spawn_file_actions_t actions;
    pid_t child;
    int status;
    posix_spawn_file_actions_init(&actions);
    for (int fd = 0; fd < 3; fd++)
        posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
    int error = posix_spawn(&child, command[0], &actions, NULL, command, environment);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0)
        return "cannot start the SSH server";
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return "lost sight of the SSH server";
    return status == 0 ? NULL : "the SSH server cannot listen on this port";
}

static failure edit_accounts(const char *user, const char *hash) {
    char line[HASH_MAX + 2 * USER_MAX + 96];
    const char *shell = access("/bin/bash", X_OK) == 0 ? "/bin/bash" : "/bin/sh";
    snprintf(line, sizeof line, "%s:x:%d:%d::" HOMES "/%s:%s\n", user, UID_OF_USER, UID_OF_USER, user, shell);
    failure why = table_edit("/etc/passwd", 0644, edit_passwd, user, line);
    if (why != NULL)
        return why;
    snprintf(line, sizeof line, "%s:x:%d:\n", user, UID_OF_USER);
    why = table_edit("/etc/group", 0644, edit_group, user, line);
    if (why != NULL)
        return why;
    snprintf(line, sizeof line, "%s:%s:1:0:99999:7:::\n", user, hash);
    return table_edit("/etc/shadow", 0600, edit_shadow, user, line);
}

/* Whether the table has a line of this name. */
static int is_known(const char *path, const char *name) {
    if (file_read(path, table, sizeof table) < 0)
        return 1;
    for (const char *line = table; *line != '\0';) {
        if (line_is_of(line, name))
            return 1;
        const char *end = strchrnul(line, '\n');
        line = *end == '\n' ? end + 1 : end;
    }
    return 0;
}

failure account_setup(const char *user, const char *hash, const char *port, const char *keys, size_t keys_length) {
    unsigned long long number;
    failure why = user_check(user);
    if (why == NULL)
        why = hash_check(hash);
    if (why != NULL)
        return why;
    if (number_read(port, 5, 65535, &number) != 0 || number == 0)
        return "bad port";
    if (access(MARK, F_OK) == 0)
        return "already set up";
    if (is_known("/etc/passwd", user) || is_known("/etc/group", user))
        return "the user exists already";
    /* The mark comes first and stays: what fails half way is not tried again, the machine is thrown away. */
    int mark = open(MARK, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (mark < 0)
        return errno == EEXIST ? "already set up" : "cannot mark the machine as set up";
    int bad = write_all(mark, user, strlen(user)) != 0;
    bad |= close(mark) != 0;
    if (bad)
        return "cannot mark the machine as set up";
    why = make_home(user, keys, keys_length);
    if (why == NULL)
        why = edit_accounts(user, hash);
    if (why == NULL && number != 22)
        why = listen_too(port);
    return why;
}

failure account_keys(const char *keys, size_t keys_length) {
    char user[USER_MAX + 2];
    if (file_read(MARK, user, sizeof user) < 0 || user_check(user) != NULL)
        return "not set up";
    int home = open_home(user);
    if (home < 0)
        return "cannot open the home directory";
    failure why = write_keys(home, keys, keys_length);
    close(home);
    return why;
}
