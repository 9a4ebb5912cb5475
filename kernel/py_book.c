/* Python's type `Book`: the state of book/compiled_book.py. */
#include "binding.h"

#include <string.h>
#include <structmember.h>

typedef struct {
  PyObject_HEAD
  struct book book;
  struct event event; /* of the last frame or call */
  struct stream stream;
} Book;

static void free_stream(struct stream *stream) {
  memory_free(stream->name);
  memory_free(stream->symbol);
}

static void book_dealloc(PyObject *object) {
  Book *self = (Book *)object;
  PyTypeObject *type = Py_TYPE(object);
  book_free(&self->book);
  free_stream(&self->stream);
  memory_free(self->event.bids.entries);
  memory_free(self->event.asks.entries);
  ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
  Py_DECREF(type);
}

static int is_loaded(const Book *self) {
  if (self->book.slots) return 1;
  PyErr_SetString(PyExc_ValueError, "the book is not loaded");
  return 0;
}

static char *copied(const char *text, size_t size) {
  char *copy = memory_resize(NULL, size + 1, 1);
  if (copy) memcpy(copy, text, size);
  return copy;
}

static int all_positive(const struct rows *prices) {
  for (size_t row = 0; row < prices->count; row++)
    if (prices->rows[row] < 1 || prices->rows[row] >= MAX_STEPS) return 0;
  return 1;
}

PyDoc_STRVAR(load_doc, "load(name, symbol, scales, known_range, state, prices, quantities, named)\n\n"
                       "Take a whole book in the place of the one before. Pairs: the scales of prices and quantities, the\n"
                       "known range, update id and time. Columns: prices, signed quantities, and named prices.");

static PyObject *book_load_method(PyObject *object, PyObject *arguments) {
  Book *self = (Book *)object;
  const char *name, *symbol;
  Py_ssize_t name_size, symbol_size;
  int price_scale, quantity_scale;
  long long lowest, highest, update_id, time;
  PyObject *columns[3];
  if (!PyArg_ParseTuple(arguments, "y#y#(ii)(LL)(LL)OOO", &name, &name_size, &symbol, &symbol_size, &price_scale,
                        &quantity_scale, &lowest, &highest, &update_id, &time, &columns[0], &columns[1], &columns[2]))
    return NULL;
  struct rows rows[3] = {{.rows = NULL}, {.rows = NULL}, {.rows = NULL}};
  struct stream stream = {NULL, NULL, (size_t)name_size, (size_t)symbol_size, price_scale, quantity_scale};
  PyObject *result = NULL;
  if (!rows_of(columns[0], &rows[0]) || !rows_of(columns[1], &rows[1]) || !rows_of(columns[2], &rows[2])) goto end;
  if (rows[0].count != rows[1].count || !all_positive(&rows[0]) || !all_positive(&rows[2]) || price_scale < 0 ||
      price_scale > 18 || quantity_scale < 0 || quantity_scale > 18) {
    PyErr_SetString(PyExc_ValueError, "these columns are no book");
    goto end;
  }
  stream.name = copied(name, stream.name_size);
  stream.symbol = copied(symbol, stream.symbol_size);
  if (!stream.name || !stream.symbol ||
      book_load(&self->book, rows[0].rows, rows[1].rows, rows[0].count, rows[2].rows, rows[2].count) != DONE) {
    PyErr_NoMemory();
    goto end;
  }
  struct stream before = self->stream;
  self->stream = stream;
  stream = before;
  self->book.lowest = lowest;
  self->book.highest = highest;
  self->book.update_id = update_id;
  self->book.time = time;
  result = Py_NewRef(Py_None);
end:
  free_stream(&stream);
  for (int index = 0; index < 3; index++) rows_release(&rows[index]);
  return result;
}

/* Return the planned changes as a pair of columns. */
static PyObject *planned_columns(const struct book *book) {
  Py_ssize_t size = (Py_ssize_t)(8 * book->change_count);
  PyObject *prices = PyBytes_FromStringAndSize(NULL, size), *quantities = PyBytes_FromStringAndSize(NULL, size);
  PyObject *pair = prices && quantities ? PyTuple_Pack(2, prices, quantities) : NULL;
  if (pair) {
    char *price_rows = PyBytes_AsString(prices), *quantity_rows = PyBytes_AsString(quantities);
    for (size_t row = 0; row < book->change_count; row++) {
      memcpy(price_rows + 8 * row, &book->changes[row].price, 8);
      memcpy(quantity_rows + 8 * row, &book->changes[row].quantity, 8);
    }
  }
  Py_XDECREF(prices);
  Py_XDECREF(quantities);
  return pair;
}

