/* Loads an HTTP/1.1 server at a given rate, whatever its answers take: what wrk, which sends when answers came, cannot.

   paced PORT TARGET HOST CONNECTIONS RATE SECONDS EVERY SEED

   GET requests to 127.0.0.1 fall due at random moments (exponential gaps, so that bursts come as they do from many
   independent callers) and go out on the connection that has been idle longest, or wait for one. Latency counts from
   the moment a request was due: a server that stalls is charged for all that it kept waiting. One line of JSON for every
   EVERY seconds, times in µs. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000ull
#define PATIENCE (10 * SECOND) /* a request that takes longer has failed */
#define MOST_WAITING (1 << 20)
#define MOST_CONNECTIONS 4096
#define HEAD 16384

enum failure { CONNECT, CLOSED, STATUS, UNFRAMED, TIMEOUT, DROPPED, FAILURES };
static const char *const names[] = {"connect", "closed", "status", "unframed", "timeout", "dropped"};

struct connection {
    int fd;              /* -1: to be opened when it is needed */
    uint64_t due, since; /* of the request it carries, and when that was written; 0: idle */
    size_t headed;       /* bytes of the head so far */
    int in_head;         /* it is not complete */
    int64_t rest;        /* bytes of the body to come */
    int last;            /* the server said that it closes */
    struct connection *next;
    char head[HEAD + 1];
};

static struct connection *idle_first, *idle_last, all[MOST_CONNECTIONS];
static uint64_t waiting[MOST_WAITING];
static size_t waiting_first, waiting_end; /* counters; places are these modulo MOST_WAITING */
static float *took;
static size_t done, room;
static uint64_t failed[FAILURES];
static char first_failure[160], request[1024];
static int poller, request_size, connections;
static uint16_t port;

static uint64_t now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * SECOND + (uint64_t)at.tv_nsec;
}

static double chance(void) { /* above 0, at most 1 */
    return 1.0 - drand48();
}

static void fail(enum failure kind, const char *why) {
    failed[kind]++;
    if (first_failure[0]) return;
    size_t length = 0;
    for (; why[length] && length < sizeof first_failure - 1; length++) {
        char letter = why[length];
        first_failure[length] = letter < ' ' || letter > '~' || letter == '"' || letter == '\\' ? ' ' : letter;
    }
    first_failure[length] = 0;
}

static void release(struct connection *one) {
    one->since = 0;
    one->next = NULL;
    if (idle_last) idle_last->next = one;
    else idle_first = one;
    idle_last = one;
}

static void shut(struct connection *one) {
    close(one->fd); /* which takes it off the poller too */
    one->fd = -1;
}

static void give_up(struct connection *one, enum failure kind, const char *why) {
    shut(one);
    fail(kind, why);
    release(one);
}

static int open_connection(struct connection *one) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = 1};
    int yes = 1;
    one->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (one->fd < 0) return 0;
    setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(one->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience); /* bounds connect too */
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = one};
    if (connect(one->fd, (struct sockaddr *)&to, sizeof to) || fcntl(one->fd, F_SETFL, O_NONBLOCK) ||
        epoll_ctl(poller, EPOLL_CTL_ADD, one->fd, &event)) {
        int why = errno;
        shut(one);
        errno = why;
        return 0;
    }
    return 1;
}

static void send_request(struct connection *one, uint64_t due) {
    one->due = due;
    one->since = now();
    one->headed = 0;
    one->in_head = 1;
    one->last = 0;
    if (one->fd < 0 && !open_connection(one)) {
        fail(CONNECT, strerror(errno));
        release(one);
    } else if (send(one->fd, request, (size_t)request_size, MSG_NOSIGNAL) != request_size) {
        give_up(one, CLOSED, "the request could not be written");
    }
}

static void complete(struct connection *one) {
    if (done == room && !(took = realloc(took, (room = room ? room * 2 : 65536) * sizeof *took))) abort();
    took[done++] = (float)(now() - one->due) / 1e3f;
    if (one->last) shut(one);
    release(one);
}

/* Reads the head when it is there; 0 when the connection was given up. */
static int read_head(struct connection *one) {
    one->head[one->headed] = 0;
    char *end = strstr(one->head, "\r\n\r\n");
    if (!end && one->headed < HEAD) return 1;
    char *length = strcasestr(one->head, "\r\ncontent-length:");
    if (!end || !length || length > end) return give_up(one, UNFRAMED, one->head), 0;
    if (strncmp(one->head, "HTTP/1.1 200", 12)) return give_up(one, STATUS, one->head), 0;
    char *closing = strcasestr(one->head, "\r\nconnection: close");
    one->last = closing && closing < end;
    one->in_head = 0;
    one->rest = atoll(length + 17) - (int64_t)(one->headed - (size_t)(end + 4 - one->head));
    return 1;
}

