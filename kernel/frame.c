/* Reading of a frame in the exchange's plain form, which is the only one that this reader accepts:
 *
 *     {"stream":"ethusdt@depth@100ms","data":{"e":"depthUpdate","E":1,"T":1,"s":"ETHUSDT","U":1,"u":1,"pu":1,
 *      "b":[["2681.63","73.077"],...],"a":[...]}}                                          without any space
 *
 * Further members may follow "a", as "ps" and "st" do, if no name of those above occurs twice. Every other
 * frame is refused, and the Python path decides about it. Each accepted one means the same to both.
 */
#include "kernel.h"

#include <string.h>

#define LARGEST_ID ((int64_t)1 << 53)           /* venue/binance_futures/frames.LARGEST */
#define LATEST_MS (INT64_MAX / 1000000)         /* frames._LATEST_MS */
#define MOST_DIGITS 18                          /* of a number: 10^18 is below MAX_STEPS */

static const int64_t POWERS[] = {1,         10,         100,         1000,         10000,         100000,
                                 1000000,   10000000,   100000000,   1000000000,   10000000000,   100000000000,
                                 1000000000000, 10000000000000, 100000000000000, 1000000000000000,
                                 10000000000000000, 100000000000000000, 1000000000000000000};

struct reader {
  const char *at, *end;
};

/* Take these bytes; return whether they were next. */
static int take(struct reader *reader, const char *bytes, size_t size) {
  if ((size_t)(reader->end - reader->at) < size || memcmp(reader->at, bytes, size) != 0) return 0;
  reader->at += size;
  return 1;
}
#define TAKE(reader, text) take(reader, text, sizeof(text) - 1)

static inline int is_digit(const struct reader *reader) {
  return reader->at < reader->end && (unsigned)(*reader->at - '0') < 10;
}

/* Take a whole number without a sign, of digits that JSON allows. */
static int take_integer(struct reader *reader, int64_t *value) {
  const char *start = reader->at;
  int64_t found = 0;
  while (is_digit(reader) && reader->at - start < MOST_DIGITS) found = found * 10 + (*reader->at++ - '0');
  if (reader->at == start || is_digit(reader) || (*start == '0' && reader->at - start > 1)) return 0;
  *value = found;
  return 1;
}

/* Take a text of printable ASCII up to its closing quote. */
static int take_text(struct reader *reader) {
  while (reader->at < reader->end && *reader->at >= ' ' && *reader->at <= '~' && *reader->at != '"' && *reader->at != '\\')
    reader->at++;
  return TAKE(reader, "\"");
}

/* Take a decimal number and its closing quote, as steps of a scale. */
static inline int take_decimal(struct reader *reader, int scale, int64_t *value) {
  const char *start = reader->at;
  int64_t found = 0;
  while (is_digit(reader) && reader->at - start < MOST_DIGITS) found = found * 10 + (*reader->at++ - '0');
  ptrdiff_t digits = reader->at - start, decimals = 0;
  if (digits == 0) return 0;
  if (reader->at < reader->end && *reader->at == '.') {
    start = ++reader->at;
    while (is_digit(reader) && digits + (reader->at - start) < MOST_DIGITS) found = found * 10 + (*reader->at++ - '0');
    decimals = reader->at - start;
    if (decimals == 0 || decimals > scale) return 0;
  }
  if (decimals < scale) {
    int64_t power = POWERS[scale - decimals];
    if (found > (MAX_STEPS - 1) / power) return 0;
    found *= power;
  }
  *value = found;
  return TAKE(reader, "\"");
}

void side_clear(struct side *side) {
  side->count = 0;
  if (side->room <= MOST_KEPT) return;
  memory_free(side->entries);
  *side = (struct side){0};
}

enum result side_add(struct side *side, int64_t price, int64_t quantity) {
  if (side->count == side->room) {
    size_t room = side->room ? 2 * side->room : 64;
    struct entry *entries = memory_resize(side->entries, room, sizeof *entries);
    if (!entries) return NO_MEMORY;
    side->entries = entries;
    side->room = room;
  }
  side->entries[side->count++] = (struct entry){price, quantity, 0};
  return DONE;
}

