/* Python's type `Levels`: the state of history/segment/compiled_levels.py; and `Column`, a view of one of its columns. */
#include "binding.h"

#include <structmember.h>

typedef struct {
  PyObject_HEAD
  struct block *block;
  Py_ssize_t count, width;
} Column;

typedef struct {
  PyObject_HEAD
  struct levels levels;
} Levels;

/* --- Column */

static void column_dealloc(PyObject *object) {
  PyTypeObject *type = Py_TYPE(object);
  block_release(((Column *)object)->block);
  ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
  Py_DECREF(type);
}

static int column_getbuffer(PyObject *object, Py_buffer *view, int flags) {
  Column *self = (Column *)object;
  if (PyBuffer_FillInfo(view, object, self->block->rows, self->count * self->width, 1, flags) != 0) return -1;
  view->itemsize = self->width;
  if (flags & PyBUF_FORMAT) view->format = self->width == 8 ? "q" : "i";
  if (view->shape) view->shape = &self->count;
  if (view->strides) view->strides = &self->width;
  return 0;
}

static PyType_Slot column_slots[] = {
    {Py_tp_doc, "The rows that a column had when it was asked for."},
    {Py_tp_dealloc, column_dealloc},
    {Py_bf_getbuffer, column_getbuffer},
    {0, NULL},
};

PyType_Spec column_spec = {
    .name = "chronobook_server.kernel._compiled.Column",
    .basicsize = sizeof(Column),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = column_slots,
};

/* Return a view of the rows that a column has now. */
static PyObject *view_of(PyObject *levels, const struct column *column) {
  struct state *state = PyType_GetModuleState(Py_TYPE(levels));
  if (!state) return NULL;
  PyTypeObject *type = (PyTypeObject *)state->column_type;
  Column *made = (Column *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
  if (!made) return NULL;
  made->block = column->block;
  made->block->references++;
  made->count = (Py_ssize_t)column->count;
  made->width = (Py_ssize_t)column->width;
  PyObject *view = PyMemoryView_FromObject((PyObject *)made);
  Py_DECREF(made);
  return view;
}

/* --- Levels */

static void levels_dealloc(PyObject *object) {
  Levels *self = (Levels *)object;
  PyTypeObject *type = Py_TYPE(object);
  levels_free(&self->levels);
  ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
  Py_DECREF(type);
}

static PyObject *levels_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
  PyObject *prices, *before;
  static char *names[] = {"prices", "before", NULL};
  if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OO", names, &prices, &before)) return NULL;
  Levels *self = (Levels *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
  if (!self) return NULL;
  struct rows rows[2] = {{.rows = NULL}, {.rows = NULL}};
  int made = 0;
  if (levels_begin(&self->levels) != DONE) {
    PyErr_NoMemory();
  } else if (rows_of(prices, &rows[0]) && rows_of(before, &rows[1])) {
    enum result result = rows[0].count == rows[1].count
                             ? levels_append(&self->levels, rows[0].rows, rows[1].rows, rows[0].count)
                             : NOT_EXPECTED;
    made = result == DONE;
    if (result == NO_MEMORY) PyErr_NoMemory();
    else if (!made) PyErr_SetString(PyExc_ValueError, "these columns are no levels");
  }
  rows_release(&rows[0]);
  rows_release(&rows[1]);
  if (made) return (PyObject *)self;
  Py_DECREF(self);
  return NULL;
}

/* Return the prices of the newest levels whose quantity before is unknown, in order. */
static PyObject *unknown_prices(const struct levels *levels, size_t unknown) {
  PyObject *prices = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(8 * unknown));
  if (!prices) return NULL;
  int64_t *rows = (int64_t *)PyBytes_AsString(prices);
  for (size_t level = levels->prices.count; unknown;)
    if (rows64(&levels->before)[--level] == UNKNOWN) rows[--unknown] = rows64(&levels->prices)[level];
  return prices;
}

PyDoc_STRVAR(add_doc, "add(prices, quantities, lowest, highest)\n\n"
                      "Append the changes of an event. Return the prices of new levels outside of this range, whose\n"
                      "quantity before is unknown; None without any.");