/* Return all prices that an event named, bids first. */
static PyObject *named_prices(const struct event *event) {
  const struct side *sides[] = {&event->bids, &event->asks};
  PyObject *named = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(8 * (event->bids.count + event->asks.count)));
  if (!named) return NULL;
  char *rows = PyBytes_AsString(named);
  for (int index = 0; index < 2; index++)
    for (size_t row = 0; row < sides[index]->count; row++, rows += 8) memcpy(rows, &sides[index]->entries[row].price, 8);
  return named;
}

static int put(PyObject *tuple, Py_ssize_t place, PyObject *value) {
  return value ? PyTuple_SetItem(tuple, place, value) == 0 : 0; /* takes the reference */
}

/* Return ids and times of the planned event, the best prices after it, its changes and the prices that it named. */
static PyObject *outcome(const Book *self) {
  const struct book *book = &self->book;
  const struct event *event = &self->event;
  int64_t ask = book->ask_after.price < MAX_STEPS ? book->ask_after.price : 0;
  const int64_t numbers[] = {event->first_id, event->final_id, event->previous_id, event->time, event->event_time};
  const int64_t best[] = {book->bid_after.price, book->bid_after.quantity, ask, ask ? -book->ask_after.quantity : 0};
  PyObject *result = PyTuple_New(8), *prices = PyTuple_New(4);
  int made = result && prices;
  for (Py_ssize_t place = 0; made && place < 5; place++) made = put(result, place, PyLong_FromLongLong(numbers[place]));
  for (Py_ssize_t place = 0; made && place < 4; place++) made = put(prices, place, PyLong_FromLongLong(best[place]));
  made = made && put(result, 5, Py_NewRef(prices)) && put(result, 6, planned_columns(book)) &&
         put(result, 7, named_prices(event));
  Py_XDECREF(prices);
  if (made) return result;
  Py_XDECREF(result);
  return NULL;
}

PyDoc_STRVAR(frame_doc, "take_frame(frame, earliest, latest)\n\n"
                        "Apply the event of a frame, if it continues the book at a time from `earliest` to `latest`.\n"
                        "Return (U, u, pu, T, E, best prices, (prices, quantities), named prices), or None and change\n"
                        "nothing.");

static PyObject *book_frame_method(PyObject *object, PyObject *const *arguments, Py_ssize_t count) {
  Book *self = (Book *)object;
  if (!has_arguments("take_frame", count, 3) || !is_loaded(self)) return NULL;
  if (!PyBytes_Check(arguments[0])) Py_RETURN_NONE;
  long long earliest = PyLong_AsLongLong(arguments[1]), latest = PyLong_AsLongLong(arguments[2]);
  if (PyErr_Occurred()) return NULL;
  char *frame;
  Py_ssize_t size;
  if (PyBytes_AsStringAndSize(arguments[0], &frame, &size) != 0) return NULL;
  struct expected expected = {self->book.update_id, earliest, latest};
  if (read_frame(&self->stream, &expected, frame, (size_t)size, &self->event) != DONE ||
      book_plan(&self->book, &self->event) != DONE)
    Py_RETURN_NONE;
  PyObject *result = outcome(self);
  if (!result) {
    if (!PyErr_ExceptionMatches(PyExc_MemoryError)) return NULL;
    PyErr_Clear(); /* the book is as before, so the frame is refused */
    Py_RETURN_NONE;
  }
  book_commit(&self->book, self->event.final_id, self->event.time);
  return result;
}

static int fill_side(struct side *side, const struct rows *prices, const struct rows *quantities) {
  side_clear(side);
  for (size_t row = 0; row < prices->count; row++)
    if (side_add(side, prices->rows[row], quantities->rows[row]) != DONE) return 0;
  return 1;
}

PyDoc_STRVAR(apply_doc, "take_levels(bid_prices, bid_quantities, ask_prices, ask_quantities, update_id, time)\n\n"
                        "Apply an event. Return its changes as (prices, quantities); None, changing nothing, if it would\n"
                        "cross the book.");

static PyObject *book_levels_method(PyObject *object, PyObject *const *arguments, Py_ssize_t count) {
  Book *self = (Book *)object;
  if (!has_arguments("take_levels", count, 6) || !is_loaded(self)) return NULL;
  long long update_id = PyLong_AsLongLong(arguments[4]), time = PyLong_AsLongLong(arguments[5]);
  if (PyErr_Occurred()) return NULL;
  struct rows rows[4] = {{.rows = NULL}, {.rows = NULL}, {.rows = NULL}, {.rows = NULL}};
  PyObject *result = NULL;
  for (int index = 0; index < 4; index++)
    if (!rows_of(arguments[index], &rows[index])) goto end;
  if (rows[0].count != rows[1].count || rows[2].count != rows[3].count || !all_positive(&rows[0]) ||
      !all_positive(&rows[2])) {
    PyErr_SetString(PyExc_ValueError, "these columns are no levels");
    goto end;
  }
  if (!fill_side(&self->event.bids, &rows[0], &rows[1]) || !fill_side(&self->event.asks, &rows[2], &rows[3])) {
    PyErr_NoMemory();
    goto end;
  }
  switch (book_plan(&self->book, &self->event)) {
    case DONE:
      result = planned_columns(&self->book);
      if (result) book_commit(&self->book, update_id, time);
      break;
    case CROSSED: result = Py_NewRef(Py_None); break;
    case NO_MEMORY: PyErr_NoMemory(); break;
    default: PyErr_SetString(PyExc_ValueError, "a side names a price twice");
  }
end:
  for (int index = 0; index < 4; index++) rows_release(&rows[index]);
  return result;
}