/* Take the list of one side's levels; `sign` is that of its quantities. */
static enum result take_side(struct reader *reader, const struct stream *stream, int sign, struct side *side) {
  side_clear(side);
  if (!TAKE(reader, "[")) return NOT_PLAIN;
  if (TAKE(reader, "]")) return DONE;
  do {
    int64_t price, quantity;
    if (!TAKE(reader, "[\"") || !take_decimal(reader, stream->price_scale, &price) || price < 1 ||
        !TAKE(reader, ",\"") || !take_decimal(reader, stream->quantity_scale, &quantity) || !TAKE(reader, "]"))
      return NOT_PLAIN;
    if (side_add(side, price, sign * quantity) != DONE) return NO_MEMORY;
  } while (TAKE(reader, ","));
  return TAKE(reader, "]") ? DONE : NOT_PLAIN;
}

/* Take what comes before the levels: stream and kind, times, symbol, update ids. */
static int take_head(struct reader *reader, const struct stream *stream, struct event *event) {
  if (!TAKE(reader, "{\"stream\":\"") || !take(reader, stream->name, stream->name_size)) return 0;
  if (reader->at < reader->end && *reader->at != '"' && *reader->at != '@') return 0;
  return take_text(reader) && TAKE(reader, ",\"data\":{\"e\":\"depthUpdate\",\"E\":") &&
         take_integer(reader, &event->event_time) && TAKE(reader, ",\"T\":") && take_integer(reader, &event->time) &&
         TAKE(reader, ",\"s\":\"") && take(reader, stream->symbol, stream->symbol_size) && TAKE(reader, "\",\"U\":") &&
         take_integer(reader, &event->first_id) && TAKE(reader, ",\"u\":") && take_integer(reader, &event->final_id) &&
         TAKE(reader, ",\"pu\":") && take_integer(reader, &event->previous_id) && TAKE(reader, ",\"b\":");
}

/* Return whether a name is one of those that `take_head` and the sides take. */
static int is_known_name(const char *name, ptrdiff_t size) {
  return size == 1 ? memchr("eETsUuba", *name, 8) != NULL : size == 2 && memcmp(name, "pu", 2) == 0;
}

/* Take members that this version does not know: other names, with a text or a whole number. */
static int take_further_members(struct reader *reader) {
  while (TAKE(reader, ",")) {
    int64_t number;
    const char *name = reader->at + 1;
    if (!TAKE(reader, "\"") || !take_text(reader) || is_known_name(name, reader->at - 1 - name) || !TAKE(reader, ":"))
      return 0;
    if (TAKE(reader, "\"") ? !take_text(reader) : !take_integer(reader, &number)) return 0;
  }
  return 1;
}

enum result read_frame(const struct stream *stream, const struct expected *expected, const char *frame, size_t size,
                       struct event *event) {
  struct reader reader = {frame, frame + size};
  if (!take_head(&reader, stream, event)) return NOT_PLAIN;
  if (event->previous_id != expected->previous_id || event->first_id <= event->previous_id ||
      event->final_id < event->first_id || event->final_id >= LARGEST_ID)
    return NOT_EXPECTED;
  if (event->time < expected->earliest || event->time > expected->latest || event->time < 1 ||
      event->time >= LATEST_MS || event->event_time < 1 || event->event_time >= LATEST_MS)
    return NOT_EXPECTED;
  enum result result = take_side(&reader, stream, 1, &event->bids);
  if (result != DONE) return result;
  if (!TAKE(&reader, ",\"a\":")) return NOT_PLAIN;
  result = take_side(&reader, stream, -1, &event->asks);
  if (result != DONE) return result;
  return take_further_members(&reader) && TAKE(&reader, "}}") && reader.at == reader.end ? DONE : NOT_PLAIN;
}