static void readable(struct connection *one) {
    static char scratch[262144];
    if (one->fd < 0) return;
    int in_head = one->since && one->in_head;
    char *into = in_head ? one->head + one->headed : scratch;
    ssize_t got = recv(one->fd, into, in_head ? HEAD - one->headed : sizeof scratch, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (!one->since) return shut(one); /* idle: the server may close it, and has nothing to say */
    if (got <= 0) return give_up(one, CLOSED, got ? strerror(errno) : "closed before the answer was complete");
    if (!in_head) one->rest -= got;
    else if (one->headed += (size_t)got, !read_head(one)) return;
    if (one->in_head) return;
    if (one->rest == 0) complete(one);
    else if (one->rest < 0) give_up(one, UNFRAMED, "more bytes than the answer has");
}

static void send_waiting(void) {
    while (waiting_first != waiting_end && idle_first) {
        struct connection *one = idle_first;
        idle_first = one->next;
        if (!idle_first) idle_last = NULL;
        send_request(one, waiting[waiting_first++ % MOST_WAITING]);
    }
}

static size_t outstanding(uint64_t at) {
    size_t busy = 0;
    for (struct connection *one = all; one < all + connections; one++) {
        if (one->since && at > one->since + PATIENCE) give_up(one, TIMEOUT, "no answer within 10 s");
        busy += one->since != 0;
    }
    return busy + (waiting_end - waiting_first);
}

static int ascending(const void *one, const void *other) {
    float difference = *(const float *)one - *(const float *)other;
    return (difference > 0) - (difference < 0);
}

static void report(double seconds) {
    uint64_t sum = 0;
    qsort(took, done, sizeof *took, ascending);
    printf("{\"seconds\": %.3f, \"done\": %zu, \"kinds\": {", seconds, done);
    for (int kind = 0; kind < FAILURES; kind++) {
        printf("%s\"%s\": %lu", kind ? ", " : "", names[kind], (unsigned long)failed[kind]);
        sum += failed[kind];
    }
    printf("}, \"failed\": %lu, \"first\": \"%s\"", (unsigned long)sum, first_failure);
    printf(", \"p50\": %.1f, \"p99\": %.1f, \"max\": %.1f}\n", done ? took[done / 2] : 0, done ? took[done * 99 / 100] : 0,
           done ? took[done - 1] : 0);
    fflush(stdout);
    done = 0;
    memset(failed, 0, sizeof failed);
    first_failure[0] = 0;
}

static void poll_until(uint64_t at) {
    static struct epoll_event events[256];
    uint64_t begun = now(), left = at > begun ? at - begun : 0;
    struct timespec wait = {(time_t)(left / SECOND), (long)(left % SECOND)};
    int count = epoll_pwait2(poller, events, 256, &wait, NULL);
    for (int index = 0; index < count; index++) readable(events[index].data.ptr);
}

int main(int count, char **words) {
    if (count != 9) return fprintf(stderr, "paced PORT TARGET HOST CONNECTIONS RATE SECONDS EVERY SEED\n"), 2;
    port = (uint16_t)atoi(words[1]);
    connections = atoi(words[4]);
    double rate = atof(words[5]), seconds = atof(words[6]), every = atof(words[7]);
    request_size = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", words[2], words[3]);
    if (connections < 1 || connections > MOST_CONNECTIONS || rate <= 0 || request_size >= (int)sizeof request)
        return fprintf(stderr, "paced: 1 to %d connections, a rate above 0, a target below 1 KB\n", MOST_CONNECTIONS), 2;
    srand48(atol(words[8]));
    prctl(PR_SET_TIMERSLACK, 1); /* sleep to the ns: 50 µs otherwise, as much as an answer takes */
    poller = epoll_create1(EPOLL_CLOEXEC);
    for (struct connection *one = all; one < all + connections; one++) one->fd = -1, release(one);

    uint64_t begun = now(), end = begun + (uint64_t)(seconds * 1e9), reported = begun, checked = begun, due = begun;
    for (;;) {
        uint64_t at = now();
        for (; due <= at && due < end; due += (uint64_t)(-log(chance()) / rate * 1e9)) {
            if (waiting_end - waiting_first < MOST_WAITING) waiting[waiting_end++ % MOST_WAITING] = due;
            else fail(DROPPED, "a million requests wait already");
        }
        send_waiting();
        int over = at >= end && !outstanding(at);
        if (at > checked + SECOND) outstanding(checked = at);
        for (; at > end + PATIENCE && waiting_first != waiting_end; waiting_first++) fail(TIMEOUT, "never sent");
        if (over || (at < end && at >= reported + (uint64_t)(every * 1e9))) {
            report((double)(at - reported) / 1e9);
            reported = at;
        }
        if (over) return 0;
        uint64_t next = due < end ? due : at + SECOND / 100;
        poll_until(next < at + SECOND ? next : at + SECOND);
    }
}