static PyObject *levels_add_method(PyObject *object, PyObject *const *arguments, Py_ssize_t count) {
  Levels *self = (Levels *)object;
  if (!has_arguments("add", count, 4)) return NULL;
  long long lowest = PyLong_AsLongLong(arguments[2]), highest = PyLong_AsLongLong(arguments[3]);
  if (PyErr_Occurred()) return NULL;
  struct rows prices = {.rows = NULL}, quantities = {.rows = NULL};
  size_t unknown = 0;
  enum result result = NOT_EXPECTED;
  if (rows_of(arguments[0], &prices) && rows_of(arguments[1], &quantities)) {
    if (prices.count == quantities.count)
      result = levels_add(&self->levels, prices.rows, quantities.rows, prices.count, lowest, highest, &unknown);
    if (result == NO_MEMORY) PyErr_NoMemory();
    else if (result != DONE) PyErr_SetString(PyExc_ValueError, "these columns are no changes");
  }
  rows_release(&prices);
  rows_release(&quantities);
  if (result != DONE) return NULL;
  if (unknown) return unknown_prices(&self->levels, unknown);
  Py_RETURN_NONE;
}

PyDoc_STRVAR(replay_doc, "replay(levels, quantities)\n\nAppend changes of levels, an i32 each, that exist.");

static PyObject *levels_replay_method(PyObject *object, PyObject *const *arguments, Py_ssize_t count) {
  Levels *self = (Levels *)object;
  Py_buffer ids;
  struct rows quantities;
  if (!has_arguments("replay", count, 2) || PyObject_GetBuffer(arguments[0], &ids, PyBUF_SIMPLE) != 0) return NULL;
  enum result result = NOT_EXPECTED;
  if (rows_of(arguments[1], &quantities)) {
    if ((size_t)ids.len == 4 * quantities.count && (!ids.len || (uintptr_t)ids.buf % 4 == 0))
      result = levels_replay(&self->levels, ids.buf, quantities.rows, quantities.count);
    if (result == NO_MEMORY) PyErr_NoMemory();
    else if (result != DONE) PyErr_SetString(PyExc_ValueError, "these columns are no changes");
    rows_release(&quantities);
  }
  PyBuffer_Release(&ids);
  if (result != DONE) return NULL;
  Py_RETURN_NONE;
}

/* Return the slot of a price; NULL if it is no level, also after an exception. */
static const struct level_slot *slot_of(const Levels *self, PyObject *price) {
  int overflow;
  long long steps = PyLong_AsLongLongAndOverflow(price, &overflow);
  return overflow || steps < 1 ? NULL : levels_find(&self->levels, steps);
}

PyDoc_STRVAR(level_doc, "level(price)\n\nReturn the level of a price; None if it is none.");

static PyObject *levels_level_method(PyObject *object, PyObject *price) {
  const struct level_slot *slot = slot_of((Levels *)object, price);
  if (slot) return PyLong_FromLong(slot->level);
  if (PyErr_Occurred()) return NULL;
  Py_RETURN_NONE;
}

PyDoc_STRVAR(changes_doc, "changes_after(price, number)\n\n"
                          "Return the numbers of a level's changes after one of them, newest first, as a column of i32.");

static PyObject *levels_changes_method(PyObject *object, PyObject *const *arguments, Py_ssize_t count) {
  Levels *self = (Levels *)object;
  if (!has_arguments("changes_after", count, 2)) return NULL;
  long stop = PyLong_AsLong(arguments[1]);
  const struct level_slot *slot = slot_of(self, arguments[0]);
  if (PyErr_Occurred()) return NULL;
  const int32_t *earlier = rows32(&self->levels.change_earlier);
  Py_ssize_t found = 0;
  for (int32_t number = slot ? slot->last : NONE; number > stop; number = earlier[number]) found++;
  PyObject *numbers = PyBytes_FromStringAndSize(NULL, 4 * found);
  if (!numbers || !found) return numbers;
  int32_t *rows = (int32_t *)PyBytes_AsString(numbers);
  for (int32_t number = slot->last; number > stop; number = earlier[number]) *rows++ = number;
  return numbers;
}

