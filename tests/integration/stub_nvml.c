/* A libnvidia-ml.so.1 without a GPU: what it answers is read, at every call, from the file named by
 * NVML_STUB_SCRIPT. Times are microseconds of CLOCK_MONOTONIC, or of NVML_STUB_NOW_US if that is set.
 *
 *   gpu UUID NAME MIG TICK_US START_MJ WRAP_MJ PERMILLE   the next GPU; its counter moves every
 *                                      TICK_US, begins at START_MJ, is taken modulo WRAP_MJ (0: not)
 *                                      and counts PERMILLE thousandths of what is drawn
 *   power GPU AT_US MILLIWATTS         what it draws from then on
 *   reset GPU AT_US                    its counter begins again at 0
 *   fail GPU AT_US CODE WHAT           from then on WHAT (any, energy, instant, average) fails with
 *                                      CODE; 0: no longer. A GPU that was lost (15) is found again
 *                                      only by nvmlInit after nvmlShutdown. GPU -1: nvmlInit fails.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { INVALID = 2, UNINITIALIZED = 1, NOT_SUPPORTED = 3, NOT_FOUND = 6, LOST = 15 };
enum { GPUS = 8, LINES = 256, POWER_INSTANT = 186 };

typedef struct { char uuid[64], name[64]; unsigned mig; long long tick, start, wrap, permille; } Gpu;
typedef struct { char kind, what[16]; int gpu; long long at, value; } Line;
typedef struct {
    unsigned field, scope;
    long long timestamp, latency;
    unsigned type, result;
    union { double d; unsigned u; unsigned long long ull; } value;
} Field;
typedef size_t Handle;

static Gpu gpus[GPUS];
static Line lines[LINES];
static int gpu_count, line_count, references;
static size_t generation = 1;
static long long begun;

static long long now(void) {
    const char *set = getenv("NVML_STUB_NOW_US");
    struct timespec t;
    if (set) return atoll(set);
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void load(void) {
    const char *path = getenv("NVML_STUB_SCRIPT");
    FILE *file = path ? fopen(path, "r") : NULL;
    char text[256];
    gpu_count = line_count = 0;
    while (file && fgets(text, sizeof text, file)) {
        Gpu *g = &gpus[gpu_count < GPUS ? gpu_count : GPUS - 1];
        Line *l = &lines[line_count < LINES ? line_count : LINES - 1];
        memset(l, 0, sizeof *l);
        if (sscanf(text, "gpu %63s %63s %u %lld %lld %lld %lld", g->uuid, g->name, &g->mig, &g->tick,
                   &g->start, &g->wrap, &g->permille) == 7) gpu_count++;
        else if (sscanf(text, "power %d %lld %lld", &l->gpu, &l->at, &l->value) == 3
                 || sscanf(text, "reset %d %lld", &l->gpu, &l->at) == 2
                 || sscanf(text, "fail %d %lld %lld %15s", &l->gpu, &l->at, &l->value, l->what) == 4) {
            l->kind = text[0];
            line_count++;
        }
    }
    if (file) fclose(file);
}

static long long milliwatts(int gpu, long long at) {
    long long found = 0;
    for (int i = 0; i < line_count; i++)
        if (lines[i].kind == 'p' && lines[i].gpu == gpu && lines[i].at <= at) found = lines[i].value;
    return found;
}

/* Nanojoules drawn until then; the script's lines of a GPU are in the order of their times. */
static long long drawn(int gpu, long long at) {
    long long sum = 0, since = 0, power = 0;
    for (int i = 0; i < line_count; i++) {
        Line *l = &lines[i];
        if (l->kind != 'p' || l->gpu != gpu || l->at > at) continue;
        sum += power * (l->at - since);
        since = l->at;
        power = l->value;
    }
    return sum + power * (at - since);
}

static int failing(int gpu, const char *what) {
    long long code = 0, at = now();
    for (int i = 0; i < line_count; i++) {
        Line *l = &lines[i];
        if (l->kind != 'f' || l->gpu != gpu || l->at > at) continue;
        if (strcmp(l->what, "any") && strcmp(l->what, what)) continue;
        if (code != LOST || l->value || begun >= l->at) code = l->value;
    }
    return (int)code;
}

/* Which GPU a handle is for; its failure if it fails. */
static int use(Handle handle, const char *what, int *gpu) {
    load();
    *gpu = (int)(handle % GPUS);
    if (!references || handle / GPUS != generation) return UNINITIALIZED;
    return failing(*gpu, what);
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    load();
    int code = failing(-1, "any");
    if (!code && !references++) begun = now();
    return code;
}

int nvmlShutdown(void) {
    if (!references) return UNINITIALIZED;
    if (!--references) generation++;
    return 0;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    load();
    *count = (unsigned)gpu_count;
    return references ? 0 : UNINITIALIZED;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Handle *handle) {
    load();
    if (index >= (unsigned)gpu_count) return INVALID;
    *handle = generation * GPUS + index;
    return failing((int)index, "handle");
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Handle *handle) {
    load();
    for (int i = 0; i < gpu_count; i++)
        if (!strcmp(gpus[i].uuid, uuid)) return nvmlDeviceGetHandleByIndex_v2((unsigned)i, handle);
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(Handle handle, char *text, unsigned length) {
    int gpu, code = use(handle, "uuid", &gpu);
    if (!code) snprintf(text, length, "%s", gpus[gpu].uuid);
    return code;
}

int nvmlDeviceGetName(Handle handle, char *text, unsigned length) {
    int gpu, code = use(handle, "name", &gpu);
    if (!code) snprintf(text, length, "%s", gpus[gpu].name);
    return code;
}

int nvmlDeviceGetMigMode(Handle handle, unsigned *current, unsigned *pending) {
    int gpu, code = use(handle, "mig", &gpu);
    *current = *pending = gpus[gpu].mig;
    return code;
}

int nvmlDeviceGetTotalEnergyConsumption(Handle handle, unsigned long long *millijoules) {
    int gpu, code = use(handle, "energy", &gpu);
    Gpu *g = &gpus[gpu];
    long long at = now(), before = 0, sum = g->start;
    if (code) return code;
    at -= at % g->tick;
    for (int i = 0; i < line_count; i++)
        if (lines[i].kind == 'r' && lines[i].gpu == gpu && lines[i].at <= at) {
            before = drawn(gpu, lines[i].at);
            sum = 0;
        }
    sum += (drawn(gpu, at) - before) / 1000000 * g->permille / 1000;
    *millijoules = (unsigned long long)(g->wrap ? sum % g->wrap : sum);
    return 0;
}

int nvmlDeviceGetPowerUsage(Handle handle, unsigned *power) {
    int gpu, code = use(handle, "average", &gpu);
    *power = (unsigned)milliwatts(gpu, now());
    return code;
}

int nvmlDeviceGetFieldValues(Handle handle, int count, Field *fields) {
    int gpu, code = use(handle, "fields", &gpu);
    for (int i = 0; !code && i < count; i++) {
        fields[i].result = (unsigned)failing(gpu, "instant");
        if (fields[i].field != POWER_INSTANT) fields[i].result = NOT_SUPPORTED;
        fields[i].type = 1; /* unsigned int */
        fields[i].value.u = (unsigned)milliwatts(gpu, now());
    }
    return code;
}
