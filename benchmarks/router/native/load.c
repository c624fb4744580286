/* The load generator: closed-loop requests, or paced streams, over keep-alive connections; every answer is
 * checked. One thread, epoll.
 *
 *   load requests PORT CONNECTIONS WARM_UP_S SECONDS TOKENS 0         < REQUEST
 *   load streams  PORT CONNECTIONS WARM_UP_S SECONDS TOKENS PERIOD_US < REQUEST
 *
 * REQUEST is the whole HTTP request. An answer counts only with status 200 and exactly TOKENS "~" in it; a
 * stream also needs its [DONE] and must not hold a token id, which nobody asked for. Prints "start" and "stop"
 * around the measured window, then one line of JSON: times of requests, or how much later than PERIOD_US the
 * next chunk of a stream came. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_HEAD 16384
#define READ_BYTES 262144
#define BUCKETS 200000 /* of a microsecond; more counts as the last */
#define LINGER_NS 30000000000LL /* for answers that are due after the window */

enum { HEAD, LENGTH, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER, UNTIL_CLOSE };
struct client {
    int fd, is_busy, is_done, state, status, must_close;
    char head[MAX_HEAD]; size_t head_size;
    unsigned long long left;
    long tokens;
    char tail[16];
    long long sent_at, heard_at;
    size_t written;
};

static struct client *clients;
static int *client_of, poller, is_stream, tokens_wanted, port, is_stopping;
static long long period_ns, ends_at, latest, ttft_max;
static char *request; static size_t request_size;
static unsigned *histogram;
static long completed, errors, chunks, reconnects, streams_begun, streams_done;
static unsigned long long answer_bytes;
static char first_error[256];

static long long now_ns(void) {
    struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void fail(struct client *c, const char *why) {
    if (!errors++) snprintf(first_error, sizeof first_error, "%s (status %d, %ld tokens)", why, c->status, c->tokens);
}

static void note(long long ns) {
    long us = ns / 1000;
    histogram[us < 0 ? 0 : us >= BUCKETS ? BUCKETS - 1 : us]++;
}

static void watch(struct client *c, int operation, unsigned events) {
    struct epoll_event event = {.events = events, .data.fd = c->fd};
    epoll_ctl(poller, operation, c->fd, &event);
}

static void open_connection(int index) {
    struct client *c = &clients[index];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (void *)&address, sizeof address)) { perror("load: connect"); exit(1); }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    client_of[c->fd] = index;
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
}

static void write_on(struct client *c) {
    while (c->written < request_size) {
        ssize_t n = send(c->fd, request + c->written, request_size - c->written, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) { watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT); return; }
        c->written += n;
    }
}

static void send_request(struct client *c) {
    c->state = HEAD; c->head_size = 0; c->status = 0; c->tokens = 0; c->must_close = 0; c->written = 0;
    memset(c->tail, 0, sizeof c->tail);
    c->is_busy = 1;
    c->sent_at = c->heard_at = now_ns();
    write_on(c);
}

static void reopen(struct client *c) {
    close(c->fd);
    open_connection(c - clients);
    reconnects++;
}

static void finish(struct client *c, long long now) {
    c->is_busy = 0;
    if (c->status != 200) fail(c, "status");
    else if (c->tokens != tokens_wanted) fail(c, "wrong number of tokens");
    else if (is_stream && memcmp(c->tail + 2, "data: [DONE]\n\n", 14)) fail(c, "no [DONE]");
    else {
        completed++;
        if (!is_stream) note(now - c->sent_at);
    }
    if (is_stream) { c->is_done = 1; streams_done++; return; }
    if (c->must_close) reopen(c);
    if (!is_stopping) send_request(c);
}

