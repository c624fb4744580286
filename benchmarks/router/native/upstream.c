/* A fast OpenAI-shaped upstream: the engine behind every proxy under test. One thread, epoll.
 *
 *   upstream PERIOD_US PORT...
 *
 * POST is answered with JSON of about 600 bytes, or, where the body has "stream":true, with chat chunks as
 * vLLM 0.32 writes them, one each PERIOD_US, max_tokens of them, a finish and [DONE]. As vLLM does, token ids
 * are sent only to who asks (return_token_ids). Every token is "~", so that a client can count them.
 * GET /health, /v1/models, /get_model_info and the like are answered for routers that probe, /detokenize for
 * a router that resumes. With UPSTREAM_FAULT_EVERY=N in the environment every Nth request meets a fault, in turn:
 * a 500, a closed connection, a 503, and an answer that is cut in its middle. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_FDS 1048576
#define READ_BYTES 65536
#define ANSWER_TOKENS 32
#define CHUNK "{\"id\":\"chatcmpl-b3a1f0c2d4e5968778695a4b3c2d1e0f\",\"object\":\"%s\",\"created\":1764072000," \
              "\"model\":\"bench\","
#define FAILED "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\n{}"
#define BUSY "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}"
#define HERON_HEADERS "x-heron-headroom: 4096\r\nx-heron-instance: bench-0\r\n"

struct stream { int left, sent, ids, is_chat, cut_after; };
struct connection {
    int is_listener, has_stream;
    unsigned generation;
    char *in; size_t in_size, in_room;
    char *out; size_t out_size, out_done;
    size_t body_needed; /* head and body together; 0: the head is not whole yet */
    struct stream stream;
};
struct due { int fd; unsigned generation; long long at; };

static struct connection connections[MAX_FDS];
static struct due *queue; /* one period for all, so first in is first due */
static size_t queue_head, queue_size, queue_room = 1 << 15;
static int poller;
static long long period_ns;
static unsigned fault_every, faults, posts;
static char answer[2048], answer_heron[2048], models[512], templates[2][2][512];
static size_t answer_size, answer_heron_size;

