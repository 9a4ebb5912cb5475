/* The book: levels in a table, and the two steps of an event (see kernel.h). The rules are those of
 * book/order_book.py, which the tests compare with this file. */
#include "kernel.h"

#include <string.h>

#define LEAST_CAPACITY 64
/* Ticks from a best price that are probed one by one before the whole table is searched. A choice. */
#define PROBES 256

static size_t place_of(const struct book *book, int64_t price) {
  size_t mask = book->capacity - 1, place = hash_of(price, book->shift);
  while (book->slots[place].price && book->slots[place].price != price) place = (place + 1) & mask;
  return place;
}

const struct slot *book_find(const struct book *book, int64_t price) {
  const struct slot *slot = &book->slots[place_of(book, price)];
  return slot->price ? slot : NULL;
}

static int64_t divisor(int64_t one, int64_t other) {
  while (other) {
    int64_t rest = one % other;
    one = other;
    other = rest;
  }
  return one;
}

/* Return the slot of a price; a price that is new gets a dead one, for which there must be room. */
static size_t slot_of(struct book *book, int64_t price) {
  size_t place = place_of(book, price);
  struct slot *slot = &book->slots[place];
  if (!slot->price) {
    *slot = (struct slot){.price = price};
    book->used++;
    if (!book->tick || price % book->tick) book->tick = divisor(price, book->tick);
  }
  return place;
}

static int is_dead(const struct slot *slot) { return !slot->quantity && !slot->named; }

/* Begin a table for this many prices, and as many again. */
static enum result begin_table(struct book *book, size_t prices) {
  size_t capacity = LEAST_CAPACITY;
  int shift = 64 - 6;
  while (capacity / 4 < prices) {
    if (--shift < 16) return NO_MEMORY;
    capacity *= 2;
  }
  struct slot *slots = memory_zeroed(capacity, sizeof *slots);
  if (!slots) return NO_MEMORY;
  book->slots = slots;
  book->capacity = capacity;
  book->shift = shift;
  book->used = 0;
  book->tick = 0;
  return DONE;
}

/* Make room for more prices. A new table drops dead slots, and a table that is far too large gets smaller. */
static enum result reserve_slots(struct book *book, size_t more) {
  size_t held = (size_t)book->level_count + book->named_count + more;
  int is_large = book->capacity > MOST_KEPT && book->capacity / 32 > held;
  if (!is_large && more < book->capacity && (book->used + more) <= book->capacity / 2) return DONE;
  struct book grown = *book;
  size_t alive = 0;
  for (size_t place = 0; place < book->capacity; place++) alive += !is_dead(&book->slots[place]);
  if (begin_table(&grown, alive + more) != DONE) return NO_MEMORY;
  for (size_t place = 0; place < book->capacity; place++) {
    const struct slot *slot = &book->slots[place];
    if (!is_dead(slot)) grown.slots[slot_of(&grown, slot->price)] = *slot;
  }
  memory_free(book->slots);
  *book = grown;
  return DONE;
}

/* Make room for the plan of an event that names so many prices. Nothing of the plan before is needed. */
static enum result reserve_plan(struct book *book, size_t room) {
  if (room < book->room && (room > MOST_KEPT || book->room <= 2 * MOST_KEPT)) return DONE;
  memory_free(book->changes);
  memory_free(book->doubtful);
  size_t wanted = room + room / 2 + 64;
  book->changes = memory_resize(NULL, wanted, sizeof *book->changes);
  book->doubtful = memory_resize(NULL, wanted, sizeof *book->doubtful);
  book->room = book->changes && book->doubtful ? wanted : 0;
  return book->room ? DONE : NO_MEMORY;
}

enum result book_load(struct book *book, const int64_t *prices, const int64_t *quantities, size_t count,
                      const int64_t *named, size_t named_count) {
  struct book made = *book;
  if (begin_table(&made, count + named_count) != DONE) return NO_MEMORY;
  made.event = 0;
  made.level_count = 0;
  made.named_count = 0;
  made.bid = (struct best){0, 0};
  made.ask = (struct best){MAX_STEPS, 0};
  for (size_t row = 0; row < count; row++) {
    struct slot *slot = &made.slots[slot_of(&made, prices[row])];
    made.level_count += !slot->quantity && quantities[row];
    slot->quantity = quantities[row];
    if (quantities[row] > 0 && prices[row] > made.bid.price) made.bid = (struct best){prices[row], quantities[row]};
    if (quantities[row] < 0 && prices[row] < made.ask.price) made.ask = (struct best){prices[row], quantities[row]};
  }
  for (size_t row = 0; row < named_count; row++) {
    struct slot *slot = &made.slots[slot_of(&made, named[row])];
    made.named_count += !slot->named;
    slot->named = 1;
  }
  memory_free(book->slots);
  *book = made;
  return DONE;
}

/* --- the plan of an event */

static uint32_t mark_of(const struct book *book, int is_set) { return 2 * book->event + (is_set ? 1 : 0); }

static void next_event(struct book *book) {
  if (++book->event < UINT32_MAX / 2) return;
  for (size_t place = 0; place < book->capacity; place++) book->slots[place].bid_mark = book->slots[place].ask_mark = 0;
  book->event = 1;
}

/* Find the slots of a side's prices, and mark them. */
static enum result mark_side(struct book *book, struct side *side, int is_bids) {
  for (size_t row = 0; row < side->count; row++) {
    struct entry *entry = &side->entries[row];
    entry->slot = slot_of(book, entry->price);
    struct slot *slot = &book->slots[entry->slot];
    uint32_t *mark = is_bids ? &slot->bid_mark : &slot->ask_mark;
    if (*mark >= mark_of(book, 0)) return TWICE;
    *mark = mark_of(book, entry->quantity != 0);
  }
  return DONE;
}