static void take_body(struct client *c, const char *data, size_t size, long long now) {
    long tokens = 0;
    for (size_t i = 0; i < size; i++) tokens += data[i] == '~';
    answer_bytes += size;
    if (!is_stream) { c->tokens += tokens; return; }
    if (memmem(data, size, "token_ids", 9)) fail(c, "token ids that nobody asked for");
    if (tokens) {
        chunks += tokens;
        long long gap = now - c->heard_at;
        if (c->tokens) { /* beyond the pacing */
            note(gap - period_ns);
            if (gap - period_ns > latest) latest = gap - period_ns;
        }
        else { streams_begun++; if (now - c->sent_at > ttft_max) ttft_max = now - c->sent_at; }
        c->heard_at = now;
        c->tokens += tokens;
    }
    if (size >= 16) memcpy(c->tail, data + size - 16, 16);
    else { memmove(c->tail, c->tail + size, 16 - size); memcpy(c->tail + 16 - size, data, size); }
}

static int take_head(struct client *c) {
    c->head[c->head_size] = 0;
    c->status = atoi(c->head + 9);
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    int is_chunked = strcasestr(c->head, "\r\ntransfer-encoding: chunked") != NULL;
    c->must_close = strcasestr(c->head, "\r\nconnection: close") != NULL;
    c->left = length ? strtoull(length + 17, NULL, 10) : 0;
    c->state = is_chunked ? CHUNK_SIZE : length ? LENGTH : UNTIL_CLOSE;
    c->head_size = 0; /* from here the buffer holds a line of the chunked coding */
    return c->state == LENGTH && !c->left;
}

/* One line of head or chunked coding; returns 1 when the answer is whole. */
static int take_line(struct client *c, const char *data, size_t size, size_t *used) {
    const char *mark = c->state == HEAD ? "\r\n\r\n" : "\r\n";
    size_t mark_size = strlen(mark), take = size < MAX_HEAD - 1 - c->head_size ? size : MAX_HEAD - 1 - c->head_size;
    size_t from = c->head_size > mark_size ? c->head_size - mark_size : 0;
    memcpy(c->head + c->head_size, data, take);
    char *end = memmem(c->head + from, c->head_size + take - from, mark, mark_size);
    if (!end) { c->head_size += take; *used = take; return 0; }
    *used = end + mark_size - c->head - c->head_size;
    c->head_size += *used;
    if (c->state == HEAD) return take_head(c);
    size_t line = c->head_size;
    c->head[line] = 0;
    c->head_size = 0;
    if (c->state == CHUNK_SIZE) {
        c->left = strtoull(c->head, NULL, 16);
        c->state = c->left ? CHUNK_DATA : TRAILER;
    } else if (c->state == CHUNK_END) c->state = CHUNK_SIZE;
    else return line == 2; /* trailers end with an empty line */
    return 0;
}

static void take(struct client *c, const char *data, size_t size) {
    long long now = now_ns();
    while (size) {
        size_t used = 0;
        int is_whole = 0;
        if (c->state == LENGTH || c->state == CHUNK_DATA || c->state == UNTIL_CLOSE) {
            used = c->state != UNTIL_CLOSE && c->left < size ? c->left : size;
            take_body(c, data, used, now);
            c->left -= used;
            if (!c->left && c->state == LENGTH) is_whole = 1;
            if (!c->left && c->state == CHUNK_DATA) c->state = CHUNK_END;
        } else is_whole = take_line(c, data, size, &used);
        data += used; size -= used;
        if (is_whole) { finish(c, now); return; }
        if (!used) { fail(c, "a head too large"); c->is_busy = 0; c->is_done = 1; return; }
    }
}

static void on_closed(struct client *c) {
    if (c->is_busy && c->state == UNTIL_CLOSE) { c->must_close = 1; finish(c, now_ns()); return; }
    int was_busy = c->is_busy;
    if (was_busy) { fail(c, "connection closed"); c->is_busy = 0; }
    if (is_stream || is_stopping) {
        if (was_busy && is_stream) { c->is_done = 1; streams_done++; }
        epoll_ctl(poller, EPOLL_CTL_DEL, c->fd, NULL);
        return;
    }
    reopen(c);
    send_request(c);
}