static long long now_ns(void) {
    struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void enqueue(int fd, long long at) {
    if (queue_size == queue_room) {
        struct due *grown = malloc(2 * queue_room * sizeof *grown);
        for (size_t i = 0; i < queue_size; i++) grown[i] = queue[(queue_head + i) % queue_room];
        free(queue); queue = grown; queue_head = 0; queue_room *= 2;
    }
    queue[(queue_head + queue_size++) % queue_room] = (struct due){fd, connections[fd].generation, at};
}

static void drop(int fd) {
    struct connection *c = &connections[fd];
    free(c->in); free(c->out);
    unsigned generation = c->generation + 1;
    memset(c, 0, sizeof *c);
    c->generation = generation; /* what is queued for it is not its successor's */
    close(fd);
}

static void watch(int fd, int operation, unsigned events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    epoll_ctl(poller, operation, fd, &event);
}

static int send_all(int fd, const char *data, size_t size) {
    struct connection *c = &connections[fd];
    size_t done = 0;
    if (c->out_size == 0)
        while (done < size) {
            ssize_t n = send(fd, data + done, size - done, MSG_NOSIGNAL);
            if (n < 0 && errno != EAGAIN) return -1;
            if (n < 0) break;
            done += n;
        }
    if (done < size) { /* the other side takes nothing now */
        if (c->out_size == 0) watch(fd, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
        c->out = realloc(c->out, c->out_size + size - done);
        memcpy(c->out + c->out_size, data + done, size - done);
        c->out_size += size - done;
    }
    return 0;
}

static int flush_out(int fd) {
    struct connection *c = &connections[fd];
    while (c->out_done < c->out_size) {
        ssize_t n = send(fd, c->out + c->out_done, c->out_size - c->out_done, MSG_NOSIGNAL);
        if (n < 0) return errno == EAGAIN ? 0 : -1;
        c->out_done += n;
    }
    c->out_size = c->out_done = 0;
    watch(fd, EPOLL_CTL_MOD, EPOLLIN);
    return 0;
}

static size_t put_event(char *to, const char *data) {
    size_t size = strlen(data) + 8; /* "data: " and two line ends */
    return sprintf(to, "%zx\r\ndata: %s\n\n\r\n", size, data);
}

static int start_stream(int fd, const char *body, const char *max_tokens, int is_heron, int is_chat, int is_cut) {
    struct connection *c = &connections[fd];
    c->has_stream = 1;
    c->stream = (struct stream){.is_chat = is_chat, .cut_after = is_cut ? 1 + (int)(faults % 7) : -1,
                                .left = max_tokens ? atoi(strchr(max_tokens, ':') + 1) : 16,
                                .ids = strstr(body, "\"return_token_ids\":true") != NULL};
    char out[2048], first[1024];
    size_t size = sprintf(out, "HTTP/1.1 200 OK\r\ndate: Wed, 25 Nov 2026 12:00:00 GMT\r\nserver: uvicorn\r\n"
                               "content-type: text/event-stream; charset=utf-8\r\n"
                               "%stransfer-encoding: chunked\r\n\r\n", is_heron ? HERON_HEADERS : "");
    const char *ids = c->stream.ids ? ",\"prompt_token_ids\":[1,733,16289,28793,12018,264,4567,28723]" : "";
    sprintf(first, CHUNK "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                   "\"logprobs\":null,\"finish_reason\":null}]%s}", "chat.completion.chunk", ids);
    if (is_chat) size += put_event(out + size, first);
    enqueue(fd, now_ns() + period_ns);
    return send_all(fd, out, size);
}

static int step_stream(int fd) { /* 1: it goes on */
    struct connection *c = &connections[fd];
    struct stream *s = &c->stream;
    if (c->out_size) return 1; /* as slow as its reader */
    if (s->sent == s->cut_after) return -1;
    char out[2048], data[1024];
    if (s->left > 0) {
        s->left--; s->sent++;
        sprintf(data, templates[s->is_chat][s->ids], 1000 + s->sent % 30000);
        return send_all(fd, out, put_event(out, data)) == 0 ? 1 : -1;
    }
    sprintf(data, CHUNK "\"choices\":[{\"index\":0,%s,\"logprobs\":null,\"finish_reason\":\"length\","
                  "\"stop_reason\":null%s}]}", s->is_chat ? "chat.completion.chunk" : "text_completion",
            s->is_chat ? "\"delta\":{\"content\":\"\"}" : "\"text\":\"\"", s->ids ? ",\"token_ids\":[2]" : "");
    size_t size = put_event(out, data);
    size += put_event(out + size, "[DONE]");
    size += sprintf(out + size, "0\r\n\r\n");
    c->has_stream = 0;
    return send_all(fd, out, size);
}

static int detokenize(int fd, const char *body) { /* every id is one " ~" */
    const char *p = strstr(body, "\"tokens\":[");
    if (!p) return -1;
    int tokens = p[10] != ']';
    for (p += 10; *p && *p != ']'; p++) tokens += *p == ',';
    char *out = malloc(256 + 2 * tokens);
    int size = sprintf(out, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                            "{\"prompt\":\"", 2 * tokens + 13);
    for (int i = 0; i < tokens; i++) size += sprintf(out + size, " ~");
    size += sprintf(out + size, "\"}");
    int sent = send_all(fd, out, size);
    free(out);
    return sent;
}

static int respond(int fd, char *request, size_t head_size) {
    if (strncmp(request, "POST", 4)) return send_all(fd, models, strlen(models));
    char *body = request + head_size;
    if (!strncmp(request, "POST /detokenize", 16)) return detokenize(fd, body);
    request[head_size - 1] = 0;
    int is_heron = strstr(request, "\r\nx-heron-class") != NULL; /* a Heron site says its room */
    unsigned fault = fault_every && ++posts % fault_every == 0 ? 1 + faults++ % 4 : 0;
    if (fault == 1) return send_all(fd, FAILED, strlen(FAILED));
    if (fault == 2) return -1;
    if (fault == 3) return send_all(fd, BUSY, strlen(BUSY));
    if (!strstr(body, "\"stream\":true") && !strstr(body, "\"stream\": true")) {
        const char *whole = is_heron ? answer_heron : answer;
        size_t size = is_heron ? answer_heron_size : answer_size;
        if (fault) { send_all(fd, whole, size / 2); return -1; }
        return send_all(fd, whole, size);
    }
    char *max_tokens = strstr(body, "\"max_tokens\":");
    if (!max_tokens) max_tokens = strstr(body, "\"max_completion_tokens\":"); /* SGLang's router renames it */
    int is_chat = strncmp(request, "POST /v1/completions", 20) != 0;
    return start_stream(fd, body, max_tokens, is_heron, is_chat, fault == 4);
}

static int take_requests(int fd) {
    struct connection *c = &connections[fd];
    while (c->in_size) {
        if (!c->body_needed) {
            char *end = memmem(c->in, c->in_size, "\r\n\r\n", 4);
            if (!end) return 0;
            *end = 0;
            char *length = strcasestr(c->in, "\r\ncontent-length:");
            *end = '\r';
            c->body_needed = end + 4 - c->in + (length && length < end ? strtoul(length + 17, NULL, 10) : 0);
        }
        if (c->in_size < c->body_needed) return 0;
        if (c->has_stream) return -1; /* pipelining into a stream is not for here */
        char kept = c->in[c->body_needed];
        c->in[c->body_needed] = 0;
        char *end = memmem(c->in, c->body_needed, "\r\n\r\n", 4);
        if (respond(fd, c->in, end + 4 - c->in) < 0) return -1;
        c->in[c->body_needed] = kept;
        c->in_size -= c->body_needed;
        if (c->in_size) memmove(c->in, c->in + c->body_needed, c->in_size);
        c->body_needed = 0;
    }
    if (c->in_room > 4 * READ_BYTES) { free(c->in); c->in = NULL; c->in_room = 0; }
    return 0;
}

static int read_some(int fd) {
    static char incoming[READ_BYTES];
    struct connection *c = &connections[fd];
    ssize_t n = recv(fd, incoming, READ_BYTES, 0);
    if (n <= 0) return n < 0 && errno == EAGAIN ? 0 : -1;
    size_t wanted = c->in_size + n;
    if (c->body_needed > wanted) wanted = c->body_needed;
    if (c->in_room < wanted + 1) c->in = realloc(c->in, c->in_room = wanted + 1);
    memcpy(c->in + c->in_size, incoming, n);
    c->in_size += n;
    return take_requests(fd);
}

static void make_answers(void) {
    char text[1024] = "", body[1536];
    for (int i = 0; i < ANSWER_TOKENS; i++) strcat(text, " ~ turbine");
    sprintf(body, "{\"id\":\"chatcmpl-b3a1f0c2d4e5968778695a4b3c2d1e0f\",\"object\":\"chat.completion\",\"created\":"
                  "1764072000,\"model\":\"bench\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
                  "\"content\":\"%s\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":24,"
                  "\"total_tokens\":88,\"completion_tokens\":64}}", text);
    const char *head = "HTTP/1.1 200 OK\r\ndate: Wed, 25 Nov 2026 12:00:00 GMT\r\nserver: uvicorn\r\n"
                       "content-type: application/json\r\n";
    answer_size = sprintf(answer, "%scontent-length: %zu\r\n\r\n%s", head, strlen(body), body);
    answer_heron_size = sprintf(answer_heron, "%s%scontent-length: %zu\r\n\r\n%s", head, HERON_HEADERS, strlen(body), body);
    const char *list = "{\"object\":\"list\",\"model_path\":\"bench\",\"is_generation\":true,\"data\":[{\"id\":\"bench\","
                       "\"object\":\"model\",\"created\":1764072000,\"owned_by\":\"bench\"}]}";
    sprintf(models, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
            strlen(list), list);
    for (int is_chat = 0; is_chat < 2; is_chat++)
        for (int ids = 0; ids < 2; ids++)
            sprintf(templates[is_chat][ids], CHUNK "\"choices\":[{\"index\":0,%s,\"logprobs\":null,"
                    "\"finish_reason\":null%s}]}", is_chat ? "chat.completion.chunk" : "text_completion",
                    is_chat ? "\"delta\":{\"content\":\" ~\"}" : "\"text\":\" ~\"",
                    ids ? ",\"token_ids\":[%d]" : "");
}

static void listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(fd, (void *)&address, sizeof address) || listen(fd, 4096)) { perror("upstream: listen"); exit(1); }
    connections[fd].is_listener = 1;
    watch(fd, EPOLL_CTL_ADD, EPOLLIN);
}