static void plan_change(struct book *book, size_t place, int64_t quantity, int names) {
  book->changes[book->change_count++] =
      (struct change){book->slots[place].price, quantity, place, names ? 1 : 0};
}

static int is_outside(const struct book *book, int64_t price) { return price < book->lowest || price > book->highest; }

/* Plan the quantities that a side sets; return its best one of these. */
static struct best plan_sets(struct book *book, const struct side *side, struct best none) {
  struct best best = none;
  for (size_t row = 0; row < side->count; row++) {
    const struct entry *entry = &side->entries[row];
    if (!entry->quantity) continue;
    if (entry->quantity > 0 ? entry->price > best.price : entry->price < best.price)
      best = (struct best){entry->price, entry->quantity};
    if (book->slots[entry->slot].quantity != entry->quantity) plan_change(book, entry->slot, entry->quantity, 0);
  }
  return best;
}

/* Return whether a level of this side rests in a slot and the event does not remove it. */
static int stays(const struct book *book, const struct slot *slot, int is_bids) {
  if (is_bids) return slot->quantity > 0 && slot->bid_mark != mark_of(book, 0);
  return slot->quantity < 0 && slot->ask_mark != mark_of(book, 0);
}

/* Return a side's best level after the event; `set` is the best one that the event sets. */
static struct best best_after(const struct book *book, struct best before, struct best set, int is_bids) {
  int64_t price = before.price, step = is_bids ? -book->tick : book->tick;
  for (int probe = 0; before.quantity && probe < PROBES; probe++, price += step) {
    if (is_bids ? price <= set.price : price >= set.price) return set;
    const struct slot *slot = book_find(book, price);
    if (slot && stays(book, slot, is_bids)) return (struct best){price, slot->quantity};
  }
  struct best best = set;
  for (size_t place = 0; before.quantity && place < book->capacity; place++) {
    const struct slot *slot = &book->slots[place];
    if (stays(book, slot, is_bids) && (is_bids ? slot->price > best.price : slot->price < best.price))
      best = (struct best){slot->price, slot->quantity};
  }
  return best;
}

/* Return whether "0" from this side proves that a price outside the range is empty: below the range bids rest unseen,
 * above it asks. The exchange also sends "0" for a side that an aggressive order merely crossed. */
static int proves(const struct book *book, int64_t price, int is_bids) {
  return is_bids ? price <= book->highest : price >= book->lowest;
}

/* Plan the removals of a side, and note the prices that it leaves unknown; return the number of these. */
static size_t plan_removals(struct book *book, const struct side *side, int is_bids, size_t *doubtful) {
  size_t count = 0;
  for (size_t row = 0; row < side->count; row++) {
    const struct entry *entry = &side->entries[row];
    const struct slot *slot = &book->slots[entry->slot];
    uint32_t other = is_bids ? slot->ask_mark : slot->bid_mark;
    if (entry->quantity || other == mark_of(book, 1)) continue;
    int outside = is_outside(book, entry->price);
    if (slot->quantity) {
      if ((slot->quantity > 0) == is_bids) plan_change(book, entry->slot, 0, outside);
    } else if (outside && !slot->named) {
      int is_planned = other == mark_of(book, 0) && proves(book, entry->price, !is_bids); /* by the other side */
      if (proves(book, entry->price, is_bids)) plan_change(book, entry->slot, 0, 1);
      else if (!is_planned) doubtful[count++] = entry->slot;
    }
  }
  return count;
}

enum result book_plan(struct book *book, struct event *event) {
  size_t count = event->bids.count + event->asks.count;
  if (reserve_slots(book, count) != DONE || reserve_plan(book, count) != DONE) return NO_MEMORY;
  next_event(book);
  if (mark_side(book, &event->bids, 1) != DONE || mark_side(book, &event->asks, 0) != DONE) return TWICE;
  book->change_count = 0;
  struct best bid = plan_sets(book, &event->bids, (struct best){0, 0});
  struct best ask = plan_sets(book, &event->asks, (struct best){MAX_STEPS, 0});
  book->bid_after = best_after(book, book->bid, bid, 1);
  book->ask_after = best_after(book, book->ask, ask, 0);
  if (book->bid_after.price >= book->ask_after.price) return CROSSED;
  size_t bids = plan_removals(book, &event->bids, 1, book->doubtful);
  size_t asks = plan_removals(book, &event->asks, 0, book->doubtful + bids);
  /* If the market has passed a price, the other side cannot rest there either. */
  for (size_t row = 0; row < bids + asks; row++) {
    int64_t price = book->slots[book->doubtful[row]].price;
    if (row < bids ? price <= book->bid_after.price : price >= book->ask_after.price)
      plan_change(book, book->doubtful[row], 0, 1);
  }
  return DONE;
}

void book_commit(struct book *book, int64_t update_id, int64_t time) {
  for (size_t row = 0; row < book->change_count; row++) {
    const struct change *change = &book->changes[row];
    struct slot *slot = &book->slots[change->slot];
    book->level_count += (change->quantity != 0) - (slot->quantity != 0);
    slot->quantity = change->quantity;
    book->named_count += change->names && !slot->named;
    slot->named |= change->names;
  }
  book->bid = book->bid_after;
  book->ask = book->ask_after;
  book->update_id = update_id;
  book->time = time;
}

void book_free(struct book *book) {
  memory_free(book->slots);
  memory_free(book->changes);
  memory_free(book->doubtful);
}
