/* Tests of the core without Python: random frames against a plain book, failing allocations, views of growing columns. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

extern long memory_faults_after;

#define PRICES 64 /* of the plain book; the known range is the middle half */
#define ROOM 8192

static struct stream stream = {"x@depth", "X", 7, 1, 1, 0};
static uint64_t random_state = 1;

static unsigned below(unsigned bound) {
  random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (unsigned)(random_state >> 33) % bound;
}

/* Write a side with some of the prices, each at most once, and its quantities into `set`; -1: not named. */
static int write_side(char *at, int *set, int low, int high) {
  char *start = at;
  *at++ = '[';
  for (int price = 1; price < PRICES; price++) {
    set[price] = -1;
    if (below(6) || price < low || price > high) continue;
    set[price] = below(2) ? (int)below(5) : 0;
    at += sprintf(at, "%s[\"%d.%d\",\"%d\"]", at[-1] == '[' ? "" : ",", price / 10, price % 10, set[price]);
  }
  *at++ = ']';
  *at = 0;
  return (int)(at - start);
}

static int write_frame(char *frame, long id, int *bids, int *asks) {
  int middle = 20 + (int)below(24), size = sprintf(frame, "{\"stream\":\"x@depth@100ms\",\"data\":{\"e\":\"depthUpdate\",\"E\":%ld,"
      "\"T\":%ld,\"s\":\"X\",\"U\":%ld,\"u\":%ld,\"pu\":%ld,\"b\":", id, id, id + 1, id + 1, id);
  size += write_side(frame + size, bids, 1, middle + (int)below(3));
  size += sprintf(frame + size, ",\"a\":");
  size += write_side(frame + size, asks, middle - (int)below(3), PRICES);
  return size + sprintf(frame + size, "}}");
}

static void load(struct book *book, int64_t id) {
  const int64_t prices[] = {30, 32}, quantities[] = {5, -7};
  assert(book_load(book, prices, quantities, 2, NULL, 0) == DONE);
  book->lowest = PRICES / 4;
  book->highest = 3 * PRICES / 4;
  book->update_id = book->time = id;
}

static void check_same(const struct book *book, const int64_t *plain) {
  int64_t best_bid = 0, best_ask = MAX_STEPS, count = 0;
  for (int price = 1; price < PRICES; price++) {
    const struct slot *slot = book_find(book, price);
    assert((slot ? slot->quantity : 0) == plain[price]);
    if (plain[price] > 0) best_bid = price;
    if (plain[price] < 0 && best_ask == MAX_STEPS) best_ask = price;
    count += plain[price] != 0;
  }
  assert(book->bid.price == best_bid && book->ask.price == best_ask && book->level_count == count);
  assert(book->bid.quantity == (best_bid ? plain[best_bid] : 0));
  assert(book->ask.quantity == (best_ask < MAX_STEPS ? plain[best_ask] : 0));
}

/* Apply an event to the plain book; return whether it crosses it, which changes nothing. */
static int apply_plainly(int64_t *plain, const int *bids, const int *asks) {
  int64_t after[PRICES];
  memcpy(after, plain, sizeof after);
  for (int price = 1; price < PRICES; price++) {
    int keeps_bid = plain[price] > 0 && bids[price] < 0, keeps_ask = plain[price] < 0 && asks[price] < 0;
    if ((bids[price] > 0 || keeps_bid) && (asks[price] > 0 || keeps_ask)) return 1;
    if (bids[price] > 0) after[price] = bids[price];
    else if (asks[price] > 0) after[price] = -asks[price];
    else if (!keeps_bid && !keeps_ask) after[price] = 0;
  }
  int best_bid = 0, best_ask = PRICES;
  for (int price = 1; price < PRICES; price++) {
    if (after[price] > 0) best_bid = price;
    if (after[price] < 0 && price < best_ask) best_ask = price;
  }
  if (best_bid >= best_ask) return 1;
  memcpy(plain, after, sizeof after);
  return 0;
}

static void test_random_frames(int faults) {
  static char frame[ROOM];
  struct book book = {0};
  struct event event = {0};
  int64_t plain[PRICES] = {0};
  int bids[PRICES], asks[PRICES], applied = 0, crossed = 0, refused = 0;
  long id = 1;
  load(&book, id);
  plain[30] = 5;
  plain[32] = -7;
  for (int round = 0; round < 20000; round++) {
    int size = write_frame(frame, id, bids, asks);
    struct expected expected = {book.update_id, 1, id};
    memory_faults_after = faults ? (long)below(3) : -1;
    enum result result = read_frame(&stream, &expected, frame, (size_t)size, &event);
    if (result == DONE) result = book_plan(&book, &event);
    memory_faults_after = -1;
    check_same(&book, plain); /* neither step changes the book */
    if (result == NO_MEMORY) {
      refused++;
      memory_free(event.bids.entries); /* so that the next frame allocates again */
      event.bids = (struct side){0};
      if (below(50) == 0) load(&book, id), memset(plain, 0, sizeof plain), plain[30] = 5, plain[32] = -7;
      continue;
    }
    assert(result == (apply_plainly(plain, bids, asks) ? CROSSED : DONE));
    if (result == CROSSED) {
      crossed++;
      continue;
    }
    book_commit(&book, event.final_id, event.time);
    check_same(&book, plain);
    applied++;
    id++;
    if (below(1000) == 0) book.event = UINT32_MAX / 2 - 2; /* the marks begin anew soon */
  }
  assert(applied > 1000 && crossed > 100 && (refused > 100) == faults);
  printf("frames: %d applied, %d crossed, %d without memory\n", applied, crossed, refused);
  book_free(&book);
  memory_free(event.bids.entries);
  memory_free(event.asks.entries);
}