static void accept_all(int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(fd, EPOLL_CTL_ADD, EPOLLIN);
    }
}

int main(int argc, char **argv) {
    if (argc < 3) { fprintf(stderr, "usage: upstream PERIOD_US PORT...\n"); return 2; }
    period_ns = atoll(argv[1]) * 1000;
    queue = malloc(queue_room * sizeof *queue);
    poller = epoll_create1(0);
    make_answers();
    if (getenv("UPSTREAM_FAULT_EVERY")) fault_every = atoi(getenv("UPSTREAM_FAULT_EVERY"));
    for (int i = 2; i < argc; i++) listen_on(atoi(argv[i]));
    struct epoll_event events[256];
    for (;;) {
        struct timespec wait, *timeout = NULL;
        if (queue_size) {
            long long left = queue[queue_head].at - now_ns();
            if (left < 0) left = 0;
            wait = (struct timespec){left / 1000000000LL, left % 1000000000LL};
            timeout = &wait;
        }
        int n = epoll_pwait2(poller, events, 256, timeout, NULL);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (connections[fd].is_listener) { accept_all(fd); continue; }
            int failed = 0;
            if (events[i].events & EPOLLOUT) failed = flush_out(fd);
            if (!failed && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) failed = read_some(fd);
            if (failed) drop(fd);
        }
        long long now = now_ns();
        while (queue_size && queue[queue_head].at <= now) {
            struct due due = queue[queue_head];
            queue_head = (queue_head + 1) % queue_room;
            queue_size--;
            if (connections[due.fd].generation != due.generation) continue;
            int on = step_stream(due.fd);
            if (on < 0) drop(due.fd);
            else if (on > 0) enqueue(due.fd, due.at + period_ns);
        }
    }
}