/* Return the slot of a price; NULL if it has none, also after an exception. */
static const struct slot *slot_of(const Book *self, PyObject *price) {
  int overflow;
  if (!is_loaded(self)) return NULL;
  long long steps = PyLong_AsLongLongAndOverflow(price, &overflow);
  return overflow || steps < 1 ? NULL : book_find(&self->book, steps);
}

PyDoc_STRVAR(level_doc, "level(price)\n\nReturn the signed quantity of a level; None if there is none.");

static PyObject *book_level_method(PyObject *object, PyObject *price) {
  const struct slot *slot = slot_of((Book *)object, price);
  if (slot && slot->quantity) return PyLong_FromLongLong(slot->quantity);
  if (PyErr_Occurred()) return NULL;
  Py_RETURN_NONE;
}

PyDoc_STRVAR(observed_doc, "is_observed(price)\n\nReturn whether an event has named a price outside the known range.");

static PyObject *book_observed_method(PyObject *object, PyObject *price) {
  const struct slot *slot = slot_of((Book *)object, price);
  return PyErr_Occurred() ? NULL : PyBool_FromLong(slot && slot->named);
}

PyDoc_STRVAR(columns_doc, "columns()\n\nReturn the prices, signed quantities and named prices as three columns.");

static PyObject *book_columns_method(PyObject *object, PyObject *Py_UNUSED(unused)) {
  Book *self = (Book *)object;
  if (!is_loaded(self)) return NULL;
  const struct book *book = &self->book;
  size_t named_count = 0, level = 0, name = 0;
  for (size_t place = 0; place < book->capacity; place++) named_count += book->slots[place].named;
  PyObject *prices = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(8 * book->level_count));
  PyObject *quantities = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(8 * book->level_count));
  PyObject *named = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(8 * named_count));
  PyObject *result = prices && quantities && named ? PyTuple_Pack(3, prices, quantities, named) : NULL;
  if (result) {
    char *price_rows = PyBytes_AsString(prices), *quantity_rows = PyBytes_AsString(quantities);
    char *named_rows = PyBytes_AsString(named);
    for (size_t place = 0; place < book->capacity; place++) {
      const struct slot *slot = &book->slots[place];
      if (slot->quantity) {
        memcpy(price_rows + 8 * level, &slot->price, 8);
        memcpy(quantity_rows + 8 * level++, &slot->quantity, 8);
      }
      if (slot->named) memcpy(named_rows + 8 * name++, &slot->price, 8);
    }
  }
  Py_XDECREF(prices);
  Py_XDECREF(quantities);
  Py_XDECREF(named);
  return result;
}

static PyMethodDef methods[] = {
    {"load", book_load_method, METH_VARARGS, load_doc},
    {"take_frame", (PyCFunction)(void (*)(void))book_frame_method, METH_FASTCALL, frame_doc},
    {"take_levels", (PyCFunction)(void (*)(void))book_levels_method, METH_FASTCALL, apply_doc},
    {"level", book_level_method, METH_O, level_doc},
    {"is_observed", book_observed_method, METH_O, observed_doc},
    {"columns", book_columns_method, METH_NOARGS, columns_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"update_id", T_LONGLONG, offsetof(Book, book.update_id), READONLY, "Update id of the last event."},
    {"transaction_time", T_LONGLONG, offsetof(Book, book.time), READONLY, "`T` of the last event."},
    {"best_bid", T_LONGLONG, offsetof(Book, book.bid.price), READONLY, "The best bid; 0 without bids."},
    {"best_ask", T_LONGLONG, offsetof(Book, book.ask.price), READONLY, "The best ask; MAX_STEPS without asks."},
    {"level_count", T_LONGLONG, offsetof(Book, book.level_count), READONLY, "Number of levels."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "A book in C. It answers after `load`."},
    {Py_tp_dealloc, book_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {0, NULL},
};

PyType_Spec book_spec = {
    .name = "chronobook_server.kernel._compiled.Book",
    .basicsize = sizeof(Book),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = slots,
};
