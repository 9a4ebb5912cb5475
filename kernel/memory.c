/* Memory of the core. Products are checked, and a test build lets the allocations fail one by one. */
#include "kernel.h"

#include <stdlib.h>

#ifdef KERNEL_FAULTS
long memory_faults_after = -1; /* allocations that succeed before all others fail; -1: all succeed */
static int fails(void) { return memory_faults_after >= 0 && memory_faults_after-- == 0 ? (memory_faults_after = 0, 1) : 0; }
#else
static int fails(void) { return 0; }
#endif

void *memory_resize(void *memory, size_t count, size_t width) {
  if (count > PTRDIFF_MAX / width || fails()) return NULL;
  return realloc(memory, count * width);
}

void *memory_zeroed(size_t count, size_t width) { return fails() ? NULL : calloc(count, width); }

void memory_free(void *memory) { free(memory); }