static PyObject *row64(const struct column *column, PyObject *number) {
  Py_ssize_t row = PyLong_AsSsize_t(number);
  if (row == -1 && PyErr_Occurred()) return NULL;
  if (row >= 0 && (size_t)row < column->count) return PyLong_FromLongLong(rows64(column)[row]);
  PyErr_SetString(PyExc_IndexError, "there is no such row");
  return NULL;
}

PyDoc_STRVAR(quantity_doc, "quantity(number)\n\nReturn the quantity of a change.");

static PyObject *levels_quantity_method(PyObject *object, PyObject *number) {
  return row64(&((Levels *)object)->levels.change_quantities, number);
}

PyDoc_STRVAR(before_doc, "quantity_before(level)\n\nReturn the quantity of a level before the first event.");

static PyObject *levels_before_method(PyObject *object, PyObject *level) {
  return row64(&((Levels *)object)->levels.before, level);
}

PyDoc_STRVAR(empty_doc, "was_empty(price)\n\nRecord that a new level was empty before the first event.");

static PyObject *levels_empty_method(PyObject *object, PyObject *price) {
  Levels *self = (Levels *)object;
  const struct level_slot *slot = slot_of(self, price);
  if (slot) rows64(&self->levels.before)[slot->level] = 0;
  else if (!PyErr_Occurred()) PyErr_SetString(PyExc_IndexError, "there is no such level");
  if (!slot) return NULL;
  Py_RETURN_NONE;
}

static PyObject *get_prices(PyObject *object, void *Py_UNUSED(unused)) {
  return view_of(object, &((Levels *)object)->levels.prices);
}
static PyObject *get_before(PyObject *object, void *Py_UNUSED(unused)) {
  return view_of(object, &((Levels *)object)->levels.before);
}
static PyObject *get_levels(PyObject *object, void *Py_UNUSED(unused)) {
  return view_of(object, &((Levels *)object)->levels.change_levels);
}
static PyObject *get_quantities(PyObject *object, void *Py_UNUSED(unused)) {
  return view_of(object, &((Levels *)object)->levels.change_quantities);
}

static PyGetSetDef properties[] = {
    {"prices", get_prices, NULL, "Price of each level.", NULL},
    {"before", get_before, NULL, "Quantity of each level before the first event.", NULL},
    {"change_levels", get_levels, NULL, "Level of each change.", NULL},
    {"change_quantities", get_quantities, NULL, "Quantity of each change.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"level_count", T_PYSSIZET, offsetof(Levels, levels.prices.count), READONLY, "Number of levels."},
    {"change_count", T_PYSSIZET, offsetof(Levels, levels.change_levels.count), READONLY, "Number of changes."},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef methods[] = {
    {"add", (PyCFunction)(void (*)(void))levels_add_method, METH_FASTCALL, add_doc},
    {"replay", (PyCFunction)(void (*)(void))levels_replay_method, METH_FASTCALL, replay_doc},
    {"level", levels_level_method, METH_O, level_doc},
    {"changes_after", (PyCFunction)(void (*)(void))levels_changes_method, METH_FASTCALL, changes_doc},
    {"quantity", levels_quantity_method, METH_O, quantity_doc},
    {"quantity_before", levels_before_method, METH_O, before_doc},
    {"was_empty", levels_empty_method, METH_O, empty_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot levels_slots[] = {
    {Py_tp_doc, "Levels(prices, before)\n\nThe levels of a segment in memory, and their changes."},
    {Py_tp_new, levels_new},
    {Py_tp_dealloc, levels_dealloc},
    {Py_tp_getset, properties},
    {Py_tp_members, members},
    {Py_tp_methods, methods},
    {0, NULL},
};

PyType_Spec levels_spec = {
    .name = "chronobook_server.kernel._compiled.Levels",
    .basicsize = sizeof(Levels),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = levels_slots,
};