static void poll_once(long long until) {
    static char data[READ_BYTES];
    struct epoll_event events[256];
    long long left = until - now_ns();
    if (left < 0) left = 0;
    struct timespec wait = {left / 1000000000LL, left % 1000000000LL};
    int n = epoll_pwait2(poller, events, 256, &wait, NULL);
    for (int i = 0; i < n; i++) {
        struct client *c = &clients[client_of[events[i].data.fd]];
        if (events[i].events & EPOLLOUT) { watch(c, EPOLL_CTL_MOD, EPOLLIN); write_on(c); }
        if (!(events[i].events & ~EPOLLOUT)) continue;
        ssize_t size = recv(c->fd, data, READ_BYTES, MSG_DONTWAIT);
        if (size > 0 && c->is_busy) take(c, data, size);
        else if (size == 0 || (size < 0 && errno != EAGAIN)) on_closed(c);
    }
}

static long quantile(double q) {
    unsigned long total = 0, seen = 0;
    for (int i = 0; i < BUCKETS; i++) total += histogram[i];
    for (int i = 0; i < BUCKETS; i++) if ((seen += histogram[i]) > q * total) return i;
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 8) { fprintf(stderr, "usage: see the head of load.c\n"); return 2; }
    is_stream = !strcmp(argv[1], "streams");
    port = atoi(argv[2]);
    int n = atoi(argv[3]);
    long long warm_up = atof(argv[4]) * 1e9, window = atof(argv[5]) * 1e9;
    tokens_wanted = atoi(argv[6]);
    period_ns = atoll(argv[7]) * 1000;
    request = malloc(1 << 26);
    request_size = fread(request, 1, 1 << 26, stdin);
    clients = calloc(n, sizeof *clients);
    client_of = calloc(1 << 20, sizeof *client_of);
    histogram = calloc(BUCKETS, sizeof *histogram);
    poller = epoll_create1(0);
    long long begin = now_ns();
    for (int i = 0; i < n; i++) {
        open_connection(i);
        send_request(&clients[i]);
        if (is_stream) { /* spread over the periods of the warm-up, so that chunks come evenly */
            long long until = begin + (warm_up / 2) * (i + 1) / n;
            do poll_once(until); while (now_ns() < until);
        }
    }
    long long start = now_ns();
    ends_at = (is_stream ? begin : start) + warm_up;
    while (now_ns() < ends_at) poll_once(ends_at);
    memset(histogram, 0, BUCKETS * sizeof *histogram);
    latest = 0;
    long completed_before = completed, chunks_before = chunks;
    unsigned long long bytes_before = answer_bytes;
    start = now_ns();
    printf("start\n"); fflush(stdout);
    ends_at = start + window;
    while (now_ns() < ends_at) poll_once(ends_at);
    double seconds = (now_ns() - start) / 1e9;
    long completed_in = completed - completed_before, chunks_in = chunks - chunks_before;
    unsigned long long bytes_in = answer_bytes - bytes_before;
    int open_streams = streams_begun - streams_done;
    printf("stop\n"); fflush(stdout);
    long p50 = quantile(0.5), p99 = quantile(0.99), p999 = quantile(0.999);
    double late_max = latest / 1e3;
    is_stopping = 1;
    long long give_up = now_ns() + LINGER_NS + (is_stream ? tokens_wanted * period_ns : 0);
    int busy = 1;
    while (busy && now_ns() < give_up) {
        poll_once(now_ns() + 100000000LL);
        busy = 0;
        for (int i = 0; i < n; i++) busy += clients[i].is_busy;
    }
    if (busy) { errors += busy; if (!first_error[0]) sprintf(first_error, "%d answers never came", busy); }
    printf("{\"requests\": %ld, \"chunks\": %ld, \"seconds\": %.6f, \"p50_us\": %ld, \"p99_us\": %ld, "
           "\"p999_us\": %ld, \"late_max_us\": %.0f, \"ttft_max_us\": %.0f, \"answer_bytes\": %llu, \"errors\": %ld, "
           "\"reconnects\": %ld, \"open_streams\": %d, \"completed\": %ld, \"first_error\": \"%s\"}\n",
           completed_in, chunks_in, seconds, p50, p99, p999, late_max, ttft_max / 1e3, bytes_in, errors, reconnects,
           open_streams, completed, first_error);
    return 0;
}