/* After a large event that is refused, the next one gives its memory back. */
static void test_a_large_event(void) {
  struct book book = {0};
  struct event event = {0};
  load(&book, 1);
  for (int64_t price = 1; price < 100000; price++) {
    assert(side_add(&event.bids, price, 1) == DONE);
    assert(side_add(&event.asks, price, -1) == DONE);
  }
  assert(book_plan(&book, &event) == CROSSED);
  assert(book.capacity > 200000 && book.room > 100000);
  side_clear(&event.bids);
  side_clear(&event.asks);
  assert(!event.bids.room && book_plan(&book, &event) == DONE);
  assert(book.capacity <= 64 && book.room <= 64 && book.level_count == 2);
  assert(book_find(&book, 30)->quantity == 5 && book_find(&book, 32)->quantity == -7 && !book_find(&book, 31));
  book_free(&book);
}

/* Every frame that is cut short, or has another byte somewhere, is refused or means what it says; none reads too far. */
static void test_broken_frames(void) {
  static char frame[ROOM];
  int bids[PRICES], asks[PRICES];
  struct event event = {0};
  for (int round = 0; round < 300; round++) {
    int size = write_frame(frame, 1, bids, asks);
    struct expected expected = {1, 1, 1};
    assert(read_frame(&stream, &expected, frame, (size_t)size, &event) == DONE);
    for (int cut = 0; cut < size; cut++) {
      char *part = malloc((size_t)cut ? (size_t)cut : 1); /* the checker sees a byte too far */
      memcpy(part, frame, (size_t)cut);
      assert(read_frame(&stream, &expected, part, (size_t)cut, &event) != DONE);
      free(part);
    }
    for (int change = 0; change < 200; change++) {
      char *part = malloc((size_t)size);
      memcpy(part, frame, (size_t)size);
      part[below((unsigned)size)] = "0123456789.,\"[]{}:-eu\\ \377"[below(25)];
      read_frame(&stream, &expected, part, (size_t)size, &event);
      free(part);
    }
  }
  memory_free(event.bids.entries);
  memory_free(event.asks.entries);
}

static void test_long_numbers(void) {
  static const char *const bad[] = {"1234567890123456789", "99999999999999999999", "1.12", "", ".5", "5.", "-1", "+1", " 1",
                                    "1e5", "0", "461168601842738791", "00", "1 "};
  char frame[ROOM];
  struct event event = {0};
  struct expected expected = {1, 1, 1};
  for (size_t index = 0; index < sizeof bad / sizeof *bad; index++) {
    int size = sprintf(frame, "{\"stream\":\"x@depth\",\"data\":{\"e\":\"depthUpdate\",\"E\":1,\"T\":1,\"s\":\"X\",\"U\":2,\"u\":2,"
                              "\"pu\":1,\"b\":[[\"%s\",\"1\"]],\"a\":[]}}", bad[index]);
    assert(read_frame(&stream, &expected, frame, (size_t)size, &event) == NOT_PLAIN);
  }
  memory_free(event.bids.entries);
  memory_free(event.asks.entries);
}

static void test_levels(void) {
  struct levels levels;
  int64_t last[3000] = {0};
  assert(levels_begin(&levels) == DONE);
  struct block *old = levels.change_quantities.block;
  size_t unknown, changes = 0;
  old->references++; /* a view */
  for (int64_t round = 1; round < 6000; round++) {
    int64_t prices[] = {1 + below(2999), 3000}, quantities[] = {round, -round};
    memory_faults_after = below(4) ? -1 : (long)below(3);
    enum result result = levels_add(&levels, prices, quantities, 2, 1, 2999, &unknown);
    memory_faults_after = -1;
    if (result == NO_MEMORY) {
      assert(levels.change_levels.count == changes && levels.change_quantities.count == changes);
      continue;
    }
    last[prices[0]] = round;
    changes += 2;
    if (changes == 2) assert(unknown == 1);
    const struct level_slot *slot = levels_find(&levels, prices[0]);
    assert(rows64(&levels.change_quantities)[slot->last] == round);
    assert(rows64(&levels.prices)[slot->level] == prices[0] && rows64(&levels.before)[slot->level] == 0);
  }
  for (int64_t price = 1; price < 3000; price++) {
    const struct level_slot *slot = levels_find(&levels, price);
    assert(slot ? rows64(&levels.change_quantities)[slot->last] == last[price] : !last[price]);
  }
  assert(old != levels.change_quantities.block && old->references == 1);
  assert(old->rows[1] == -rows64(&levels.change_quantities)[0] && changes > 1000);
  block_release(old);
  levels_free(&levels);
}

int main(void) {
  test_random_frames(0);
  test_random_frames(1);
  test_a_large_event();
  test_broken_frames();
  test_long_numbers();
  test_levels();
  puts("the core is sound");
  return 0;
}
