/* Levels and changes of a segment in memory (see kernel.h). The rules are those of history/segment/head_levels.py. */
#include "kernel.h"

#include <string.h>

#define LEAST_CAPACITY 1024
#define MOST_ROWS ((size_t)INT32_MAX)

void block_release(struct block *block) {
  if (block && --block->references == 0) memory_free(block);
}

/* Make room for more rows; the rows stay where they are, or move to a larger block. */
static enum result column_reserve(struct column *column, size_t more) {
  size_t wanted = column->count + more;
  if (more > MOST_ROWS || wanted > MOST_ROWS) return NO_MEMORY;
  if (wanted <= column->room) return DONE;
  size_t room = wanted + wanted / 4 + 64;
  struct block *block = memory_resize(NULL, sizeof *block + room * column->width, 1);
  if (!block) return NO_MEMORY;
  block->references = 1;
  if (column->count) memcpy(block->rows, column->block->rows, column->count * column->width);
  block_release(column->block);
  column->block = block;
  column->room = room;
  return DONE;
}

static size_t place_of(const struct levels *levels, int64_t price) {
  size_t mask = levels->capacity - 1, place = hash_of(price, levels->shift);
  while (levels->slots[place].price && levels->slots[place].price != price) place = (place + 1) & mask;
  return place;
}

const struct level_slot *levels_find(const struct levels *levels, int64_t price) {
  const struct level_slot *slot = &levels->slots[place_of(levels, price)];
  return slot->price ? slot : NULL;
}

/* Make a table for this many levels, with the slots of the one before. */
static enum result reserve_slots(struct levels *levels, size_t wanted) {
  if (wanted <= levels->capacity / 2) return DONE;
  struct levels grown = *levels;
  grown.capacity = LEAST_CAPACITY;
  grown.shift = 64 - 10;
  while (grown.capacity / 4 < wanted) {
    grown.capacity *= 2;
    grown.shift--;
  }
  grown.slots = memory_zeroed(grown.capacity, sizeof *grown.slots);
  if (!grown.slots) return NO_MEMORY;
  for (size_t place = 0; place < levels->capacity; place++)
    if (levels->slots[place].price) grown.slots[place_of(&grown, levels->slots[place].price)] = levels->slots[place];
  memory_free(levels->slots);
  *levels = grown;
  return DONE;
}

static enum result reserve_levels(struct levels *levels, size_t more) {
  if (column_reserve(&levels->prices, more) != DONE || column_reserve(&levels->before, more) != DONE) return NO_MEMORY;
  return reserve_slots(levels, levels->prices.count + more);
}

static enum result reserve_changes(struct levels *levels, size_t more) {
  if (column_reserve(&levels->change_levels, more) != DONE || column_reserve(&levels->change_quantities, more) != DONE)
    return NO_MEMORY;
  return column_reserve(&levels->change_earlier, more);
}

static void append_level(struct levels *levels, struct level_slot *slot, int64_t price, int64_t before) {
  *slot = (struct level_slot){price, (int32_t)levels->prices.count, NONE};
  rows64(&levels->prices)[levels->prices.count++] = price;
  rows64(&levels->before)[levels->before.count++] = before;
}

static void append_change(struct levels *levels, struct level_slot *slot, int64_t quantity) {
  size_t number = levels->change_levels.count;
  rows32(&levels->change_levels)[number] = slot->level;
  rows64(&levels->change_quantities)[number] = quantity;
  rows32(&levels->change_earlier)[number] = slot->last;
  slot->last = (int32_t)number;
  levels->change_levels.count = levels->change_quantities.count = levels->change_earlier.count = number + 1;
}

enum result levels_begin(struct levels *levels) {
  *levels = (struct levels){{.width = 8}, {.width = 8}, {.width = 4}, {.width = 8}, {.width = 4}, NULL, 0, 0};
  if (reserve_levels(levels, 1) == DONE && reserve_changes(levels, 1) == DONE) return DONE;
  levels_free(levels);
  return NO_MEMORY;
}

enum result levels_append(struct levels *levels, const int64_t *prices, const int64_t *before, size_t count) {
  if (reserve_levels(levels, count) != DONE) return NO_MEMORY;
  for (size_t row = 0; row < count; row++) {
    struct level_slot *slot = &levels->slots[place_of(levels, prices[row])];
    if (slot->price) return TWICE;
    append_level(levels, slot, prices[row], before[row]);
  }
  return DONE;
}

enum result levels_add(struct levels *levels, const int64_t *prices, const int64_t *quantities, size_t count,
                       int64_t lowest, int64_t highest, size_t *unknown) {
  *unknown = 0;
  if (reserve_levels(levels, count) != DONE || reserve_changes(levels, count) != DONE) return NO_MEMORY;
  for (size_t row = 0; row < count; row++) {
    struct level_slot *slot = &levels->slots[place_of(levels, prices[row])];
    if (!slot->price) {
      int is_inside = lowest <= prices[row] && prices[row] <= highest;
      append_level(levels, slot, prices[row], is_inside ? 0 : UNKNOWN);
      *unknown += !is_inside;
    }
    append_change(levels, slot, quantities[row]);
  }
  return DONE;
}

enum result levels_replay(struct levels *levels, const int32_t *ids, const int64_t *quantities, size_t count) {
  for (size_t row = 0; row < count; row++)
    if (ids[row] < 0 || (size_t)ids[row] >= levels->prices.count) return NOT_EXPECTED;
  if (reserve_changes(levels, count) != DONE) return NO_MEMORY;
  for (size_t row = 0; row < count; row++)
    append_change(levels, &levels->slots[place_of(levels, rows64(&levels->prices)[ids[row]])], quantities[row]);
  return DONE;
}

void levels_free(struct levels *levels) {
  block_release(levels->prices.block);
  block_release(levels->before.block);
  block_release(levels->change_levels.block);
  block_release(levels->change_quantities.block);
  block_release(levels->change_earlier.block);
  memory_free(levels->slots);
  *levels = (struct levels){0};
}
