// Answers of libamd_smi.so for two MI300X of one node; the rest is made by the test.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { GPUS = 2, NOT_SUPPORTED = 2 };

static int told(const char *name, int otherwise) {
  const char *text = getenv(name);
  return text ? atoi(text) : otherwise;
}

// A handle is a number from 1 on.
static int number(void *handle) { return (int)(intptr_t)handle - 1; }

int amdsmi_init(uint64_t flags) { return told("STUB_INIT", flags == 2 ? 0 : 1); }

int amdsmi_get_socket_handles(uint32_t *count, void **handles) {
  *count = GPUS;
  for (int i = 0; handles && i < GPUS; i++) handles[i] = (void *)(intptr_t)(i + 1);
  return 0;
}

int amdsmi_get_processor_handles(void *socket, uint32_t *count, void **handles) {
  *count = 1;
  if (handles) handles[0] = socket;
  return 0;
}

int amdsmi_get_gpu_device_bdf(void *handle, uint64_t *bdf) {
  *bdf = (uint64_t)(number(handle) ? 0x83 : 0x03) << 8;
  return 0;
}

int amdsmi_get_gpu_device_uuid(void *handle, uint32_t *length, char *uuid) {
  (void)length;
  strcpy(uuid, number(handle) ? "uuid-1" : "uuid-0");
  return 0;
}

int amdsmi_get_energy_count(void *handle, uint64_t *steps, float *microjoules, uint64_t *at) {
  *steps = 2000000 + number(handle);
  *microjoules = 15.3f;
  *at = 1;
  return told("STUB_ENERGY", 0);
}

int amdsmi_get_gpu_compute_partition(void *handle, char *mode, uint32_t length) {
  const char *text = getenv("STUB_PARTITION");
  (void)handle;
  strncpy(mode, text ? text : "SPX", length);
  return 0;
}

int amdsmi_get_power_info(void *handle, uint64_t *info) {
  uint32_t *watts = (uint32_t *)(info + 1);
  watts[0] = told("STUB_CURRENT", 310);
  watts[1] = 290;
  return 0;
}

int amdsmi_get_gpu_asic_info(void *handle, char *info) {
  strcpy(info, "AMD Instinct MI300X");
  return 0;
}
