/* The kernel: a depth event from its frame's bytes to the book, and its changes to the columns of a segment.
 *
 * The core (frame.c, book.c, levels.c) is plain C without Python. Every number is an integer in steps of the symbol's
 * scales, as in Python: a quantity is positive on the bid side, negative on the ask side, and 0 without a level.
 *
 * BOOK: an open-addressing table, at most half full; a price is in the first free slot at or after its hash.
 *
 *     slots     | price  quantity  bid mark  ask mark  named |        one slot a price; price 0: a free slot
 *               | i64    i64       u32       u32       u32   |        quantity 0: no level
 *
 *     named     an event has removed a level at this price, or has proved it empty, outside the known range
 *     mark      2 x the number of the last event whose bids (asks) named the price, and 1 more if it set a quantity.
 *               A mark of an earlier event means nothing.
 *     dead      a slot without a level that is not named. It answers like a free slot. A new table drops it.
 *
 * An event has two steps. `book_plan` reads the book and writes marks, dead slots and the plan only, so the book answers
 * as before; it may refuse. `book_commit` writes the planned changes, and cannot fail.
 *
 *     frame ──read_frame──> event:  bids, asks   | price  quantity  slot |          in the order of the frame
 *           ──book_plan───> changes              | price  quantity  slot  names |   sets of bids, sets of asks,
 *           ──book_commit─> slots                                       removals of bids, of asks, prices passed
 *
 * LEVELS of a segment in memory: columns that only grow, and a table from a price to its level.
 *
 *     slots              | price i64  level i32  last i32 |      last: number of the level's last change, -1: none
 *     prices, before     i64 each, one row a level               before: the quantity before the first event
 *     levels, quantities, earlier   i32, i64, i32, one row a change      earlier: the level's change before, -1: none
 *
 * A column is in a BLOCK, which never moves. A column that grows gets a larger block. A view of the old block keeps it,
 * so no view ever reads freed memory, and the rows that it shows do not change.
 *
 *     column ──> block | references  bytes | rows ...... room |
 *     view ─────────^    the first rows of the block, as many as the column had when the view was made
 */
#ifndef CHRONOBOOK_KERNEL_H
#define CHRONOBOOK_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "packed columns are little-endian; the Python path serves this machine"
#endif

#define MAX_STEPS ((int64_t)1 << 62) /* domain/values.MAX_STEPS */
#define UNKNOWN INT64_MIN            /* history/segment/head_levels.UNKNOWN */
#define NONE (-1)

/* Rows that are kept for the next event; one large event must not hold memory. A choice: no real event has as many. */
#define MOST_KEPT 8192

/* Why a step was refused. */
enum result { DONE, NOT_PLAIN, NOT_EXPECTED, TWICE, CROSSED, NO_MEMORY };

/* --- memory.c: the only allocations of the core; tests let them fail */

void *memory_resize(void *memory, size_t count, size_t width);
void *memory_zeroed(size_t count, size_t width);
void memory_free(void *memory);

static inline size_t hash_of(int64_t price, int shift) {
  return (size_t)(((uint64_t)price * UINT64_C(0x9E3779B97F4A7C15)) >> shift);
}

/* --- frame.c */

struct entry {
  int64_t price, quantity;
  size_t slot;
};

struct side {
  struct entry *entries;
  size_t count, room;
};

struct event {
  int64_t first_id, final_id, previous_id, time, event_time;
  struct side bids, asks;
};

/* A symbol's stream: the beginning of its names ("ethusdt@depth"), its symbol, and the scales of its numbers. */
struct stream {
  char *name, *symbol;
  size_t name_size, symbol_size;
  int price_scale, quantity_scale;
};

/* The event that continues a book: the one with this `pu`, at a time from `earliest` to `latest`. */
struct expected {
  int64_t previous_id, earliest, latest;
};

enum result read_frame(const struct stream *stream, const struct expected *expected, const char *frame, size_t size,
                       struct event *event);
void side_clear(struct side *side);
enum result side_add(struct side *side, int64_t price, int64_t quantity);

/* --- book.c */

struct slot {
  int64_t price, quantity;
  uint32_t bid_mark, ask_mark, named;
};

struct change {
  int64_t price, quantity;
  size_t slot;
  uint32_t names;
};

struct best {
  int64_t price, quantity; /* the quantity is signed; 0 without a level */
};

struct book {
  int64_t lowest, highest; /* known range */
  int64_t update_id, time;
  struct best bid, ask; /* prices 0 and MAX_STEPS for a side without levels */
  int64_t level_count;
  size_t named_count;
  struct slot *slots;
  size_t capacity, used; /* slots in all, and those with a price */
  int shift;
  int64_t tick; /* divides every price in the slots; 0 without any */
  uint32_t event;
  struct change *changes; /* the plan, with the best prices after it */
  size_t *doubtful;
  size_t change_count, room;
  struct best bid_after, ask_after;
};

enum result book_load(struct book *book, const int64_t *prices, const int64_t *quantities, size_t count,
                      const int64_t *named, size_t named_count);
enum result book_plan(struct book *book, struct event *event);
void book_commit(struct book *book, int64_t update_id, int64_t time);
const struct slot *book_find(const struct book *book, int64_t price);
void book_free(struct book *book);

/* --- levels.c */

struct block {
  size_t references;
  int64_t rows[];
};

struct column {
  struct block *block;
  size_t count, room, width;
};

struct level_slot {
  int64_t price;
  int32_t level, last;
};

struct levels {
  struct column prices, before, change_levels, change_quantities, change_earlier;
  struct level_slot *slots;
  size_t capacity;
  int shift;
};

/* Prepare levels without rows. */
enum result levels_begin(struct levels *levels);
/* Append levels with their quantities before the first event; a price must be new. */
enum result levels_append(struct levels *levels, const int64_t *prices, const int64_t *before, size_t count);
/* Append the changes of an event. A new price within the range has the quantity 0 before, another one UNKNOWN. */
enum result levels_add(struct levels *levels, const int64_t *prices, const int64_t *quantities, size_t count,
                       int64_t lowest, int64_t highest, size_t *unknown);
/* Append changes of levels that exist. */
enum result levels_replay(struct levels *levels, const int32_t *ids, const int64_t *quantities, size_t count);
const struct level_slot *levels_find(const struct levels *levels, int64_t price);
void levels_free(struct levels *levels);
void block_release(struct block *block);

static inline int64_t *rows64(const struct column *column) { return column->block->rows; }
static inline int32_t *rows32(const struct column *column) { return (int32_t *)column->block->rows; }

#endif
